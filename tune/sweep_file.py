"""A sweep file as plain data: read, with what `--preset` and `--set` lay over it, its paths filled in."""

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode

from results.places import PlaceError, filled_in
from results.storage import location
from rrm.presets import Replacement, merge
from rrm.puzzles.puzzle import SPLITS
from tune.fields import did_you_mean, shown

REPLACE = "!replace"
PATH_FIELDS = {"": ("storage",), "task": ("data", *SPLITS), "init_from": ("root", "name")}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", type(None): "nothing"}


class SpecError(ValueError):
    """Everything that is wrong with a sweep file: one line a problem, each with field, value and mend."""

    def __init__(self, path: str, problems: list[str]):
        self.problems = list(dict.fromkeys(problems))
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = [line for problem in self.problems for line in problem.splitlines()]
        super().__init__("\n  ".join([f"{path}: {count}, nothing was started", *lines]))


def read(path: str, overrides: list[str] | None = None, preset: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """A sweep file's content, and what is wrong with its keys.

    One of its own presets may be laid over it (the sweep is then called <name>-<preset>, unless the preset names it),
    then `overrides`, each `dotted.field=value`. What is laid over goes into mappings; an empty mapping, or one tagged
    `!replace`, replaces what stands there, and null removes it. Raises SpecError if there is nothing to check.
    """
    raw, problems = _parsed(path, _text(path), "")
    if not isinstance(raw, dict):
        raise SpecError(path, [f"holds {shown(raw)}; give a mapping with name, base, arms, baseline and seeds"])
    raw = _with_preset(path, raw, preset)
    for override in overrides or []:
        field, equals, text = override.partition("=")
        if not equals or not field:
            raise SpecError(path, [f"--set {override}: give FIELD=VALUE, or FIELD= to remove it"])
        value, found = _parsed(f"--set {field}", text, field)
        problems += found
        raw = _laid_over(raw, _at(raw, field, value))
    raw = {key: value for key, value in raw.items() if value is not None}
    return {key: value if key == "presets" else _filled_in(value, (key,)) for key, value in raw.items()}, problems


def written(raw: dict[str, Any]) -> bytes:
    """The text of a sweep file with this content."""
    text = io.BytesIO()
    _yaml().dump(raw, text)
    return text.getvalue()


def _yaml() -> YAML:
    """YAML 1.2, plain data only: no tags that build objects but our own; a key that stands twice is an error."""
    yaml = YAML(typ="safe", pure=True)

    def replacement(constructor: Any, node: Any) -> Replacement:
        if not isinstance(node, MappingNode):
            raise YAMLError(f"{REPLACE} is for a mapping, and line {node.start_mark.line + 1} has none; leave it out")
        return Replacement(constructor.construct_mapping(node, deep=True))

    # To classes of this object's own: ruamel.yaml adds to what all objects share.
    yaml.Constructor = type("Constructor", (yaml.Constructor,), {})
    yaml.Representer = type("Representer", (yaml.Representer,), {})
    yaml.constructor.add_constructor(REPLACE, replacement)
    yaml.representer.add_representer(Replacement, lambda to, value: to.represent_mapping(REPLACE, value))
    yaml.representer.sort_base_mapping_type_on_output = False
    return yaml


def _text(path: str) -> str:
    try:
        return location(path).read_bytes().decode("utf-8")
    except PlaceError as error:
        raise SpecError(path, [str(error)]) from error
    except OSError as error:
        raise SpecError(path, [f"{error.strerror}; give the path of a sweep file"]) from error
    except UnicodeDecodeError as error:
        raise SpecError(path, [f"not a text file in UTF-8 ({error.reason}); give the path of a sweep file"]) from error


def _parsed(path: str, text: str, place: str) -> tuple[Any, list[str]]:
    try:
        return _with_text_keys(_yaml().load(text), place)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = str(error.problem).splitlines()[0]
        raise SpecError(path, [f"{place}not valid YAML: {reason}; mend the syntax there"]) from error
    except RecursionError as error:
        raise SpecError(path, ["not valid YAML: nested too deep; flatten it"]) from error
    except (YAMLError, ValueError) as error:
        raise SpecError(path, [f"not valid YAML: {str(error).splitlines()[0]}"]) from error


def _with_text_keys(value: Any, place: str) -> tuple[Any, list[str]]:
    """The value with every key as a text, and a line for each that is none: YAML reads `1:` as a number."""
    if isinstance(value, list):
        parts = [_with_text_keys(part, f"{place}[{index}]") for index, part in enumerate(value)]
        return [part for part, _ in parts], [problem for _, problems in parts for problem in problems]
    if not isinstance(value, dict):
        return value, []
    content, problems = type(value)(), []
    for key, part in value.items():
        if not isinstance(key, str):
            kind = _KINDS.get(type(key), "a date" if hasattr(key, "year") else "no text")
            text = str(key).lower() if isinstance(key, bool) else str(key)
            where = f"{place}: " if place else ""
            problems.append(f'{where}the key {text} is {kind} to YAML; write it as a text: "{text}"')
            key = text
        content[key], found = _with_text_keys(part, f"{place}.{key}" if place else key)
        problems += found
    return content, problems


def _with_preset(path: str, raw: dict[str, Any], preset: str | None) -> dict[str, Any]:
    if preset is None:
        return raw
    presets = raw.get("presets")
    presets = presets if isinstance(presets, dict) else {}
    if not isinstance(presets.get(preset), dict):
        known = f"; its presets: {', '.join(map(str, presets))}" if presets else "; it has none"
        raise SpecError(path, [f"--preset {preset}: no such preset in the file{did_you_mean(preset, presets)}{known}"])
    named = {"name": f"{raw.get('name')}-{preset}"} | presets[preset]
    return _laid_over({key: value for key, value in raw.items() if key != "presets"}, named)


def _at(mapping: Any, path: str, value: Any, *, is_flat: bool | None = None) -> dict[str, Any]:
    """The nested mappings in which a dotted path leads to `value`. A key of `mapping` that holds dots is found.

    grid and search are flat: what they do not hold yet is one key.
    """
    mapping = mapping if isinstance(mapping, dict) else {}
    known = [key for key in mapping if f"{path}.".startswith(f"{key}.")]
    key = max(known, key=len) if known else path if is_flat else path.partition(".")[0]
    rest = path[len(key) + 1 :]
    if not rest:
        return {key: value}
    return {key: _at(mapping.get(key), rest, value, is_flat=is_flat is None and key in ("grid", "search"))}


def _laid_over(raw: dict[str, Any], changes: dict[str, Any], place: tuple[str, ...] = ()) -> dict[str, Any]:
    """`raw` with changes laid over it. What null takes from `base` or an arm stays null: there are layers below."""
    laid = dict(raw)
    for key, value in changes.items():
        here = (*place, key)
        if here == ("base",) or (here[:1] == ("arms",) and len(here) == 2 and value is not None):
            laid = merge(laid, {key: value})
        elif value is None:
            laid.pop(key, None)
        elif isinstance(value, dict) and value and not isinstance(value, Replacement):
            under = laid.get(key)
            laid[key] = _laid_over(under if isinstance(under, dict) else {}, value, here)
        else:
            laid[key] = value
    return laid


def _filled_in(value: Any, place: tuple[str, ...]) -> Any:
    """The value with its paths filled in, where they can be; what is wrong with others is said with their fields."""
    if isinstance(value, dict):
        return type(value)((key, _filled_in(part, (*place, *key.split(".")))) for key, part in value.items())
    if isinstance(value, list):
        return [_filled_in(part, place) for part in value]
    part, field = ("", "", *(key for key in place if key != "choice"))[-2:]  # `search` may choose between paths
    if not isinstance(value, str) or field not in PATH_FIELDS.get(part, ()):
        return value
    try:
        return filled_in(value)
    except PlaceError:
        return value

"""Fields of the configs by their dotted names, and pydantic's errors as one line: field, value, mend."""

import difflib
import types
import typing
from typing import Any, Union

from pydantic import BaseModel

from rrm.config import TrialConfig

ABSENT = object()
UNION_TAGS = {"model": "arch", "task": "name"}  # the field that chooses between the classes of a union


def lookup(mapping: Any, path: str) -> Any:
    """What a dotted path leads to in nested mappings, or ABSENT."""
    for key in path.split(".") if path else ():
        if isinstance(mapping, dict) and key in mapping:
            mapping = mapping[key]
        else:
            return ABSENT
    return mapping


def nested(path: str, value: Any) -> dict[str, Any]:
    """The nested mappings in which a dotted path leads to `value`."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def field_names(root: type[BaseModel]) -> set[str]:
    """Names of the fields of a config class, and of those of the classes within it, at every depth."""
    parts = (model for field in root.model_fields.values() for model in _models_in(field.annotation))
    return set(root.model_fields).union(*map(field_names, parts))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if typing.get_origin(annotation) in (Union, types.UnionType, typing.Annotated):
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def fields_at(root: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the fields of the config class that `path` leads to; empty if it leads to none."""
    _, models = _follow(root, path)
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def fitting(mapping: dict[str, Any], root: type[BaseModel], path: list[str]) -> dict[str, Any]:
    """What of a mapping the config class that `path` leads to has fields for, mapping by mapping."""
    known = fields_at(root, path)
    return {
        key: fitting(value, root, [*path, key]) if isinstance(value, dict) else value
        for key, value in mapping.items()
        if key in known
    }


def _follow(root: type[BaseModel], path: list[str]) -> tuple[list[str], list[type[BaseModel]]]:
    """The field names on a path, and the config classes at its end.

    Pydantic's paths also name the member of a union it looked at (`model.hrm.L_layers`): that is no field.
    """
    names: list[str] = []
    models: list[type[BaseModel]] = [root]
    for key in path:
        tagged = [m for m in models if key in _tags(m)]
        if tagged and not any(key in m.model_fields for m in models):
            models = tagged
            continue
        names.append(key)
        models = [
            m for model in models if key in model.model_fields for m in _models_in(model.model_fields[key].annotation)
        ]
    return names, models


def _tags(model: type[BaseModel]) -> list[Any]:
    """The words that choose this class in a union."""
    fields = (model.model_fields[name] for name in UNION_TAGS.values() if name in model.model_fields)
    return [word for field in fields for word in typing.get_args(field.annotation)]


def field_of(problem: Any, root: type[BaseModel]) -> str:
    """The dotted field an error is about. Our own validators start their text with the field's name."""
    path, _ = _follow(root, [str(part) for part in problem["loc"] if isinstance(part, str)])
    if problem["type"] == "value_error" and _names_field(problem):
        path.append(_own_text(problem).partition(":")[0])
    return ".".join(path)


def _own_text(problem: Any) -> str:
    return problem["msg"].removeprefix("Value error, ")


def _names_field(problem: Any) -> bool:
    head, colon, _ = _own_text(problem).partition(": ")
    return bool(colon) and all(c.isalnum() or c in "_." for c in head)


def shown(value: Any) -> str:
    """A value as a message shows it."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."


def did_you_mean(word: Any, known: Any) -> str:
    """A hint at the known word that is nearest, if one is near."""
    close = difflib.get_close_matches(str(word), [str(k) for k in known], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "string": "a text",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "is below {}; give {} or more"),
    "greater_than": ("gt", "is not above {}; give more than {}"),
    "less_than_equal": ("le", "is above {}; give {} or less"),
    "less_than": ("lt", "is not below {}; give less than {}"),
}


def explain(problem: Any, root: type[BaseModel], prefix: str) -> str:
    """One line for one of pydantic's errors: field, value, what would be right."""
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    field = prefix + field_of(problem, root)
    index = next((part for part in problem["loc"] if isinstance(part, int)), None)
    if index is not None:
        field += f"[{index}]"
    if kind == "value_error":
        text = _own_text(problem)
        return f"{field}: {text.partition(': ')[2] if _names_field(problem) else text}"
    if kind == "extra_forbidden":
        *parents, last = (str(part) for part in problem["loc"])
        known = fields_at(root, parents)
        if root is TrialConfig and not parents:
            known = ["preset", *(name for name in known if name != "seed")]
        return (
            f"{field}: unknown field with value {shown(value)}{did_you_mean(last, known)}; fields: {', '.join(known)}"
        )
    if kind == "missing":
        return f"{field}: missing; give a value"
    if kind in _BOUNDS:
        name, text = _BOUNDS[kind]
        bound = str(context[name]) if isinstance(context[name], int) else format(context[name], "g")
        return f"{field}: {shown(value)} {text.format(bound, bound)}"
    if kind == "literal_error":
        return f"{field}: {shown(value)} is not one of {context['expected']}{did_you_mean(value, _options(context))}"
    if kind == "union_tag_invalid":
        known = context["expected_tags"].replace("'", "").split(", ")
        hint = did_you_mean(context["tag"], known)
        tag = UNION_TAGS[field.rpartition(".")[2]]
        return f"{field}.{tag}: {context['tag']!r} is not one of {', '.join(known)}{hint}"
    if kind == "string_too_short":
        return f"{field}: {shown(value)} is empty; give a text"
    if kind == "too_short":
        return f"{field}: {shown(value)} is empty; give at least one"
    if kind == "string_pattern_mismatch":
        return f"{field}: {shown(value)} does not fit; use letters, digits, _, - and ., a letter or digit first"
    if kind == "finite_number":
        return f"{field}: {shown(value)} is not finite; give a number"
    wanted = _WANTED.get(kind.partition("_")[0])
    if wanted:
        return f"{field}: {shown(value)} is not {wanted}; give {wanted}"
    return f"{field}: {shown(value)}: {problem['msg']}"


def _options(context: dict[str, Any]) -> list[str]:
    return context["expected"].replace("'", "").replace(" or ", ", ").split(", ")

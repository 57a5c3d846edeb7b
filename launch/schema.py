"""`rrm schema`: the JSON schema of sweep files, for editors; and what is in a field, for people."""

import argparse
import inspect
import json
from collections.abc import Iterator
from typing import Any

from rrm.config import TrialConfig
from rrm.presets import PRESETS
from tune.plan import ALL_DONE
from tune.spec import Scheduler, SweepSpec

NAME = "sweep.schema.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `rrm schema` to its parser."""
    help = f"what one of these holds, in words: {', '.join(sorted(_fields()))}"
    parser.add_argument("field", metavar="FIELD", nargs="?", choices=sorted(_fields()), help=help)
    parser.set_defaults(command=_schema, only_prints=True)


def _schema(arguments: argparse.Namespace) -> int:
    print(json.dumps(sweep_schema(), indent=1) if arguments.field is None else described(arguments.field))
    return ALL_DONE


def _fields() -> dict[str, Any]:
    """The schemas of a sweep's and of a trial's fields, by name, and of a sweep as a whole."""
    return TrialConfig.model_json_schema()["properties"] | SweepSpec.model_json_schema()["properties"] | {"sweep": {}}


def described(field: str) -> str:
    """What a field of a sweep or of its trials holds: its sense, and each part's values and default.

    Raises KeyError if there is no such field.
    """
    trial, sweep = TrialConfig.model_json_schema(), SweepSpec.model_json_schema()
    definitions = trial["$defs"] | sweep["$defs"]
    if field == "sweep":
        return _table("", sweep, definitions)
    schema = _fields()[field]
    parts = [definitions[name] for name in _references(schema)]
    if not parts:
        return f"{field}: {_values(schema, definitions)}"
    return "\n\n".join(_table(f"{field}.", part, definitions) for part in parts)


def _references(schema: Any) -> Iterator[str]:
    """The names of the definitions that a field may have, in order."""
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2]
    for one in schema.get("anyOf", schema.get("oneOf", ())):
        yield from _references(one)


def _table(prefix: str, part: dict[str, Any], definitions: dict[str, Any]) -> str:
    rows = []
    for name, schema in part["properties"].items():
        default = "needed" if name in part.get("required", ()) else _shown(schema.get("default"))
        rows.append((f"{prefix}{name}", default, _values(schema, definitions)))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {default:<{widths[1]}}  {values}".rstrip() for name, default, values in rows]
    return "\n".join([inspect.cleandoc(part.get("description", part["title"])), "", *lines])


def _shown(default: Any) -> str:
    return "none" if default is None else json.dumps(default).replace('"', "")


def _values(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """The values that a schema takes, in a few words."""
    if "$ref" in schema:
        return "fields of " + ", ".join(definitions[schema["$ref"].rpartition("/")[2]]["properties"])
    if options := schema.get("anyOf", schema.get("oneOf")):
        return " | ".join(dict.fromkeys(_values(one, definitions) for one in options))
    if "const" in schema or "enum" in schema:
        return " | ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        each = schema.get("prefixItems", [schema.get("items") or {}])
        return f"[{', '.join(_values(one, definitions) for one in each)}{'' if 'prefixItems' in schema else ', ...'}]"
    words = {"null": "none", "object": "fields"}
    kind = words.get(schema.get("type", "any"), schema.get("type", "any"))
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = (f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema)
    return f"{kind} {', '.join(limits)}".rstrip()


def sweep_schema() -> dict[str, Any]:
    """The schema: a sweep's own fields, and a trial's wherever a part of one may stand (base, arms).

    It knows names, types and ranges; what must fit together is for `rrm plan` to say.
    """
    trial, sweep = TrialConfig.model_json_schema(), SweepSpec.model_json_schema()
    definitions = trial.pop("$defs") | sweep.pop("$defs") | {"Trial": trial, "Sweep": sweep}
    definitions = {name: _part(definition) for name, definition in definitions.items()}
    part = definitions["Trial"]
    part["properties"] |= {"preset": {"enum": sorted(PRESETS)}}
    whole = definitions["Sweep"]["properties"]
    part_of_trial = {"$ref": "#/$defs/Trial"}
    whole |= {
        "base": part_of_trial,
        "arms": {"type": "object", "additionalProperties": {"anyOf": [part_of_trial, {"type": "null"}]}},
        "presets": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Sweep"}},
        "resources": {"anyOf": [{"const": "auto"}, {"$ref": "#/$defs/Resources"}, {"type": "null"}]},
        "scheduler": {
            "anyOf": [{"enum": ["none", *_names(Scheduler)]}, {"$ref": "#/$defs/Scheduler"}, {"type": "null"}]
        },
    }
    required = [name for name, field in SweepSpec.model_fields.items() if field.is_required()]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A sweep of rrm",
        "$defs": definitions,
        "$ref": "#/$defs/Sweep",
        "required": required,
    }


def _names(model: Any) -> list[str]:
    return list(model.model_fields["name"].annotation.__args__)


def _part(schema: Any) -> Any:
    """A schema as of something that is laid over another: no field is required, null removes one."""
    if isinstance(schema, list):
        return [_part(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        name: _part(value) for name, value in schema.items() if name not in ("required", "discriminator", "default")
    }
    if "oneOf" in kept:  # parts of several kinds may fit at once
        kept["anyOf"] = kept.pop("oneOf")
    if "properties" in kept:
        kept["properties"] = {name: {"anyOf": [value, {"type": "null"}]} for name, value in kept["properties"].items()}
    return kept

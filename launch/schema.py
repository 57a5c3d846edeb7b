"""`rrm schema`: the JSON schema of sweep files, by which an editor completes fields and marks what is wrong."""

import argparse
import json
from typing import Any

from rrm.config import TrialConfig
from rrm.presets import PRESETS
from tune.plan import ALL_DONE
from tune.spec import Scheduler, SweepSpec

NAME = "sweep.schema.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `rrm schema` to its parser."""
    parser.set_defaults(command=_schema)


def _schema(arguments: argparse.Namespace) -> int:
    print(json.dumps(sweep_schema(), indent=1))
    return ALL_DONE


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

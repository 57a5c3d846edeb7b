"""The files that a trial names, puzzles and a checkpoint: made absolute, and what is wrong with each, by its field."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from results.places import S3, PlaceError, filled_in
from rrm.models.published import InitFrom
from rrm.presets import merge
from rrm.puzzles.formats import DataError, data_digest, file_digest
from rrm.puzzles.puzzle import SPLITS
from rrm.puzzles.sources import NoSuchFolderError, command_that_makes, is_hub_name, on_this_node, splits_in
from tune.fields import ABSENT, lookup

Layers = list[tuple[str, dict[str, Any]]]  # (where a user finds it, what it sets), the one that decides first
_FIELDS = {"task": ("data", *SPLITS), "init_from": ("root",)}


def with_absolute_paths(trial: dict[str, Any]) -> dict[str, Any]:
    """A trial's configuration with paths that hold anywhere: they are relative to where the command runs."""
    for part, fields in _FIELDS.items():
        held = trial.get(part)
        paths = (
            {field: held[field] for field in fields if isinstance(held.get(field), str)}
            if isinstance(held, dict)
            else {}
        )
        here = {field: path for field, path in paths.items() if not path.startswith(S3)}
        if "data" in here and is_hub_name(here["data"]):
            del here["data"]
        if here:
            trial = merge(trial, {part: {field: str(Path(path).absolute()) for field, path in here.items()}})
    return trial


def task_file_problems(layers: Layers, task: Any) -> Iterator[str]:
    """What is wrong with the puzzle files that a task names."""
    for key in ("data", *SPLITS):
        if isinstance(task, dict) and isinstance(task.get(key), str):
            place, given = _where(layers, f"task.{key}")
            try:
                filled_in(given)
                for path in splits_in(task[key]).values() if key == "data" else [on_this_node(task[key])]:
                    data_digest(path)
            except PlaceError as error:
                yield f"{place}.task.{key}: {error}"
            except NoSuchFolderError:
                yield f"{place}.task.{key}: {given}: no such folder; make it: {command_that_makes(given, task)}"
            except DataError as error:
                yield f"{place}.task.{key}: {error}"


def init_from_problems(layers: Layers, init_from: Any) -> Iterator[str]:
    """What is wrong with the place of the checkpoint that a trial starts from; not yet with what it holds."""
    for key in ("root", "name"):
        place, given = _where(layers, f"init_from.{key}")
        try:
            filled_in(given if isinstance(given, str) else "-")
        except PlaceError as error:
            yield f"{place}.init_from.{key}: {error}"
            return
    try:
        file_digest(str(InitFrom.model_validate(init_from).path))
    except ValidationError:
        return  # not given, or named with the other fields
    except DataError as error:
        yield f"{place}.init_from.name: {error}"


def _where(layers: Layers, field: str) -> tuple[str, Any]:
    """The layer that decides a field, and what it says."""
    found = ((place, value) for place, layer in layers if (value := lookup(layer, field)) is not ABSENT)
    return next(found, ("base", None))

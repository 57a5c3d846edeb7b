"""The weights in a checkpoint file, whoever wrote it: the state dict is found, wrappers' prefixes are taken off."""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from rrm.checkpoint import CheckpointError, PythonObjectsError, loads, read, serialise
from rrm.puzzles.formats import DataError
from rrm.puzzles.remote import S3, local_file

_WRAPPERS = re.compile(r"^((_orig_mod|module|model|inner)\.)+")
_DERIVED = {"rotary_emb.cos_cached", "rotary_emb.sin_cached", "puzzle_emb.local_weights", "puzzle_emb.local_ids"}
_COUNTS = {"n_averaged"}  # of torch's AveragedModel
_DEPTH = 3
MODEL = "rrm_model"  # of a safetensors file's metadata: the model's configuration as JSON
BESIDE = ("all_config.yaml", "trial.json")  # what may stand beside a checkpoint and say what model it is of


class Weights(NamedTuple):
    """A state dict under our names, the names in it that come twice that way, and what the file says of itself."""

    state: dict[str, Any]
    twice: list[str]
    metadata: dict[str, str]


def checkpoint_here(place: str) -> Path:
    """The path of a checkpoint; of one in a bucket that of its copy here, with its configuration beside it.

    Raises DataError.
    """
    if not place.startswith(S3):
        return Path(place)
    try:
        return local_file(place, beside=BESIDE)
    except OSError as error:
        raise DataError(f"{place}: cannot be fetched ({str(error).partition(chr(10))[0]})") from error


def our_names(state: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A state dict under our names, and the names in it that come twice that way.

    The prefixes of wrappers (the published code's, torch.compile's, DataParallel's, Lightning's) are taken off; tables
    that the published code computes anew are left out. A state dict of ours stays as it is.
    """
    ours: dict[str, Any] = {}
    twice = []
    for theirs, value in state.items():
        name = _WRAPPERS.sub("", str(theirs))
        if name in ours:
            twice.append(str(theirs))
        elif name not in _DERIVED | _COUNTS:
            ours[name] = value
    return ours, twice


def read_weights(path: Path, key: str | None = None, names: Collection[str] = ()) -> Weights:
    """The weights in a file that torch.save or safetensors wrote.

    They may stand at its top or under some keys (`state_dict`, `model`, `ema`): the dotted `key` says which, else it is
    the one mapping that holds most of `names`, the model's. Raises CheckpointError, which names the keys if it is not
    clear which.
    """
    content = read(path)
    if _is_safetensors(path, content):
        held, metadata = _from_safetensors(path, content)
    else:
        try:
            held, metadata = loads(content, path), {}
        except PythonObjectsError:
            raise
        except CheckpointError as error:
            mend = "give a whole file that torch.save wrote (torch 1.6 or newer), or safetensors"
            raise CheckpointError(f"{error}; {mend}") from error
    if key is None and {"model", "ema", "optimizer", "trial_id"} <= held.keys():
        raise CheckpointError(f"{path}: a whole training state; give the weights beside it, best.pt or final.pt")
    return Weights(*our_names(_chosen(path, dict(_mappings(held)), key, set(names), held)), metadata)


def write_weights(state: dict[str, Tensor], suffix: str, model: dict[str, Any] | None) -> bytes:
    """The bytes of a weights file: `.safetensors`, which says what `model` they are of, or torch's own."""
    if suffix != ".safetensors":
        return serialise(state)
    # One entry: the library writes several in any order, and the same weights must be the same bytes.
    metadata = {MODEL: json.dumps(model)} if model else None
    # Two names may share memory, which the format does not have.
    return safetensors.torch.save({name: tensor.clone().contiguous() for name, tensor in state.items()}, metadata)


def _is_safetensors(path: Path, content: bytes) -> bool:
    return path.suffix == ".safetensors" or content[8:9] == b"{"


def _from_safetensors(path: Path, content: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        held = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:  # KeyError: a type that torch has not
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}); fetch or write it again") from error
    return held, header.get("__metadata__", {})


def _mappings(held: dict[Any, Any], place: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, dict[str, Any]]]:
    """The mappings in a file that hold tensors, by their dotted place; not an optimizer's."""
    if any(isinstance(value, Tensor) and value.ndim > 0 for value in held.values()):
        yield place, held
    for key, value in held.items():
        if isinstance(value, dict) and isinstance(key, str) and "optim" not in key and depth > 0:
            yield from _mappings(value, f"{place}.{key}" if place else key, depth - 1)


def _chosen(
    path: Path, found: dict[str, dict[str, Any]], key: str | None, names: set[str], held: dict[Any, Any]
) -> dict[str, Any]:
    """The one of the mappings that holds the weights. Raises CheckpointError."""
    places = ", ".join(place or "its top" for place in found)
    if not found:
        raise CheckpointError(f"{path}: holds no weights; its keys: {', '.join(map(str, held)) or 'none'}")
    if key is not None:
        if key not in found:
            raise CheckpointError(f"{path}: key {key!r} holds no weights; there are some under {places}")
        return found[key]
    fits = {place: len(names & our_names(state)[0].keys()) for place, state in found.items()}
    best = [place for place, count in fits.items() if count == max(fits.values())]
    if len(best) > 1:
        raise CheckpointError(
            f"{path}: weights under {', '.join(place or 'its top' for place in best)}; say which with key: {best[-1]}"
        )
    return found[best[0]]

"""State files, as bytes: whole or refused, loaded without running code."""

import io
import pickle
import pickletools
import shlex
import zipfile
from pathlib import Path
from typing import Any

import torch

from rrm.torch_setup import says_out_of_memory


class CheckpointError(ValueError):
    """A state file that cannot be used; the text names the file and why."""


class PythonObjectsError(CheckpointError):
    """A whole file, but with Python objects in it: reading those would run code that the file names."""


def serialise(state: dict[str, Any]) -> bytes:
    """The bytes of a state file; tensors, numbers, text, bytes, lists and dicts only."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def read(path: Path) -> bytes:
    """A file's content. Raises CheckpointError if it is not there or cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error


def load(path: Path) -> dict[str, Any]:
    """A state file's content, on the CPU. Raises CheckpointError if it is truncated, foreign or not there."""
    return loads(read(path), path)


def loads(content: bytes, name: object) -> dict[str, Any]:
    """The state that `serialise` made bytes of, on the CPU.

    Raises CheckpointError, which calls it `name`; what torch does if memory runs out, for that is no damage.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()  # torch itself does not compare the checksums
        if damaged is not None:
            raise zipfile.BadZipFile(f"checksum of {damaged}")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, RuntimeError, ValueError, OSError, EOFError, pickle.UnpicklingError) as error:
        if says_out_of_memory(error):
            raise
        if isinstance(error, pickle.UnpicklingError) and (objects := _python_objects(content)):
            held = f"holds Python objects ({', '.join(objects)}), and reading those runs code"
            raise PythonObjectsError(f"{name}: {held}; {_how_to_save_alone(content, name)}") from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{name}: not a whole state file ({reason})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{name}: holds a {type(state).__name__}, not a state")
    return state


def _python_objects(content: bytes) -> list[str]:
    """The classes and functions that a file names and that are no tensors or plain values. Nothing of it is run."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content)))
    except (RuntimeError, ValueError, pickle.UnpicklingError):
        return []


def _how_to_save_alone(content: bytes, name: object) -> str:
    """The command that saves the weights alone, with the key that the file is likely to hold them under."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        pickled = next(entry for entry in archive.namelist() if entry.endswith("data.pkl"))
        texts = {argument for _, argument, _ in pickletools.genops(archive.read(pickled)) if isinstance(argument, str)}
    key = next((f"[{key!r}]" for key in ("state_dict", "model_state_dict", "ema", "model") if key in texts), "")
    python = f"import torch; torch.save(torch.load({str(name)!r}, 'cpu', weights_only=False){key}, 'weights.pt')"
    return f"if you trust it, save the weights alone: python -c {shlex.quote(python)}"

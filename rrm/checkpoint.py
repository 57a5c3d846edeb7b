"""State files, as bytes: whole or refused, loaded without running code."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


class CheckpointError(ValueError):
    """A state file that cannot be used; the text names the file and why."""


def serialise(state: dict[str, Any]) -> bytes:
    """The bytes of a state file; tensors, numbers, text, bytes, lists and dicts only."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def load(path: Path) -> dict[str, Any]:
    """A state file's content, on the CPU. Raises CheckpointError if it is truncated, foreign or not there."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    return loads(content, path)


def loads(content: bytes, name: object) -> dict[str, Any]:
    """The state that `serialise` made bytes of, on the CPU. Raises CheckpointError, which calls it `name`."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()  # torch itself does not compare the checksums
        if damaged is not None:
            raise zipfile.BadZipFile(f"checksum of {damaged}")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, RuntimeError, ValueError, OSError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{name}: not a whole state file ({reason})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{name}: holds a {type(state).__name__}, not a state")
    return state

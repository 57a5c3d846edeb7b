"""The parts of a long look at a checkpoint, in files: what is done is not done again after a kill."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from results.storage import Location, read_bytes, write_atomically
from rrm.checkpoint import CheckpointError, loads, serialise
from rrm.config import TrialConfig
from rrm.puzzles.formats import file_digest

PARTS = "parts"
NUMBERS = 2  # what is found changes with it: raised where a diagnosis or an evaluation computes other numbers


class Parts:
    """A file each in a folder, named after all that its numbers depend on."""

    def __init__(self, folder: Location, checkpoint: Path, key: str | None, config: TrialConfig, threads: int):
        self.folder = folder / PARTS
        self.of = {
            "numbers": NUMBERS,
            "checkpoint": file_digest(str(checkpoint)),
            "key": key,
            "model": config.model.model_dump(mode="json"),
            "task": config.task.identity(),
            "forward_dtype": config.train.forward_dtype,
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{threads} threads",
        }

    def path(self, kind: str, rows: range, asked: dict[str, Any]) -> Location:
        """The file of a part: of some examples, and what else its numbers depend on, as JSON values."""
        text = json.dumps(self.of | asked, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.folder / f"{kind}-{key}-{rows.start}-{rows.stop}.pt"

    def read(self, kind: str, rows: range, asked: dict[str, Any]) -> dict[Any, Any] | None:
        """A part that is done; None if it is not, or its file is damaged."""
        path = self.path(kind, rows, asked)
        try:
            return loads(read_bytes(path), path)
        except (FileNotFoundError, CheckpointError):
            return None

    def write(self, kind: str, rows: range, asked: dict[str, Any], found: dict[Any, Any]) -> None:
        """Write a part that is done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path(kind, rows, asked), serialise(dict(found)))

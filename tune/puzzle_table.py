"""The test puzzles that a trial is scored on, as a table beside its sweep's trials: once for all that share them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from results.schema import PUZZLES, PUZZLES_SCHEMA
from results.storage import Location, write_atomically
from results.trial_files import table_bytes
from rrm.models.act import Batch
from rrm.puzzles import maze
from rrm.puzzles.formats import read_rows
from rrm.puzzles.tasks import BaseTask, MazeTask


def write_puzzles(sweep_folder: Location, task: BaseTask, test: Batch, digest: str) -> None:
    """Write the puzzles of a test batch, in its order, if another trial has not. Raises OSError."""
    path = sweep_folder / PUZZLES / f"{digest}.parquet"
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = puzzle_rows(task, test.inputs.cpu().numpy() - 1, test.labels.cpu().numpy() - 1)
    table = pa.Table.from_pylist([{"test_digest": digest} | row for row in rows], schema=PUZZLES_SCHEMA)
    write_atomically(path, table_bytes(table))


def puzzle_rows(task: BaseTask, questions: np.ndarray, answers: np.ndarray) -> list[dict[str, Any]]:
    """A row a puzzle, cells [n, S]: the texts as a CSV holds them, and how hard it is by what is known of it."""
    ratings, is_maze = _ratings(task), isinstance(task, MazeTask)
    rows = []
    for example, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        text = task.text(question)
        row = {"example": example, "question": text, "answer": task.text(answer), "rating": ratings.get(text)}
        cells = answer >= maze.START if is_maze else question > 0
        rows.append(row | {"path_length" if is_maze else "givens": int(cells.sum())})
    return rows


def difficulty(task: BaseTask, test: Batch) -> list[dict[str, Any]]:
    """How hard each puzzle of a test batch is by what is known of it: rating, and givens or path_length."""
    rows = puzzle_rows(task, test.inputs.cpu().numpy() - 1, test.labels.cpu().numpy() - 1)
    return [{name: row[name] for name in row.keys() - {"example", "question", "answer"}} for row in rows]


def _ratings(task: BaseTask) -> dict[str, float]:
    """question -> the rating that the test file gives it, where there is a CSV that does."""
    path = task.files.get("test", "")
    if not path.endswith(".csv") or not Path(path).is_file():
        return {}
    aliases = str.maketrans(task.aliases)
    found = {}
    for row in read_rows(path):
        try:
            found[row["question"].translate(aliases)] = float(row.get("rating", ""))
        except ValueError:  # no number: not rated
            continue
    return found

"""Small readings of the evals table that several modules need."""

from collections import namedtuple
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

BY_SWEEP = ("sweep", "trial_id")  # several sweeps may have the same trial, trained for as many steps as each asks for
_STATUSES = ("done", "stopped", "failed", "running", "unfinished", "unreadable", "waiting")


def rows_of(frame: pd.DataFrame) -> list[Any]:
    """The rows of a table as named tuples of plain values (itertuples is slow for text)."""
    row = namedtuple("row", frame.columns)
    return list(map(row._make, zip(*(_plain(frame[name]) for name in frame), strict=True)))


def _plain(column: Any) -> list[Any]:
    text = isinstance(column.dtype, pd.StringDtype)
    return (column.to_numpy(dtype=object) if text else column).tolist()


def with_when(evals: pd.DataFrame) -> pd.DataFrame:
    """The evals table, `when` filled in where older versions, whose noise came at the start, have none."""
    when = evals.reindex(columns=["when"])["when"].astype(object)
    return evals.assign(when=when.where(when.notna(), "start").astype(evals["split"].dtype))


def counted(statuses: pd.Series) -> str:
    """How many trials have each status, such as `3 done, 1 running`."""
    counts = statuses.value_counts()
    return ", ".join(f"{counts[status]} {status}" for status in _STATUSES if status in counts)


def by_trial(table: pd.DataFrame, by: tuple[str, ...] = ("trial_id",)) -> dict[Any, list[Any]]:
    """trial_id -> its rows as named tuples, in one pass: a small DataFrame a trial would cost milliseconds each.

    With several columns `by`, a tuple of their values -> its rows.
    """
    found: dict[Any, list[Any]] = {}
    of = itemgetter(*(list(table.columns).index(name) for name in by))
    for row in rows_of(table):
        found.setdefault(of(row), []).append(row)
    return found


def clean_rows(evals: list[Any], split: str) -> list[Any]:
    """A trial's clean evaluations of a split by step, read after as many ACT steps as training takes (the fewest)."""
    depth = min((row.depth for row in evals), default=0)
    found = [row for row in evals if row.sigma == 0 and row.split == split and row.depth == depth]
    return sorted(found, key=lambda row: row.step)


def best_step(evals: list[Any]) -> int | None:
    """The step of one trial with the highest clean accuracy on validation, the earliest of equals; None without any."""
    best = max(clean_rows(evals, "validation"), key=lambda row: row.exact_accuracy, default=None)
    return None if best is None else best.step


BITS = {"solved": "correct", "valid": "valid_correct", "shortest": "shortest_correct"}  # outcome -> column of evals


def outcomes_of(evals: pd.DataFrame) -> list[str]:
    """What the answers of an evals table are judged by: solved, and of mazes valid and shortest."""
    return [outcome for outcome, column in BITS.items() if column in evals and bool(evals[column].notna().any())]


def right(row: Any, outcome: str) -> np.ndarray | None:
    """Which answers of an evaluation have an outcome, bool [n, rollouts]; None for other tasks, and older versions."""
    bits = getattr(row, BITS[outcome], None)
    return unpack_correct(bits, row.n, row.rollouts) if isinstance(bits, bytes) else None


def unpack_correct(bits: bytes, n: int, rollouts: int) -> np.ndarray:
    """The evals table's `correct` as bool [n, rollouts]."""
    flat = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=n * rollouts)
    return flat.reshape(n, rollouts).astype(bool)

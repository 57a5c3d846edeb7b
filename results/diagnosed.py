"""The rows of diagnoses that belong together, and what counts as solved."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from results.metrics import OUTCOMES
from results.stats import NAN

DIAGNOSIS = ("sweep", "trial_id", "step")


def judged_by(table: pd.DataFrame) -> list[str]:
    """The outcomes that a table has: solved, and of mazes valid and shortest."""
    return [name for name in OUTCOMES if name in table and bool(table[name].notna().any())]


def judged(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """The rows that have this outcome, as the column `outcome`. Raises ValueError if there is none of that name."""
    if outcome not in OUTCOMES:
        raise ValueError(f"outcome: {outcome!r} is none; give one of {', '.join(OUTCOMES)}")
    have = table.loc[table[outcome].notna()]
    return have.assign(outcome=have[outcome].astype(bool))


def with_outcome(table: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Rows of another table of the diagnoses, each with the outcome of its example and with what only that has."""
    keys = [*(name for name in DIAGNOSIS if name in table and name in judged), "example"]
    more = [name for name in judged if name not in table]
    return table.merge(judged[[*keys, *more]], on=keys)


def known(table: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """Those of the columns that a table has."""
    return [name for name in by if name in table]


def groups(table: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """What belongs together, each with the values of `by` that the table has."""
    names = known(table, by)
    if not names:
        yield {}, table
        return
    grouped: Any = table.groupby(names, sort=False, dropna=False, observed=True)
    for values, mine in grouped:
        yield dict(zip(names, values, strict=True)), mine


def median(values: pd.Series) -> float:
    """Of those that are there; nan without any."""
    there = values.dropna()
    return float(np.median(there.to_numpy(float))) if len(there) else NAN


def mean(values: np.ndarray) -> float:
    """nan of nothing."""
    return float(values.mean()) if len(values) else NAN

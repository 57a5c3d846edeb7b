"""Which pairs of runs a sweep's comparison was made of before: a look costs nothing that is not written down."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from results.pairs import Pairing
from results.planning import seeds_needed
from results.rows import rows_of
from results.schema import LOOKS
from results.storage import Location, write_atomically
from results.trial_files import read_json

_MEND = "put back a copy of it: without it p would not be corrected for the looks before"
Ids = tuple[str, str]  # trial ids of a pair: baseline's, arm's


@dataclass(frozen=True)
class Look:
    """A complete comparison of an arm at a point: its finished pairs, the margin, the seeds planned and needed."""

    arm: str
    point: str
    pairs: frozenset[Ids]
    margin: float
    planned: int
    needed: int  # fewer could not be tested, whatever they were


def read_looks(sweep_folder: Location) -> list[Look]:
    """The looks that a sweep's folder records, in their order. Raises DamagedFileError, OSError."""
    found = read_json(sweep_folder / LOOKS, _MEND) or {"looks": []}
    return [
        Look(
            look["arm"],
            look["point"],
            frozenset((baseline, arm) for baseline, arm in look["pairs"]),
            look["margin"],
            look["planned"],
            look.get("needed", seeds_needed()),
        )
        for look in found["looks"]
    ]


def all_looks(looks: list[Look], comparison: pd.DataFrame, differences: pd.DataFrame) -> list[Look]:
    """The looks at a sweep, and each complete comparison of it that is none of them."""
    new = [look for look in complete_looks(comparison, differences) if not any(_same(look, old) for old in looks)]
    return [*looks, *new]


def record_looks(folder: Location, before: list[Look], looks: list[Look]) -> None:
    """Write down the looks in a sweep's folder, if there are more than the ones `before`, which stand there."""
    if len(looks) > len(before):
        content = [
            {
                "arm": look.arm,
                "point": look.point,
                "pairs": sorted(look.pairs),
                "margin": look.margin,
                "planned": look.planned,
                "needed": look.needed,
            }
            for look in looks
        ]
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_atomically(folder / LOOKS, json.dumps({"written": at, "looks": content}, indent=1).encode())


def complete_looks(comparison: pd.DataFrame, differences: pd.DataFrame) -> list[Look]:
    """The arms and points of one sweep that were tested, each once."""
    columns = ["arm", "point", "margin", "n_planned", "seeds_needed"]
    tested = comparison.loc[comparison.p_adjusted.notna(), columns].drop_duplicates(["arm", "point"])
    ids: Any = differences[["arm", "point", "baseline_trial_id", "trial_id"]]
    pairs: dict[tuple[str, str], set[Ids]] = {}
    for row in rows_of(ids):
        pairs.setdefault((row.arm, row.point), set()).add((row.baseline_trial_id, row.trial_id))
    found = []
    for row in rows_of(tested):
        own = frozenset(pairs[row.arm, row.point])
        found.append(Look(row.arm, row.point, own, row.margin, int(row.n_planned), int(row.seeds_needed)))
    return found


def _same(look: Look, other: Look) -> bool:
    return (look.arm, look.point, look.pairs) == (other.arm, other.point, other.pairs)


def earlier_looks(looks: Iterable[Look], pairing: Pairing) -> list[Look]:
    """The looks at some of these pairs, and at others than all of them, in their order, each once.

    Pairs are known by their trials: another name of the arm or of its point is no new comparison. One of too few seeds
    for a verdict is none: the comparison after it is the first that can claim anything.
    """
    now, found = set(_finished(pairing)), dict[frozenset[Ids], Look]()
    for look in looks:
        if look.planned >= look.needed and look.pairs & now and look.pairs != now:
            found.setdefault(look.pairs, look)
    return list(found.values())


def as_they_came(before: list[Look], pairing: Pairing) -> np.ndarray:
    """Places [pairs] of the finished pairs by the look that first had them, then by seed.

    Failed ones come first: the maximum over the seeds so far that makes a p must have seen them.
    """
    pairs = _finished(pairing)
    first = [next((at for at, look in enumerate(before) if ids in look.pairs), len(before)) for ids in pairs]
    return np.concatenate([len(pairs) + np.arange(len(pairing.failed)), np.argsort(first, kind="stable")]).astype(int)


def _finished(pairing: Pairing) -> list[Ids]:
    return [(pair.baseline.trial_id, pair.arm.trial_id) for pair in pairing.done]

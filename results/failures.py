"""Failed runs are outcomes: what a pair counts as, at its worst, of which one run or both failed."""

import json
from typing import Any

from results.metrics import BOUNDED, MODES
from results.pairs import Pair
from results.runs import Runs
from results.scores import Key


def failed_scores(runs: Runs, pair: Pair, key: Key, arm: str) -> tuple[float | None, float | None]:
    """Mean scores of baseline and arm of a failed pair: None for a run that failed.

    Compute that is equal to that of a run which failed is not known: the one that is done has its last accuracy.
    """
    if key[0] == "equal_compute":
        key = ("final", *key[1:])
    base = runs.of(pair.baseline, "").scores.get(key) if pair.baseline.status == "done" else None
    mine = runs.of(pair.arm, arm).scores.get(key) if pair.arm.status == "done" else None
    return (None if base is None else float(base.mean())), (None if mine is None else float(mine.mean()))


def most_of(metric: str, done: list[Pair]) -> float | None:
    """The largest mean score that a run can have; None where there is no such bound, or it is not known."""
    if metric == MODES:  # the vectors that were followed
        configs = [json.loads(str(run.config)) for pair in done for run in (pair.baseline, pair.arm)]
        followed: list[Any] = [(config.get("diagnose") or {}).get("k") for config in configs]
        return None if None in followed else float(max(followed))
    return 1.0 if metric in BOUNDED else None


def at_worst(base: float | None, arm: float | None, sign: float, metric: str, most: float) -> float:
    """The difference of scores, from 0 to `most`, of a failed pair.

    An arm that failed solves nothing, or has every mode. A baseline that failed is what speaks most against the sign
    that was found: the most if the arm is above it, nothing if the arm is below.
    """
    if arm is None:
        arm = most if metric == MODES else 0.0
    if base is None:
        base = arm if sign == 0 else most if sign > 0 else 0.0
    return arm - base

"""Which runs are compared with which: every planned pair of an arm and the baseline, and what became of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from results.rows import rows_of

Baseline = str | tuple[str, str]  # an arm of each sweep, or (sweep, arm): one baseline for all other arms


class ComparisonError(ValueError):
    """Tables that cannot be compared as asked; the text names what is missing, and the mend."""


@dataclass(frozen=True)
class Pair:
    """The two runs of one seed, rows of the trials table; None where a table has no such run."""

    seed: int
    baseline: Any
    arm: Any

    @property
    def statuses(self) -> set[str | None]:
        """How the two stand; None for one that is not there."""
        return {run and run.status for run in (self.baseline, self.arm)}


@dataclass(frozen=True)
class Pairing:
    """An arm at a grid point and its planned pairs by seed. `distinct` is the same for places that are the same runs.

    `unpaired` are seeds that only one of two sweeps has.
    """

    sweep: str
    arm: str
    baseline: str
    point: str
    pairs: list[Pair]
    unpaired: list[int]
    distinct: frozenset[tuple[str, str]]

    @property
    def done(self) -> list[Pair]:
        """Pairs of which both runs are done."""
        return [pair for pair in self.pairs if pair.statuses == {"done"}]

    @property
    def failed(self) -> list[Pair]:
        """Pairs that ended, one run or both of them failed."""
        return [pair for pair in self.pairs if "failed" in pair.statuses and pair.statuses <= {"done", "failed"}]

    @property
    def stopped(self) -> list[Pair]:
        """Pairs of which the sweep's scheduler stopped a run by its accuracy."""
        return [pair for pair in self.pairs if "stopped" in pair.statuses]

    @property
    def is_complete(self) -> bool:
        """Whether all planned pairs have come to their end."""
        return len(self.done) + len(self.failed) + len(self.stopped) == len(self.pairs)


def pairings(trials: pd.DataFrame, baseline: Baseline) -> Iterator[Pairing]:
    """Every arm and grid point of the trials, paired by seed with the baseline at the same point, in their order.

    A baseline of another sweep that has one point only stands for every point. Raises ComparisonError for a baseline
    that is not there, or a seed that stands twice in one place.
    """
    runs: dict[str, dict[tuple[str, str], dict[int, Any]]] = {}  # sweep -> (arm, point) -> seed -> trial
    for run in rows_of(trials):
        for point in run.points:
            place = runs.setdefault(run.sweep, {}).setdefault((run.arm, point), {})
            if run.seed in place:  # it would count as two
                raise ComparisonError(f"trials: seed {run.seed} of {run.arm} stands twice at the point {point!r}")
            place[run.seed] = run
    for sweep, places in runs.items():
        of, arm = baseline if isinstance(baseline, tuple) else (sweep, baseline)
        theirs = _baseline(runs, of, arm)
        everywhere = next(iter(theirs.values())) if of != sweep and len(theirs) == 1 else None
        for (name, point), mine in places.items():
            if of != sweep or name != arm:
                other = theirs.get(point, {}) if everywhere is None else everywhere
                yield _pairing(sweep, name, arm if of == sweep else f"{of}/{arm}", point, mine, other, of != sweep)


def _baseline(runs: dict[str, Any], sweep: str, arm: str) -> dict[str, dict[int, Any]]:
    """The baseline's runs: point -> seed -> trial."""
    if sweep not in runs:
        there = ", ".join(runs)
        raise ComparisonError(f"baseline: there is no sweep {sweep!r} among these trials; sweeps: {there}")
    found = {point: place for (name, point), place in runs[sweep].items() if name == arm}
    if not found:
        there = ", ".join(dict.fromkeys(name for name, _ in runs[sweep]))
        raise ComparisonError(f"baseline: {arm!r} is not an arm of {sweep} among these trials; arms: {there}")
    return found


def _pairing(
    sweep: str, arm: str, baseline: str, point: str, arms: dict[int, Any], baselines: dict[int, Any], across: bool
) -> Pairing:
    both, either = sorted(set(arms) & set(baselines)), sorted(set(arms) | set(baselines))
    # Within a sweep both sides were planned for the same seeds: one that is not there could not be read.
    pairs = [Pair(seed, baselines.get(seed), arms.get(seed)) for seed in (both if across else either)]
    distinct = frozenset((baselines[seed].trial_id, arms[seed].trial_id) for seed in both)
    unpaired = [seed for seed in either if seed not in both] if across else []
    return Pairing(sweep, arm, baseline, point, pairs, unpaired, distinct)

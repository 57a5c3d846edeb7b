"""Which runs are compared with which: every planned pair of an arm and the baseline, and what became of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
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
    def ids(self) -> tuple[str | None, str | None]:
        """The trials of baseline and arm."""
        baseline, arm = (run and run.trial_id for run in (self.baseline, self.arm))
        return baseline, arm

    @property
    def statuses(self) -> set[str | None]:
        """How the two stand; None for one that is not there."""
        return {run and run.status for run in (self.baseline, self.arm)}


@dataclass(frozen=True)
class Pairing:
    """An arm at a grid point and its planned pairs by seed; `unpaired` are seeds that only one of two sweeps has."""

    sweep: str
    arm: str
    baseline: str
    point: str
    pairs: list[Pair]
    unpaired: list[int]

    @cached_property
    def distinct(self) -> frozenset[tuple[str | None, str | None]]:
        """The same for places that are the same runs; empty where no seed has both."""
        ids = frozenset(pair.ids for pair in self.pairs)
        return ids if any(None not in pair for pair in ids) else frozenset()

    @cached_property
    def done(self) -> list[Pair]:
        """Pairs of which both runs are done."""
        return [pair for pair in self.pairs if pair.statuses == {"done"}]

    @cached_property
    def failed(self) -> list[Pair]:
        """Pairs that ended, one run or both of them failed."""
        return [pair for pair in self.pairs if "failed" in pair.statuses and pair.statuses <= {"done", "failed"}]

    @cached_property
    def stopped(self) -> list[Pair]:
        """Pairs of which the sweep's scheduler stopped a run by its accuracy."""
        return [pair for pair in self.pairs if "stopped" in pair.statuses]

    @cached_property
    def lost(self) -> list[Pair]:
        """Pairs that ended, as far as one can see: one side has no run, or one that cannot be read."""
        gone = {None, "unreadable"}
        return [pair for pair in self.pairs if pair.statuses & gone and pair.statuses <= gone | {"done", "failed"}]

    @cached_property
    def is_complete(self) -> bool:
        """Whether all planned pairs have come to their end."""
        return len(self.done) + len(self.failed) + len(self.stopped) + len(self.lost) == len(self.pairs)


def pairings(trials: pd.DataFrame, baseline: Baseline) -> Iterator[Pairing]:
    """Every arm and grid point of the trials, paired by seed with the baseline at the same point, in their order.

    Points that the baseline alone has are there for each arm, without a run of it. A baseline of another sweep that has
    one point only stands for every point. Raises ComparisonError for a baseline that is not there, or a seed that
    stands twice in one place.
    """
    if not isinstance(baseline, str) and [type(name) for name in baseline] != [str, str]:
        raise ComparisonError(f"baseline: {baseline!r} is no arm; give its name, or (sweep, arm)")
    runs: dict[str, dict[tuple[str, str], dict[int, Any]]] = {}  # sweep -> (arm, point) -> seed -> trial
    for run in rows_of(trials):
        for point in run.points:
            place = runs.setdefault(run.sweep, {}).setdefault((run.arm, point), {})
            if run.seed in place:  # it would count as two
                raise ComparisonError(f"trials: seed {run.seed} of {run.arm} stands twice at the point {point!r}")
            place[run.seed] = run
    for sweep, places in runs.items():
        of, arm = (sweep, baseline) if isinstance(baseline, str) else baseline
        theirs = _baseline(runs, of, arm)
        everywhere = next(iter(theirs.values())) if of != sweep and len(theirs) == 1 else None
        named = arm if of == sweep else f"{of}/{arm}"
        names = dict.fromkeys(name for name, _ in places if of != sweep or name != arm)
        alone = [(name, point) for name in names for point in (theirs if everywhere is None else ())]
        for name, point in dict.fromkeys([*places, *alone]):
            if name in names:
                other = theirs.get(point, {}) if everywhere is None else everywhere
                yield _pairing(sweep, name, named, point, places.get((name, point), {}), other, of != sweep)


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
    # Within a sweep both sides were planned for the same seeds.
    pairs = [Pair(seed, baselines.get(seed), arms.get(seed)) for seed in (both if across else either)]
    unpaired = [seed for seed in either if seed not in both] if across else []
    return Pairing(sweep, arm, baseline, point, pairs, unpaired)

"""Baseline against arms, paired by seed: tables in, tables out."""

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, NamedTuple

import pandas as pd

from results.compared import COMPARISON_SCHEMA, DIFFERENCES_SCHEMA, MARGIN, PRIMARY, SIGNALS
from results.family import judge
from results.looks import Look
from results.measure import Measured, Place, measured_place
from results.metrics import METRICS
from results.pairs import Baseline, ComparisonError, pairings
from results.runs import Runs
from results.types import typed

VERSION = 5  # of the rules: what comparison and differences say of the same trials


class Compared(NamedTuple):
    """A comparison, and the differences by seed that it is made of (results.compared: COMPARISON, DIFFERENCES)."""

    comparison: pd.DataFrame
    differences: pd.DataFrame


def compare(trials: pd.DataFrame, evals: pd.DataFrame, diagnostics: pd.DataFrame | None = None, **how: Any) -> Any:
    """A row an arm, grid point and metric, against the baseline at the same grid point (results.compared, COMPARISON).

    The arguments are those of `compare_by_seed`, whose first table this is.
    """
    return compare_by_seed(trials, evals, diagnostics, **how).comparison


def differences(trials: pd.DataFrame, evals: pd.DataFrame, diagnostics: pd.DataFrame | None = None, **how: Any) -> Any:
    """A row an arm, grid point, metric and seed: both scores and their difference (results.compared, DIFFERENCES).

    The arguments are those of `compare_by_seed`, whose second table this is.
    """
    return compare_by_seed(trials, evals, diagnostics, **how).differences


def compare_by_seed(
    trials: pd.DataFrame,
    evals: pd.DataFrame,
    diagnostics: pd.DataFrame | None = None,
    *,
    baseline: Baseline,
    primary: tuple[str, float] = PRIMARY,
    margin: float = MARGIN,
    looks: Sequence[Look] | None = (),
) -> Compared:
    """Compare each arm of each sweep with the baseline, pair by pair; (sweep, arm) is one baseline for all sweeps.

    Signals (results.compared, SIGNALS) are tested once all planned pairs have ended, all others are exploratory. Failed
    runs count at their worst. The interval is over seeds and puzzles; of one pair, over puzzles for these two runs. An
    arm of another training depth is read at its own. What cannot be compared has a row with the reason; an exploratory
    metric that some pairs lack is told of the others, and says so. `primary` is
    the metric, and its sigma (0 without noise), that a headline begins with; `margin` a share of clean accuracy, below
    which a difference counts as none; `looks` are the comparisons of these pairs that were made before; None if those
    cannot be known: then there is no p, and no verdict. What a sweep's own file and folder say of the last four,
    `results.asked` reads.

    Raises ComparisonError for a baseline that is not there, for trials without evaluations on a split, for a `primary`
    that is no signal, for a `margin` that is none.
    """
    primary, margin = _checked(primary, margin)
    runs = Runs(trials, evals, diagnostics)
    of_sweep: dict[str, list[Place]] = {}
    for pairing in pairings(trials, baseline):
        place = measured_place(runs, pairing, primary, margin)
        of_sweep.setdefault(pairing.sweep, []).append(place)
    for places in of_sweep.values():
        judge(places, looks)
    every = [place for places in of_sweep.values() for place in places]
    rows = [row for place in every for row in _in_order([*(one.row for one in place.measured), *place.reasons])]
    by_seed = [row for place in every for one in place.measured for row in _by_seed(one)]
    return Compared(typed(rows, COMPARISON_SCHEMA), typed(by_seed, DIFFERENCES_SCHEMA))


def _checked(primary: Any, margin: Any) -> tuple[tuple[str, float], float]:
    """The primary metric with its sigma, and the margin. Raises ComparisonError."""
    if isinstance(primary, str) or not isinstance(primary, Sequence) or len(primary) != 2:
        raise ComparisonError(f"primary: {primary!r} is no metric with its sigma; give such as {PRIMARY!r}")
    metric, sigma = primary
    if metric not in SIGNALS:
        raise ComparisonError(f"primary: {metric!r} is not tested; give one of {', '.join(SIGNALS)}")
    if not _is_number(sigma) or not 0 <= sigma < math.inf:
        raise ComparisonError(f"primary: {sigma!r} is no sigma; give 0 for the clean run, or one that is evaluated")
    if not _is_number(margin) or not 0 < margin < 1:
        raise ComparisonError(f"margin: {margin!r} is no share of accuracy; give one such as {MARGIN}")
    return (metric, float(sigma)), float(margin)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    order = list(METRICS)
    return sorted(rows, key=lambda row: (order.index(row["metric"]), row["sigma"], not row["trained_depth"]))


def _by_seed(one: Measured) -> Iterable[dict[str, Any]]:
    names = (
        *("sweep", "arm", "baseline", "point", "model", "task", "objective"),
        *("metric", "unit", "sigma", "depth", "role"),
    )
    common = {name: one.row[name] for name in names}
    for pair, base, arm in zip(one.pairs, one.baseline, one.arm, strict=True):
        ids = {"seed": pair.seed, "trial_id": pair.arm.trial_id, "baseline_trial_id": pair.baseline.trial_id}
        yield common | ids | {"baseline_score": base, "score": arm, "difference": arm - base}

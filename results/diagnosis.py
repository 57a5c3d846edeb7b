"""What the tables of a diagnosis say: functions from tables to tables, for a paper, the page and the terminal.

`by` says which rows belong together: by default those of one diagnosis, a trial at a step (`DIAGNOSIS`). `outcome` is
the column that says what counts as solved: `solved` (exactly), for mazes also `valid` and `shortest`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from results.bootstrap import RESAMPLES, auc_with_interval
from results.diagnosed import DIAGNOSIS, OUTCOMES, groups, judged, judged_by, known, mean, median, with_outcome
from results.fates import escape, fates, restarts, robustness

__all__ = [
    "DIAGNOSIS",
    "HARD",
    "OUTCOMES",
    "auc",
    "by_decile",
    "by_difficulty",
    "by_window",
    "escape",
    "fates",
    "judged_by",
    "restarts",
    "robustness",
    "smallest_failure",
    "thresholds",
    "two_by_two",
]

MEDIANS = (
    *("lambda_1", "lambda_k", "late_drift", "token_accuracy", "halt_step", "q_halt"),
    *("rating", "givens", "path_length"),
)
HARD = ("rating", "givens", "path_length")
DECILES, BINS = 10, 5
PERCENTILES = tuple(range(5, 100, 5))


def two_by_two(diagnostics: pd.DataFrame, *, outcome: str = "solved", by: Sequence[str] = DIAGNOSIS) -> pd.DataFrame:
    """Settled x solved: a row a cell, four for each diagnosis, empty ones too.

    Columns of `by`, settled, solved (by `outcome`), n, share (of the diagnosis), and medians over the cell of lambda_1,
    lambda_k (the last exponent), late_drift, token_accuracy, halt_step, q_halt and the puzzle's difficulty.
    """
    found = []
    for at, mine in groups(judged(diagnostics, outcome), by):
        mine = mine.assign(lambda_k=[exponents[-1] for exponents in mine.exponents])
        for settled in (True, False):
            for solved in (True, False):
                cell = mine.loc[(mine.settled == settled) & (mine.outcome == solved)]
                medians = {name: median(cell[name]) for name in MEDIANS}
                counts = {"n": len(cell), "share": len(cell) / len(mine)}
                found.append(at | {"settled": settled, "solved": solved} | counts | medians)
    return pd.DataFrame(found)


def thresholds(diagnostics: pd.DataFrame, *, outcome: str = "solved", by: Sequence[str] = DIAGNOSIS) -> pd.DataFrame:
    """The 2 x 2 for other thresholds of late drift: a row a diagnosis and percentile of its late drifts.

    Columns of `by`, percentile, threshold, settled (share of all), settled_solved and settled_failed (shares of the
    solved and of the failed that lie below it).
    """
    found = []
    for at, mine in groups(judged(diagnostics, outcome), by):
        drift, solved = mine.late_drift.to_numpy(float), mine.outcome.to_numpy(bool)
        for percentile in PERCENTILES:
            threshold = float(np.percentile(drift, percentile))
            below = drift < threshold
            row = {"percentile": percentile, "threshold": threshold, "settled": float(below.mean())}
            found.append(at | row | {"settled_solved": mean(below[solved]), "settled_failed": mean(below[~solved])})
    return pd.DataFrame(found)


def smallest_failure(
    diagnostics: pd.DataFrame, *, outcome: str = "solved", by: Sequence[str] = DIAGNOSIS
) -> pd.DataFrame:
    """Without any threshold: the failure that drifts least, among the solved; a row a diagnosis that has both.

    Columns of `by`, late_drift (its own), below (the share of the solved that drift less), and the median and the
    largest late drift of the solved.
    """
    found = []
    for at, mine in groups(judged(diagnostics, outcome), by):
        drift, solved = mine.late_drift.to_numpy(float), mine.outcome.to_numpy(bool)
        if solved.any() and not solved.all():
            least, of_solved = float(drift[~solved].min()), drift[solved]
            row = {"late_drift": least, "below": float((of_solved < least).mean())}
            found.append(at | row | {"solved_median": float(np.median(of_solved)), "solved_max": of_solved.max()})
    return pd.DataFrame(found, columns=[*known(diagnostics, by), "late_drift", "below", "solved_median", "solved_max"])


def auc(
    diagnostics: pd.DataFrame,
    windows: pd.DataFrame | None = None,
    *,
    outcome: str = "solved",
    by: Sequence[str] = DIAGNOSIS,
    measures: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """How well each measure tells the solved from the failed: a row a diagnosis, measure and window.

    Columns of `by`, measure (-lambda_1 to -lambda_k, -late_lambda_1 without the first eighth, -spectral_mean,
    -positive_sum, -late_drift, q_halt: a higher value is to mean solved), window ("all" of the run; with `windows` also
    -lambda_1 and -drift over each of its windows), n, n_solved, auc, and low and high, the 95 % bootstrap interval over
    puzzles. `measures` names those that are wanted. nan where all are solved or none is.
    """
    examples, found = judged(diagnostics, outcome), []
    for at, mine in groups(examples, by):
        for measure, scores in _scores(mine).items():
            if measures is None or measure in measures:
                found.append(at | _area(measure, "all", scores, mine, resamples))
    if windows is not None and len(windows):
        for at, mine in groups(with_outcome(windows, examples), (*by, "window")):
            window = at.pop("window")
            for name in ("lambda_1", "drift"):
                if measures is None or f"-{name}" in measures:
                    found.append(at | _area(f"-{name}", window, -mine[name].to_numpy(float), mine, resamples))
    return pd.DataFrame(found)


def by_window(
    windows: pd.DataFrame, diagnostics: pd.DataFrame, *, outcome: str = "solved", by: Sequence[str] = DIAGNOSIS
) -> pd.DataFrame:
    """The exponents as the run goes on: a row a diagnosis and window, in their order.

    Columns of `by`, window, first_step, last_step (ACT steps from 1), and the medians of lambda_1 over the solved and
    over the failed, lambda_1_solved and lambda_1_failed.
    """
    found = []
    for at, mine in groups(with_outcome(windows, judged(diagnostics, outcome)), (*by, "window")):
        steps = {"first_step": mine.first_step.min(), "last_step": mine.last_step.max()}
        medians = {f"lambda_1_{name}": median(mine.lambda_1[mine.outcome == good]) for name, good in _OUTCOME.items()}
        found.append(at | steps | medians)
    return pd.DataFrame(found)


def by_decile(
    diagnostics: pd.DataFrame,
    *,
    outcome: str = "solved",
    by: Sequence[str] = DIAGNOSIS,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Whether lambda_1 says more than drift does: its AUC among the unsettled whose drift is about the same.

    A row a diagnosis and decile of late drift of its unsettled puzzles: columns of `by`, decile (from 1), drift_from
    and drift_to, n, n_solved, auc of -lambda_1, low and high.
    """
    found = []
    for at, mine in groups(judged(diagnostics, outcome), by):
        unsettled = mine.loc[~mine.settled.astype(bool)].sort_values("late_drift", kind="stable")
        for decile, places in enumerate(np.array_split(np.arange(len(unsettled)), DECILES), 1):
            bin = unsettled.iloc[places]
            if len(bin):
                edges = {"decile": decile, "drift_from": bin.late_drift.min(), "drift_to": bin.late_drift.max()}
                found.append(at | edges | _of_lambda(bin, resamples))
    return pd.DataFrame(found, columns=[*known(diagnostics, by), "decile", "drift_from", "drift_to", *_OF_LAMBDA])


def by_difficulty(
    diagnostics: pd.DataFrame,
    *,
    outcome: str = "solved",
    by: Sequence[str] = DIAGNOSIS,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """The same within puzzles of about the same difficulty: a row a diagnosis and bin of about as many puzzles.

    Columns of `by`, measure (rating where the puzzles have one, else givens or path_length), difficulty (the mean of
    the bin), settled (share), lambda_1 (median), n, n_solved, auc of -lambda_1, low and high. Puzzles of one difficulty
    all make no bins.
    """
    found = []
    for at, mine in groups(judged(diagnostics, outcome), by):
        name = next((name for name in HARD if bool(mine[name].nunique() > 1)), None)
        if name is None:
            continue
        mine = mine.dropna(subset=[name])
        hard = mine[name].to_numpy(float)
        edges = np.unique(np.quantile(hard, np.linspace(0, 1, BINS + 1)))
        place = np.clip(np.searchsorted(edges, hard, side="right") - 1, 0, len(edges) - 2)
        for bin in np.unique(place):
            here = mine.loc[place == bin]
            row = {"measure": name, "difficulty": float(hard[place == bin].mean())}
            row |= {"settled": float(here.settled.mean()), "lambda_1": median(here.lambda_1)}
            found.append(at | row | _of_lambda(here, resamples))
    names = ["measure", "difficulty", "settled", "lambda_1", *_OF_LAMBDA]
    return pd.DataFrame(found, columns=[*known(diagnostics, by), *names])


_OUTCOME = {"solved": True, "failed": False}
_OF_LAMBDA = ("n", "n_solved", "auc", "low", "high")


def _scores(mine: pd.DataFrame) -> dict[str, np.ndarray]:
    """The measures of each example: a higher value is to mean solved."""
    k = min(map(len, mine.exponents))
    exponents = np.stack([np.asarray(row[:k], dtype=float) for row in mine.exponents])
    late = np.array([row[0] for row in mine.late_exponents], dtype=float)
    return {
        **{f"-lambda_{i + 1}": -exponents[:, i] for i in range(exponents.shape[1])},
        "-late_lambda_1": -late,
        "-spectral_mean": -exponents.mean(axis=1),
        "-positive_sum": -np.clip(exponents, 0, None).sum(axis=1),
        "-late_drift": -mine.late_drift.to_numpy(float),
        "q_halt": mine.q_halt.to_numpy(float),
    }


def _area(measure: str, window: str, scores: np.ndarray, mine: pd.DataFrame, resamples: int) -> dict[str, Any]:
    solved = mine.outcome.to_numpy(bool)
    found = auc_with_interval(scores, solved, resamples, mine.example.to_numpy())
    return {"measure": measure, "window": window, "n": len(solved), "n_solved": int(solved.sum())} | found._asdict()


def _of_lambda(mine: pd.DataFrame, resamples: int) -> dict[str, Any]:
    area = _area("", "", -mine.lambda_1.to_numpy(float), mine, resamples)
    return {name: area[name] for name in _OF_LAMBDA}

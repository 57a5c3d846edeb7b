"""The diagnoses of a sweep on its page: figures and tables of each trial's last, all of an arm's together.

That is all seeds, and all points of a grid: intervals are over puzzles, not over these.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from results import diagnosis, plots
from results.diagnosed import judged_by
from results.diagnosis_text import doublings
from results.diagnostics import summary
from results.gather import SweepTables
from results.metrics import RIGHT
from results.page_items import figure, table
from results.plots.style import Arms
from results.rows import rows_of

MEASURES = ("-lambda_1", "-late_lambda_1", "-spectral_mean", "-positive_sum", "-late_drift", "q_halt")
RESAMPLES = 500
BY_ARM = ("arm",)


def diagnosis_items(tables: SweepTables, arms: Arms) -> Iterator[dict[str, Any]]:
    """Figures, then tables; nothing without diagnoses."""
    if not len(tables.diagnostics):
        return
    last = {name: last_of_trials(getattr(tables, name), tables) for name in ("diagnostics", "windows", "depths")}
    last |= {name: last_of_trials(getattr(tables, name), tables) for name in ("restarts", "robustness")}
    outcomes = judged_by(last["diagnostics"])
    for outcome in outcomes:
        more, suffix = told_by(outcome, outcomes)
        more += " (all points of the grid)" if tables.trials.points.explode().nunique() > 1 else ""
        for name, chart in _figures(tables, last, arms, outcome, more):
            yield figure(f"{name}{suffix}", chart)
    if len(last["robustness"]):
        yield figure("varied", plots.varied_estimates(diagnosis.robustness(last["robustness"], by=BY_ARM), arms=arms))
    yield table("diagnoses", "Lyapunov diagnoses, the last of each trial", _each(tables, last), None, folded=True)
    for name, title, frame in _tables(last, outcomes):
        if len(frame):
            yield table(name, title, frame, None, folded=True)


def told_by(outcome: str, outcomes: list[str]) -> tuple[str, str]:
    """What the title and the id of a figure say of its outcome, where there are several."""
    return (f" (solved: {RIGHT[outcome]})", f"-{outcome}") if len(outcomes) > 1 else ("", "")


def last_of_trials(rows: pd.DataFrame, tables: SweepTables) -> pd.DataFrame:
    """The rows of each trial's last diagnosis, with its arm and seed; of parts that only an earlier had, none."""
    if not len(rows):
        return rows
    last = tables.diagnostics.groupby("trial_id").step.max()
    newest = rows.loc[rows.step == rows.trial_id.map(last)]
    return newest.merge(tables.trials[["trial_id", "arm", "seed"]], on="trial_id")


def _figures(
    tables: SweepTables, last: dict[str, pd.DataFrame], arms: Arms, outcome: str, more: str
) -> Iterator[tuple[str, Any]]:
    examples: Any = last["diagnostics"]
    how: Any = {"outcome": outcome, "by": BY_ARM}
    drawn: Any = {"arms": arms, "more": more}
    known = tables.diagnostics.loc[tables.diagnostics[outcome].notna()] if outcome in tables.diagnostics else None
    if known is not None:
        known = known.assign(solved=known[outcome])
        yield "settled", plots.settled_by_outcome(tables.trials, known, more=more)
        yield "lambda", plots.lambda_by_outcome(tables.trials, known, more=more)
    windows = last["windows"] if len(last["windows"]) else None
    areas = diagnosis.auc(examples, windows, measures=MEASURES, resamples=RESAMPLES, **how)
    if areas.auc.notna().any():
        yield "auc", plots.auc_by_measure(areas, **drawn)
    if windows is not None and areas.auc[areas.window != "all"].notna().any():
        yield "windows", plots.auc_by_window(areas, **drawn)
    below = diagnosis.thresholds(examples, **how)
    if below.settled_failed.notna().any():
        yield "thresholds", plots.settled_by_threshold(below, more=more)
    deciles = diagnosis.by_decile(examples, resamples=RESAMPLES, **how)
    if deciles.auc.notna().sum() > 1:
        yield "deciles", plots.auc_by_decile(deciles, **drawn)
    bins = diagnosis.by_difficulty(examples, resamples=RESAMPLES, **how)
    if bins.auc.notna().sum() > 1:
        yield "within", plots.auc_by_difficulty(bins, **drawn)
    if len(last["depths"]):
        curve = diagnosis.escape(last["depths"], examples, **how)
        shown = curve.loc[curve.depth.isin(doublings(int(examples.act_steps.min()), int(curve.depth.max())))]
        if shown.escaped.notna().any():
            yield (
                "far",
                plots.escape_by_depth(shown.dropna(subset=["escaped"]), arms=arms, title=f"Far past training{more}"),
            )
    fates = diagnosis.fates(examples, **how)
    if (fates.failed > 0).any():
        yield "fates", plots.fates_of_failed(fates, **drawn)
    if len(last["restarts"]):
        freed = diagnosis.restarts(last["restarts"], examples, **how)
        if len(freed):
            yield "restarts", plots.freed_by_restart(freed, **drawn)


def _each(tables: SweepTables, last: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row a trial and outcome."""
    diagnosed: Any = dict(iter(last["diagnostics"].groupby("trial_id")))
    rows = []
    for trial in rows_of(tables.trials):
        if trial.trial_id not in diagnosed:
            continue
        mine = diagnosed[trial.trial_id]
        for outcome in judged_by(mine):
            named = {"arm": trial.arm, "seed": trial.seed, "step": mine.step.iloc[0], "solved_is": RIGHT[outcome]}
            rows.append(named | summary(mine, outcome)._asdict())
    return pd.DataFrame(rows)


def _tables(last: dict[str, pd.DataFrame], outcomes: list[str]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    examples = last["diagnostics"]

    def of_outcomes(make: Any) -> pd.DataFrame:
        made = [make(outcome) for outcome in outcomes]
        if len(outcomes) == 1:
            return made[0]
        return pd.concat([one.assign(solved_is=RIGHT[name]) for name, one in zip(outcomes, made, strict=True)])

    yield (
        "auc",
        "AUC of each measure",
        of_outcomes(lambda outcome: diagnosis.auc(examples, outcome=outcome, by=BY_ARM, resamples=RESAMPLES)),
    )
    yield (
        "cells",
        "Settled and solved, medians of each cell",
        of_outcomes(lambda outcome: diagnosis.two_by_two(examples, outcome=outcome, by=BY_ARM)),
    )
    yield (
        "fates",
        "Far past training: what has become of the failed",
        of_outcomes(lambda outcome: diagnosis.fates(examples, outcome=outcome, by=BY_ARM)),
    )
    if len(last["restarts"]):
        yield (
            "freed",
            "Restarts of the failed",
            of_outcomes(lambda outcome: diagnosis.restarts(last["restarts"], examples, outcome=outcome, by=BY_ARM)),
        )
    if len(last["robustness"]):
        yield "robustness", "The estimator, varied", diagnosis.robustness(last["robustness"], by=BY_ARM)

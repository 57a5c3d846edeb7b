"""The runs that are compared, with the score of each example, read from the tables when they are asked for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from results.curves import snapshot
from results.pairs import ComparisonError, Pair
from results.rows import by_trial, rows_of, with_when
from results.scores import Key, equal_compute, last_diagnosis, scores
from results.stats import NAN

NOISE = ("train_sigma", "noise_rms_z_H", "noise_rms_z_L", "noise_fidelity")
_EVALUATED = (
    *("sweep", "trial_id", "step", "optimizer_steps", "act_steps", *NOISE, "split", "sigma", "depth", "rollouts", "n"),
    *("when", "exact_accuracy", "correct", "best_q_correct", "majority_correct"),
    *("most_settled_correct", "first_to_halt_correct"),
)
_RUN = ("sweep", "trial_id")
_DIAGNOSED = (*_RUN, "step", "example", "n_pos", "lambda_1", "solved", "settled")


@dataclass
class Scored:
    """What the comparison knows of a run: its evaluations, the score of each example, its line of a snapshot.

    `diagnosed` are the examples that the scores of DIAGNOSED are of.
    """

    evals: list[Any]
    scores: dict[Key, np.ndarray]
    line: Any
    diagnosed: tuple[int, ...]


class Runs:
    """The runs of the tables, read when they are asked for."""

    def __init__(self, trials: pd.DataFrame, evals: pd.DataFrame, diagnostics: pd.DataFrame | None):
        # By sweep and trial: another sweep may have the same trials, of other lengths.
        done = trials.loc[trials.status == "done"]
        of_done = evals.loc[evals.trial_id.isin(done.trial_id)]
        self.evals = by_trial(_read(of_done), _RUN)
        self.lines = {(row.sweep, row.trial_id): row for row in rows_of(snapshot(done, of_done))}
        self.diagnosed: dict[Any, list[Any]] = {}
        if diagnostics is not None and len(diagnostics):
            self.diagnosed = by_trial(diagnostics.loc[:, list(_DIAGNOSED)], _RUN)
        self._known: dict[tuple[str, str], Scored] = {}
        self._arm = ""

    def of(self, run: Any, keep: str) -> Scored:
        """A run's scores, kept until another arm than `keep` asks; a baseline's (keep "") to the end."""
        place = (run.sweep, run.trial_id)
        if keep and keep != self._arm:
            self._known = {key: known for key, known in self._known.items() if known.line.arm != self._arm}
            self._arm = keep
        if place not in self._known:
            evals = self.evals.get(place)
            if not evals:
                raise ComparisonError(f"evals: done trial {run.trial_id} of {run.sweep} has none; load its evaluations")
            diagnosed = self.diagnosed.get(place, [])
            examples = tuple(row.example for row in last_diagnosis(diagnosed)) if diagnosed else ()
            self._known[place] = Scored(evals, scores(evals, diagnosed), self.lines[place], examples)
        return self._known[place]


def _read(evals: pd.DataFrame) -> pd.DataFrame:
    """What the comparison reads: the clean evaluations, and all on test at each trial's last step."""
    last = evals.step == evals.groupby(list(_RUN)).step.transform("max")
    read = evals.loc[(evals.sigma == 0) | (last & (evals.split == "test"))].reindex(columns=list(_EVALUATED))
    return with_when(read)


def pair_scores(runs: Runs, pair: Pair, arm: str) -> tuple[dict[Key, np.ndarray], dict[Key, np.ndarray]]:
    """The scores of baseline and arm, those at equal compute included where both sides' FLOPs are known."""
    base, mine = runs.of(pair.baseline, ""), runs.of(pair.arm, arm)
    ratio = flops_of(pair.arm) / flops_of(pair.baseline)
    if not ratio > 0:
        return base.scores, mine.scores
    return (
        base.scores | equal_compute(base.evals, min(1, ratio)),
        mine.scores | equal_compute(mine.evals, min(1, 1 / ratio)),
    )


def flops_of(run: Any) -> float:
    """FLOPs that a run was trained for; nan if they are not known."""
    return NAN if pd.isna(run.flops_per_step) or run.flops_per_step == 0 else run.steps * run.flops_per_step

"""The runs that are compared, with the score of each example, read from the tables when they are asked for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from results.curves import COLLAPSE
from results.metrics import OF_RUN, OUTCOMES, RACE
from results.pairs import ComparisonError, Pair
from results.rows import by_trial, with_when
from results.scores import TRAINED, Key, equal_compute, last_diagnosis, scores
from results.stats import NAN

NOISE = ("train_sigma", "noise_rms_z_H", "noise_rms_z_L", "noise_fidelity")
EVALUATED = (
    *("sweep", "trial_id", "step", "optimizer_steps", "act_steps", "train_flops", *NOISE),
    *("split", "sigma", "depth", "rollouts", "n"),
    *("when", "exact_accuracy", "correct", "best_q_correct", "majority_correct"),
    *("most_settled_correct", "first_to_halt_correct", "valid_correct", "shortest_correct", *OF_RUN.values()),
)
_RUN = ("sweep", "trial_id")
_DIAGNOSED = (*_RUN, "step", "example", "n_pos", "lambda_1", "settled", "q_halt", *OUTCOMES)


@dataclass
class Scored:
    """What the comparison knows of a run: the evaluations it reads, and the score of each example.

    `diagnosed` are the examples that the scores of DIAGNOSED are of.
    """

    evals: list[Any]
    scores: dict[Key, np.ndarray]
    diagnosed: tuple[int, ...]

    @property
    def collapsed(self) -> bool:
        """Whether the last accuracy is more than COLLAPSE below the best."""
        final, best = (self.scores[metric, 0.0, TRAINED].mean() for metric in ("final", "best"))
        return bool(final < best - COLLAPSE)


class Runs:
    """The runs of the tables, read when they are asked for."""

    def __init__(self, trials: pd.DataFrame, evals: pd.DataFrame, diagnostics: pd.DataFrame | None):
        # By sweep and trial: another sweep may have the same trials, of other lengths.
        done = trials.trial_id[trials.status == "done"]
        self.evals = by_trial(rows_read(evals.loc[evals.trial_id.isin(done)]), _RUN)
        self.diagnosed: dict[Any, list[Any]] = {}
        if diagnostics is not None and len(diagnostics):
            self.diagnosed = by_trial(diagnostics.reindex(columns=list(_DIAGNOSED)), _RUN)
        self._baselines: dict[Any, Scored] = {}
        self._arm, self._of_arm = "", dict[Any, Scored]()

    def of(self, run: Any, keep: str) -> Scored:
        """A run's scores, kept until another arm than `keep` asks; a baseline's (keep "") to the end."""
        if keep and keep != self._arm:
            self._arm, self._of_arm = keep, {}
        place, known = (run.sweep, run.trial_id), self._of_arm if keep else self._baselines
        if place not in known:
            evals = self.evals.get(place)
            if not evals:
                raise ComparisonError(f"evals: done trial {run.trial_id} of {run.sweep} has none; load its evaluations")
            diagnosed = self.diagnosed.get(place, [])
            examples = tuple(row.example for row in last_diagnosis(diagnosed)) if diagnosed else ()
            known[place] = Scored(evals, scores(evals, diagnosed), examples)
        return known[place]


def rows_read(evals: pd.DataFrame) -> pd.DataFrame:
    """Of all runs' evaluations those that a comparison reads, a quarter of them: no score is another without the rest.

    They are the clean ones on test, those on validation that choose the best step, and on test all of the last step.
    """
    run = evals.groupby(list(_RUN), sort=False).ngroup().to_numpy()
    step, depth, test = evals.step.to_numpy(int), evals.depth, (evals.split == "test").to_numpy(bool)
    trained = (depth == depth.groupby(run).transform("min")).to_numpy(bool)
    last = (evals.step == evals.step.groupby(run).transform("max")).to_numpy(bool)
    clean = (evals.sigma == 0).to_numpy(bool) & trained
    validation = np.flatnonzero(clean & ~test)
    accuracy = evals.exact_accuracy.to_numpy(float)[validation]
    best_first = validation[np.lexsort((step[validation], -accuracy, run[validation]))]
    _, firsts = np.unique(run[best_first], return_index=True)
    kept = test & (clean | last)
    kept[best_first[firsts]] = True
    return with_when(evals.loc[kept].reindex(columns=list(EVALUATED)))


def pair_scores(runs: Runs, pair: Pair, arm: str) -> tuple[dict[Key, np.ndarray], dict[Key, np.ndarray]]:
    """The scores of baseline and arm, those at equal compute included where both sides' FLOPs are known."""
    base, mine = runs.of(pair.baseline, ""), runs.of(pair.arm, arm)
    of_base, of_mine = _alone(mine.scores) | base.scores, _alone(base.scores) | mine.scores
    ratio = flops_of(pair.arm) / flops_of(pair.baseline)
    if not ratio > 0:
        return of_base, of_mine
    return (
        of_base | equal_compute(base.evals, min(1, ratio)),
        of_mine | equal_compute(mine.evals, min(1, 1 / ratio)),
    )


def _alone(races: dict[Key, np.ndarray]) -> dict[Key, np.ndarray]:
    """What a run without a race has where the other side has one: a trajectory alone wins always."""
    return {key: np.zeros_like(score) for key, score in races.items() if key[0] in RACE}


def flops_of(run: Any) -> float:
    """FLOPs that a run was trained for; nan if they are not known."""
    return NAN if pd.isna(run.flops_per_step) or run.flops_per_step == 0 else run.steps * run.flops_per_step

"""The score of each test example under each metric of the comparison, from a trial's evaluations and diagnoses."""

from typing import Any

import numpy as np
import pandas as pd

from results.metrics import AURC, LAST_K, METRICS, MODES, OF_RUN, OUTCOMES, PASSES
from results.pairs import ComparisonError
from results.rows import best_step, clean_rows, right, unpack_correct
from results.stats import aurc, pass_at_k

Key = tuple[str, float, int]  # metric, sigma, depth: TRAINED, or the steps of a deeper reading
TRAINED = 0  # read after as many ACT steps as the trial was trained with, however many those are
EQUAL_ENOUGH = 0.75  # of the compute allowed, that the evaluation closest to it must have had


def scores(evals: list[Any], diagnostics: list[Any]) -> dict[Key, np.ndarray]:
    """Every metric of one trial but equal_compute: (metric, sigma, depth) -> float [n], a score a test example.

    Raises ComparisonError if a split has no clean evaluation.
    """
    last_step, trained = max(row.step for row in evals), trained_depth(evals)
    clean, chosen = clean_rows(evals, "test"), best_step(evals)
    best = next((row for row in clean if row.step == chosen), None)
    if best is None:
        empty = "validation" if chosen is None else "test"
        raise ComparisonError(
            f"evals: trial {evals[0].trial_id} has no clean evaluation on {empty}"
            f"{'' if chosen is None else f' at step {chosen}'}; the best step is chosen on validation and scored on "
            "test: load both splits"
        )
    found: dict[Key, np.ndarray] = {("best", 0.0, TRAINED): _solved(best)}
    after_training = [row for row in clean if row.step > 0]
    if len(after_training) >= LAST_K:
        found["last_k", 0.0, TRAINED] = np.mean([_solved(row) for row in after_training[-LAST_K:]], axis=0)
    for row in evals:
        if row.split != "test" or row.step != last_step:
            continue
        solved = unpack_correct(row.correct, row.n, row.rollouts)
        depth = TRAINED if row.depth == trained else row.depth
        if row.sigma == 0:
            found["final", 0.0, depth] = solved[:, 0]
            for outcome in ("valid", "shortest"):
                if (bits := right(row, outcome)) is not None:
                    found[f"final_{outcome}", 0.0, depth] = bits[:, 0]
            for metric, column in OF_RUN.items():
                if (value := getattr(row, column)) == value and value is not None:
                    found[metric, 0.0, depth] = np.array([value])
            continue
        if row.when != "start":
            in_time = f"perturbed_{row.when}"
            found |= {(in_time, row.sigma, depth): solved.mean(axis=1)} if in_time in METRICS else {}
            continue
        of_rollouts = {
            "perturbed": solved.mean(axis=1),
            "perturbed_all": solved.all(axis=1),
            "perturbed_any": solved.any(axis=1),
            "perturbed_best_q": unpack_correct(row.best_q_correct, row.n, 1)[:, 0],
            "perturbed_majority": unpack_correct(row.majority_correct, row.n, 1)[:, 0],
        }
        for rule in ("most_settled", "first_to_halt"):
            bits = getattr(row, f"{rule}_correct")
            if isinstance(bits, bytes):  # evaluations of older versions have none
                of_rollouts[f"perturbed_{rule}"] = unpack_correct(bits, row.n, 1)[:, 0]
        of_rollouts |= {f"perturbed_pass_{k}": pass_at_k(solved, k) for k in PASSES if k < row.rollouts}
        found |= {(metric, row.sigma, depth): score for metric, score in of_rollouts.items()}
    if diagnostics:
        diagnosed = last_diagnosis(diagnostics)
        found[MODES, 0.0, TRAINED] = np.array([row.n_pos for row in diagnosed])
        found |= {(name, 0.0, TRAINED): score for name, score in _by_outcome(diagnosed).items()}
    return {key: np.asarray(score, dtype=float) for key, score in found.items()}


def _by_outcome(diagnosed: list[Any]) -> dict[str, np.ndarray]:
    """lambda_1; by outcome, those that have it and that have not apart (else nan), and the cells of settled x outcome.

    And the area under the risk-coverage curve (Geifman and El-Yaniv, NeurIPS 2017), [1].
    """
    lambda_1 = np.array([row.lambda_1 for row in diagnosed], dtype=float)
    settled = np.array([row.settled for row in diagnosed], dtype=bool)
    found = {"lambda_1": lambda_1}
    for outcome, (good, bad) in OUTCOMES.items():
        values = [getattr(row, outcome) for row in diagnosed]
        if pd.isna(values).any():  # no maze
            continue
        holds = np.array(values, dtype=bool)
        found |= {f"lambda_1_{good}": np.where(holds, lambda_1, np.nan), f"settled_{good}": settled & holds}
        found |= {f"lambda_1_{bad}": np.where(holds, np.nan, lambda_1), f"settled_{bad}": settled & ~holds}
        found |= {f"wandering_{good}": ~settled & holds, f"wandering_{bad}": ~settled & ~holds}
    q_halt = np.array([row.q_halt for row in diagnosed], dtype=float)
    failed = ~np.array([row.solved for row in diagnosed], dtype=bool)
    if not np.isnan(q_halt).any():
        found[AURC] = np.array([aurc(q_halt, failed)])
    return found


def last_diagnosis(diagnostics: list[Any]) -> list[Any]:
    """The rows of one trial's last diagnosis, by example."""
    last = max(row.step for row in diagnostics)
    return sorted((row for row in diagnostics if row.step == last), key=lambda row: row.example)


def trained_depth(evals: list[Any]) -> int:
    """ACT steps that one trial was trained with: the fewest that its answers are read after."""
    return min(row.depth for row in evals)


def equal_compute(evals: list[Any], share: float) -> dict[Key, np.ndarray]:
    """Clean correctness [n] on test at the last evaluation of one trial within `share` of its training's FLOPs.

    Nothing if that evaluation came long before: it would charge the trial for compute that it had not had.
    """
    clean = clean_rows(evals, "test")
    counted = pd.notna([row.train_flops for row in clean]).all()  # evaluations of older versions say ACT steps alone
    spent = {row.step: row.train_flops if counted else row.act_steps for row in clean}
    budget = spent[clean[-1].step] * share * (1 + 1e-9)
    row = max((row for row in clean if spent[row.step] <= budget), key=lambda row: row.step, default=None)
    if row is None or spent[row.step] < EQUAL_ENOUGH * budget:
        return {}
    return {("equal_compute", 0.0, TRAINED): _solved(row).astype(float)}


def _solved(row: Any) -> np.ndarray:
    return unpack_correct(row.correct, row.n, row.rollouts)[:, 0]

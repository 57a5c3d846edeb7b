"""A sweep's folder as if it had been trained: curves that rise, seeds that differ, in every state."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from results.diagnosis_schema import DIAGNOSTICS_SCHEMA
from results.schema import EVALS_SCHEMA, UNROLLS_SCHEMA
from rrm.config import TrialConfig
from rrm.presets import PRESETS

N, ROLLOUTS, DEPTH = 64, 4, 4
ANSWER = "1243341221344321"
QUESTION = "1..33.1..1.4432."


def write_sweep(
    folder: Path,
    arms: dict[str, float],
    *,
    points: tuple[str, ...] = ("",),
    seeds: int = 10,
    evaluations: int = 12,
    sigmas: tuple[float, ...] = (0.1, 1.0),
    depths: tuple[int, ...] = (),
    diagnosed: int = 32,
    states: Any = lambda number: "done",
    steps: int = 1200,
) -> None:
    """Trials of every arm (its gain in logits), grid point and seed; `states` says how trial number i stands."""
    rng, cells = np.random.default_rng(0), []
    config = TrialConfig.model_validate(PRESETS["sudoku-4x4-trm-mlp"] | {"seed": 0}).model_dump(mode="json")
    config["train"] |= {"steps": steps}
    for arm_number, (arm, gain) in enumerate(arms.items()):
        for at, point in enumerate(points):
            for seed in range(seeds):
                number = len(cells)
                trial_id = f"{number:012x}"
                own = config | {"seed": seed}
                if arm_number:
                    sigma = float(point.rpartition("=")[2] or 0.1) if point else 0.1
                    own |= {"objective": "multi_perturbed_ce", "perturb": {"sigma": sigma, "rollouts": 4}}
                cells.append({"arm": arm, "point": point, "seed": seed, "trial_id": trial_id, "config": own})
                if arm_number == 0 and at:
                    cells[-1] |= {"trial_id": cells[seed]["trial_id"], "config": cells[seed]["config"]}
                    continue
                ability = gain * (1 + at / max(1, len(points) - 1)) / 2 + rng.normal(0, 0.15)
                _write_trial(
                    folder / "trials" / trial_id, own, rng, ability, states(number), evaluations, sigmas, depths,
                    diagnosed, steps, 1 if arm_number == 0 else 4,
                )  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps({"baseline": next(iter(arms)), "cells": cells}))


def _write_trial(
    folder: Path, config: dict[str, Any], rng: Any, ability: float, state: str, evaluations: int,
    sigmas: tuple[float, ...], depths: tuple[int, ...], diagnosed: int, steps: int, cost: int,
) -> None:  # fmt: skip
    trial_id = folder.name
    folder.mkdir(parents=True)
    if state == "waiting":
        return
    reached = evaluations if state == "done" else max(1, evaluations // 2)
    easiness = np.random.default_rng(1).normal(0.5, 1.5, N)
    evals, last = [], np.zeros(N, dtype=bool)
    for at in range(reached + 1):
        step = steps * at // evaluations
        for split in ("validation", "test"):
            for sigma in (0.0, *sigmas):
                for depth in (DEPTH, *depths):
                    rollouts = ROLLOUTS if sigma else 1
                    logit = (
                        easiness + ability - 4 * np.exp(-4 * at / evaluations) - sigma + 0.2 * np.log2(depth / DEPTH)
                    )
                    solved = rng.random((N, rollouts)) < 1 / (1 + np.exp(-logit[:, None]))
                    row = {"trial_id": trial_id, "step": step, "optimizer_steps": step, "act_steps": step * 64 * cost}
                    row |= {"split": split, "sigma": sigma, "depth": depth, "rollouts": rollouts, "n": N}
                    row |= {"exact_accuracy": float(solved.mean()), "token_accuracy": 0.5 + float(solved.mean()) / 2}
                    bits = np.packbits(solved[:, 0]).tobytes()
                    row |= {"correct": np.packbits(solved).tobytes(), "best_q_correct": bits, "majority_correct": bits}
                    row |= {"train_loss": 2 * float(np.exp(-at / 4)), "lm_loss": 1.0}
                    evals.append(row)
                    if split == "test" and sigma == 0 and depth == DEPTH:
                        last = solved[:, 0]
    pq.write_table(pa.Table.from_pylist(evals, schema=EVALS_SCHEMA), folder / "evals.parquet")
    if diagnosed:
        lambdas = np.where(last, rng.normal(-0.05, 0.03, N), rng.normal(0.04, 0.04, N))[:diagnosed]
        rows = [
            {"trial_id": trial_id, "step": steps, "example": i, "solved": bool(last[i]), "lambda_1": float(value)}
            | {"q_halt": 1.0, "exponents": [float(value)], "late_exponents": [float(value)], "spectral_mean": 0.0}
            | {"n_pos": int(value > 0), "n_pos0": int(value > 0), "late_drift": float(np.exp(20 * value))}
            | {"relative_late_drift": 0.1, "settled": bool(value < 0), "sub_updates": 8, "act_steps": DEPTH}
            | {"drift_threshold": 1.0, "token_accuracy": 0.9, "givens": 6 + i % 5}
            for i, value in enumerate(lambdas)
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=DIAGNOSTICS_SCHEMA), folder / "diagnostics.parquet")
    unrolls = []
    for example in range(2):
        for sigma in (0.0, sigmas[-1]):
            predicted = [
                "".join(c if rng.random() < t / 4 else "1234"[rng.integers(4)] for c in ANSWER) for t in range(1, 5)
            ]
            row = {"trial_id": trial_id, "step": steps, "example": example, "sigma": sigma, "question": QUESTION}
            row |= {"answer": ANSWER, "predicted": predicted, "q_halt": [-3.0, -1.0, 0.5, 2.0]}
            unrolls.append(row)
    pq.write_table(pa.Table.from_pylist(unrolls, schema=UNROLLS_SCHEMA), folder / "unrolls.parquet")
    attempt = {"commit": "0123456", "device": "CPU", "threads": 1, "host": "node-1", "pid": 1}
    record = {
        "config": config,
        "test_digest": "d",
        "flops_per_act_step": 10**7,
        "parameters": 27_000_000,
        "attempts": [attempt],
    }
    (folder / "trial.json").write_text(json.dumps(record))
    if state == "done":
        (folder / "done.json").write_text(json.dumps({"step": steps, "seconds": {"train": 540.0, "evaluate": 60.0}}))
    elif state == "failed":
        reason = {"kind": "diverged", "reason": f"the training loss is NaN at step {steps // 2}", "step": steps // 2}
        (folder / "failed.json").write_text(json.dumps(reason))
    else:
        (folder / "latest_state.pt").write_bytes(b"x")

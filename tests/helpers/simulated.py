"""Tables of sweeps whose accuracies are known: how many puzzles a run solves is given, which ones is partly chance."""

from typing import Any

import numpy as np
import pandas as pd

STEPS = (0, 10, 20, 30, 40)  # equal compute at two and four times the FLOPs is step 20 and 10; the best step is 30
TRIAL = {
    "model": "trm",
    "task": "sudoku",
    "objective": "multi_perturbed_ce",
    "rollout": "parallel_fixed",
    "rollouts": 1,
    "parameters": 1000,
    "commit": "c",
    "data_digest": "d",
    "test_digest": "d",
    "config": "{}",
    "status": "done",
    "reason": None,
    "steps": STEPS[-1],
    "flops_per_step": 1.0,
    "device_hours": 0.5,
    "train_seconds": 30.0,
    "evaluate_seconds": 30.0,
}
NOTHING = dict.fromkeys(
    ("train_sigma", "noise_rms_z_H", "noise_rms_z_L", "noise_fidelity", "valid_accuracy", "shortest_accuracy"), np.nan
)


def sweep_of(
    arms: dict[str, dict[str, Any]],
    seeds: int = 8,
    points: tuple[str, ...] = ("",),
    n: int = 400,
    sd: float = 0.01,
    sweep: str = "s",
    **changes: dict[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """trials, evals and diagnostics of a sweep, an arm a mapping of what is expected of it.

    best, final, equal: clean accuracies; perturbed: sigma -> accuracy (two rollouts); modes: their mean number; depth,
    flops: a step's cost; ignores_grid: one trial a seed for all points. Every accuracy may be a list by seed, taken as
    it is (else seeds differ by `sd`), or a tuple by point. changes: trial id (arm + point + seed) -> columns.
    """
    trials: list[dict[str, Any]] = []
    evals: list[dict[str, Any]] = []
    diagnoses: list[dict[str, Any]] = []
    for place, (arm, expected) in enumerate(arms.items()):
        ignores = expected.get("ignores_grid", arm == "baseline")
        for at, mine in enumerate([points] if ignores else [(point,) for point in points]):
            for seed in range(seeds):
                rng = np.random.default_rng([place, at, seed])
                trial_id = f"{arm}{'' if ignores else mine[0]}{seed}"
                trial = {"sweep": sweep, "arm": arm, "points": list(mine), "seed": seed, "trial_id": trial_id} | TRIAL
                trials.append(trial | {"flops_per_step": float(expected.get("flops", 1))} | changes.get(trial_id, {}))

                def solved(value: Any, rng=rng, seed=seed, at=at) -> np.ndarray:
                    value = value[at] if isinstance(value, tuple) else value
                    share = value[seed] if isinstance(value, list) else value + rng.normal(0, sd)
                    hardness = np.arange(n) / n + rng.normal(0, 0.05, n)
                    return hardness.argsort().argsort() < round(np.clip(share, 0, 1) * n)

                final = expected.get("final", 0.5)
                best, equal = expected.get("best", final), expected.get("equal", final)
                row = {"sweep": sweep, "trial_id": trial_id, "depth": expected.get("depth", 4), "n": n}
                for step, value in zip(STEPS, (0.0, equal, equal, best, final), strict=True):
                    for split in ("validation", "test"):
                        clean = solved(0.999 if split == "validation" and step == 30 else value)
                        evals.append(row | _evaluation(clean[:, None], step, split, 0.0))
                for sigma, value in expected.get("perturbed", {}).items():
                    noisy = np.stack([solved(value), solved(value)], axis=1)
                    evals.append(row | _evaluation(noisy, STEPS[-1], "test", sigma))
                if "modes" in expected:
                    mean = expected["modes"][seed] if isinstance(expected["modes"], list) else expected["modes"]
                    diagnoses += [
                        {"sweep": sweep, "trial_id": trial_id, "step": 40, "example": i, "n_pos": n_pos}
                        | {"lambda_1": 0.01 * n_pos, "late_drift": 1.0, "solved": i % 2 == 0, "settled": True}
                        for i, n_pos in enumerate(rng.poisson(mean, 64))
                    ]
    return pd.DataFrame(trials), pd.DataFrame(evals).assign(**NOTHING), pd.DataFrame(diagnoses)


def _evaluation(solved: np.ndarray, step: int, split: str, sigma: float) -> dict[str, Any]:
    row = {"step": step, "optimizer_steps": step, "act_steps": step, "split": split, "sigma": sigma}
    row |= {"rollouts": solved.shape[1], "exact_accuracy": solved.mean(), "token_accuracy": 0.9}
    chosen = np.packbits(solved[:, 0]).tobytes()
    return row | {"correct": np.packbits(solved).tobytes(), "best_q_correct": chosen, "majority_correct": chosen}

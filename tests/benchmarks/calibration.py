"""How often what is printed is right: `python tests/benchmarks/calibration.py [SWEEPS]`.

Sweeps are simulated as tables and go through `results.compare` and `results.verdicts`. Puzzles are drawn anew for each
sweep, from a population; a run is a little better or worse than its arm; an arm may be good at other puzzles than the
baseline without being better (the interaction). Without an effect, a headline that says helps, harms or mixed is wrong;
`holds` is the share of printed 95 % intervals that hold the true difference. Of an effect, the power is how often the
primary metric is said to be up, and `detectable` is what a sweep of as many seeds promises to find in 80 %.
"""

import sys
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from results.comparison import compare_by_seed
from results.looks import complete_looks
from results.signals import verdicts as verdicts_of

N = 128
RUN_SD = 0.15  # logits, between runs
EASINESS = 0.5, 1.5  # logits, mean and sd of the population of puzzles
SIGMAS = (0.1, 0.3, 1.0)
ROLLOUTS = 2
STEPS = (10, 20)
WRONG = ("helps", "harms", "mixed")


class Scene(NamedTuple):
    """What a simulated sweep is like: seeds, grid points, diagnoses or not, logits of interaction and of effect."""

    seeds: int
    points: int = 1
    diagnosed: bool = True
    interaction: float = 0.0
    effect: float = 0.0
    looks: tuple[int, ...] = ()  # seeds at earlier complete looks


class Rates(NamedTuple):
    """Shares of sweeps: a headline that claims something, any row that does; of intervals that hold the truth."""

    headline: float
    row: float
    holds: float
    up: float


def sweep(rng: np.random.Generator, scene: Scene) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tables of one sweep: a baseline that ignores the grid, and an arm at each point."""
    easiness = rng.normal(*EASINESS, N)
    trials, evals, diagnoses = [], [], []
    names = [f"sigma={point}" for point in range(scene.points)] if scene.points > 1 else [""]
    pair = rng.normal(0, RUN_SD, scene.seeds)
    for arm, points in (("baseline", names), *(("arm", [name]) for name in names)):
        is_arm = arm == "arm"
        likes = easiness + is_arm * (
            scene.effect + rng.normal(0, scene.interaction, N) if scene.interaction else scene.effect
        )
        for seed in range(scene.seeds):
            ability, trial_id = likes + pair[seed] + rng.normal(0, RUN_SD), f"{arm}{points[0]}-{seed}"
            trials.append({"sweep": "s", "arm": arm, "points": points, "seed": seed, "trial_id": trial_id})
            for step in STEPS:
                for split in ("validation", "test"):
                    solved = rng.random((N, 1)) < _share(ability[:, None] - 0.3 * (step < STEPS[-1]))
                    evals.append(_evaluation(trial_id, step, split, 0.0, solved))
            for sigma in SIGMAS:
                solved = rng.random((N, ROLLOUTS)) < _share(ability[:, None] - sigma)
                evals.append(_evaluation(trial_id, STEPS[-1], "test", sigma, solved))
            if scene.diagnosed:
                modes = rng.poisson(np.exp(1 + rng.normal(0, 0.2) - 0.2 * easiness[:32]))
                diagnoses += [
                    {
                        "sweep": "s",
                        "trial_id": trial_id,
                        "step": STEPS[-1],
                        "example": i,
                        "n_pos": n,
                        "lambda_1": 0.01 * n,
                    }
                    for i, n in enumerate(modes)
                ]
    return pd.DataFrame(trials).assign(**_FACTS), pd.DataFrame(evals).assign(**_NOTHING), pd.DataFrame(diagnoses)


_FACTS = {"model": "trm", "task": "sudoku", "objective": "x", "rollout": "parallel_fixed", "rollouts": 1}
_FACTS |= {"parameters": 1, "commit": "c", "data_digest": "d", "test_digest": "d", "config": "{}", "status": "done"}
_FACTS |= {"reason": None, "steps": 20, "flops_per_step": 1.0, "device_hours": 1.0, "train_seconds": 1.0}
_FACTS |= {"evaluate_seconds": 1.0}
_NOTHING = dict.fromkeys(
    ("train_sigma", "noise_rms_z_H", "noise_rms_z_L", "noise_fidelity", "valid_accuracy", "shortest_accuracy"), np.nan
)


def _share(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _evaluation(trial_id: str, step: int, split: str, sigma: float, solved: np.ndarray) -> dict:
    bits = np.packbits(solved).tobytes()
    row = {"sweep": "s", "trial_id": trial_id, "step": step, "optimizer_steps": step, "act_steps": step, "split": split}
    row |= {"sigma": sigma, "depth": 4, "rollouts": solved.shape[1], "n": N, "exact_accuracy": float(solved.mean())}
    return row | {"token_accuracy": 0.9, "correct": bits, "best_q_correct": bits, "majority_correct": bits}


def judged(tables: tuple[pd.DataFrame, ...], seeds: int, looks: list) -> tuple[pd.DataFrame, pd.DataFrame, list]:
    """The comparison of the first seeds of a sweep, its verdicts, and the looks that there were then."""
    trials, evals, diagnoses = tables
    trials = trials.loc[trials.seed < seeds]
    kept = [table.loc[table.trial_id.isin(trials.trial_id)] if len(table) else None for table in (evals, diagnoses)]
    compared = compare_by_seed(trials, kept[0], kept[1], baseline="baseline", looks=looks)
    new = complete_looks(compared.comparison, compared.differences)
    return compared.comparison, verdicts_of(compared.comparison), [*looks, *new]


def truth(effect: float) -> float:
    """The expected difference of clean accuracies, over many runs and puzzles."""
    rng = np.random.default_rng(1)
    logits = rng.normal(*EASINESS, (200, 1000)) + rng.normal(0, RUN_SD * 2**0.5, (200, 1))
    return float((_share(logits + effect) - _share(logits)).mean())


def rates(sweeps: int, scene: Scene) -> Rates:
    """What is printed of so many simulated sweeps; with looks, wrong is what any of the looks said."""
    rng, true = np.random.default_rng(scene.seeds), truth(scene.effect)
    headlines, rows, holds, ups = [], [], [], []
    for _ in range(sweeps):
        tables, looks, claims, found = sweep(rng, scene), [], [], pd.DataFrame()
        for seeds in (*scene.looks, scene.seeds):
            found, verdicts, looks = judged(tables, seeds, looks)
            claims.append(verdicts.verdict.isin(WRONG).any())
        signals = found.loc[(found.role == "signal") & found.difference.notna()]
        clean = signals.loc[signals.metric.isin(["best", "final"])]
        truths = true if scene.effect else 0.0
        headlines.append(any(claims))
        rows.append(signals.verdict.isin(["up", "down"]).any())
        holds += ((clean.low <= truths) & (truths <= clean.high)).tolist()
        ups.append((signals.verdict[signals.primary] == "up").mean())
    return Rates(*(float(np.mean(x)) for x in (headlines, rows, holds, ups)))


def promises(sweeps: int, seeds: int) -> tuple[float, float, float]:
    """Of sweeps without an effect: median of the promised difference, median of its true power, share above 80 %."""
    rng, scene = np.random.default_rng(seeds), Scene(seeds)
    sizes = []
    for _ in range(sweeps):
        found, _, _ = judged(sweep(rng, scene), seeds, [])
        primary = found.loc[found.primary].iloc[0]
        assert primary.detectable_seeds == seeds
        sizes.append(primary.detectable)
    effects = np.linspace(0.1, 1.4, 8)
    power = [rates(max(20, sweeps // 4), scene._replace(effect=effect)).up for effect in effects]
    powers = np.interp(sizes, [truth(effect) for effect in effects], np.maximum.accumulate(power))
    return float(np.median(sizes)), float(np.median(powers)), float((powers >= 0.8).mean())


def logits_for(difference: float) -> float:
    """The effect in logits that changes the expected accuracy by so much."""
    return float(brentq(lambda effect: truth(effect) - difference, 0, 3))  # pyright: ignore[reportArgumentType]


SCENES = {
    **{f"{seeds} seeds": Scene(seeds) for seeds in (6, 8, 10, 12)},
    "8 seeds, not diagnosed": Scene(8, diagnosed=False),
    "8 seeds, 4 points": Scene(8, points=4),
    "10 seeds, 4 points": Scene(10, points=4),
    "8 seeds, interaction": Scene(8, interaction=0.5),
    "10 seeds, 4 points, interaction": Scene(10, points=4, interaction=0.5),
    "looks at 6, 7, ... 12 seeds": Scene(12, looks=tuple(range(6, 12))),
    "looks at 8 and 10 seeds": Scene(10, looks=(8,)),
}


def main(sweeps: int = 1000) -> None:
    """Print the tables of wrong headlines and of what is detectable."""
    error = 1.96 * (0.05 * 0.95 / sweeps) ** 0.5
    print(f"{sweeps} simulated sweeps a row, {N} puzzles; Monte-Carlo error of 5 %: +-{error:.1%}\n")
    print(f"{'No effect':34}{'wrong headline':>15}{'wrong row':>11}{'interval holds':>16}")
    for name, scene in SCENES.items():
        found = rates(sweeps, scene)
        print(f"{name:34}{found.headline:15.1%}{found.row:11.1%}{found.holds:16.1%}", flush=True)
    print(f"\n{'Promised with 80 % power':34}{'points':>15}{'true power':>11}{'80 % or more in':>16}")
    for seeds in (9, 10, 12):  # with fewer, no verdict on each of so many signals can be had
        size, power, share = promises(sweeps // 5, seeds)
        print(f"{f'{seeds} seeds':34}{100 * size:15.1f}{power:11.0%}{share:16.0%}", flush=True)


if __name__ == "__main__":
    main(*(int(number) for number in sys.argv[1:]))

"""How often what is printed is right: `python tests/benchmarks/calibration.py [SWEEPS] [SCENE ...]`.

All scenes take half an hour of CPU time; `... 1000 "6 seeds, 4 points" "power of 10 seeds"` prints these alone.

Sweeps are simulated as tables and go through `results.compare` and `results.verdicts`. Puzzles are drawn anew for each
sweep, from a population; a run is a little better or worse than its arm; arms may be good at other puzzles than each
other without being better (the interaction); runs may fail, in each arm alike. Without an effect, a headline that says
helps, harms or mixed is wrong; `hold` is the share of printed 95 % intervals that hold the true difference. Of an
effect, the power is how often the primary metric is said to be up, and `detectable` is what a sweep of as many seeds
promises to find in 80 %.
"""

import sys
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from results.comparison import Compared, compare_by_seed
from results.looks import Look, complete_looks
from results.signals import verdicts

N = 128
DIAGNOSED, VECTORS = 32, 8
RUN_SD = 0.15  # logits, between runs
EASINESS = 0.5, 1.5  # logits, mean and sd of the population of puzzles
SIGMAS = (0.1, 0.3, 1.0)
ROLLOUTS = 2
STEPS = (10, 20)
WRONG = ("helps", "harms", "mixed")
TOGETHER = 25  # sweeps in a table: what a call costs by itself is shared
Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


class Scene(NamedTuple):
    """What a simulated sweep is like: seeds, grid points, diagnoses or not, logits of interaction and of effect."""

    seeds: int
    points: int = 1
    diagnosed: bool = True
    interaction: float = 0.0
    effect: float = 0.0
    failures: float = 0.0  # share of runs
    looks: tuple[int, ...] = ()  # seeds at earlier complete looks
    chosen: bool = False  # whether the last look, by what it shows, decides how many seeds there are: see `goes_on_to`


class Rates(NamedTuple):
    """Shares of sweeps: a headline that claims something, a row that does, the primary metric up.

    And of what is printed by kind, the intervals that hold the truth; `plain`: sweeps with a signal whose own p, which
    nobody has corrected, is below 5 %.
    """

    headline: float
    row: float
    up: float
    hold: dict[str, float]
    plain: float


def sweeps_of(rng: np.random.Generator, scene: Scene, count: int) -> Tables:
    """The tables of so many sweeps: a baseline that ignores the grid, and an arm at each point."""
    trials, evals, diagnoses = [], [], []
    for number in range(count):
        _add_sweep(rng, scene, f"s{number}", trials, evals, diagnoses)
    return pd.DataFrame(trials).assign(**_FACTS), pd.DataFrame(evals).assign(**_NOTHING), pd.DataFrame(diagnoses)


def _add_sweep(rng: np.random.Generator, scene: Scene, sweep: str, trials: list, evals: list, diagnoses: list) -> None:
    easiness, apart = rng.normal(*EASINESS, N), scene.interaction / 2**0.5
    names = [f"sigma={point}" for point in range(scene.points)] if scene.points > 1 else [""]
    pair = rng.normal(0, RUN_SD, scene.seeds)
    for arm, points in (("baseline", names), *(("arm", [name]) for name in names)):
        likes = easiness + scene.effect * (arm == "arm") + rng.normal(0, apart, N)
        for seed in range(scene.seeds):
            ability, trial_id = likes + pair[seed] + rng.normal(0, RUN_SD), f"{sweep}-{arm}{points[0]}-{seed}"
            of = {"sweep": sweep, "trial_id": trial_id}
            status = "failed" if rng.random() < scene.failures else "done"
            trials.append(of | {"arm": arm, "points": points, "seed": seed, "status": status})
            for step in STEPS:
                for split in ("validation", "test"):
                    solved = rng.random((N, 1)) < _share(ability[:, None] - 0.3 * (step < STEPS[-1]))
                    evals.append(of | _evaluation(step, split, 0.0, solved))
            for sigma in SIGMAS:
                solved = rng.random((N, ROLLOUTS)) < _share(ability[:, None] - sigma)
                evals.append(of | _evaluation(STEPS[-1], "test", sigma, solved))
            if scene.diagnosed:
                modes = rng.poisson(np.exp(1 + rng.normal(0, 0.2) - 0.2 * easiness[:DIAGNOSED])).clip(max=VECTORS)
                diagnoses += [
                    of | {"step": STEPS[-1], "example": example, "n_pos": n, "lambda_1": 0.01 * n} | _SETTLED
                    for example, n in enumerate(modes)
                ]


_SETTLED = {"solved": True, "settled": True}
_FACTS = {"model": "trm", "task": "sudoku", "objective": "x", "rollout": "parallel_fixed", "rollouts": 1}
_FACTS |= {"parameters": 1, "commit": "c", "data_digest": "d", "test_digest": "d", "reason": None, "steps": 20}
_FACTS |= {"config": f'{{"diagnose": {{"k": {VECTORS}}}}}', "flops_per_step": 1.0, "device_hours": 1.0}
_FACTS |= {"train_seconds": 1.0, "evaluate_seconds": 1.0}
_NOTHING = dict.fromkeys(
    ("train_sigma", "noise_rms_z_H", "noise_rms_z_L", "noise_fidelity", "valid_accuracy", "shortest_accuracy"), np.nan
)


def _share(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _evaluation(step: int, split: str, sigma: float, solved: np.ndarray) -> dict[str, Any]:
    bits = np.packbits(solved).tobytes()
    row = {"step": step, "optimizer_steps": step, "act_steps": step, "split": split, "sigma": sigma, "depth": 4, "n": N}
    row |= {"rollouts": solved.shape[1], "exact_accuracy": float(solved.mean()), "token_accuracy": 0.9}
    return row | {"correct": bits, "best_q_correct": bits, "majority_correct": bits}


def compared(tables: Tables, seeds: int | pd.Series, looks: list[Look]) -> Compared:
    """The comparison of the first seeds of each sweep, by its name if it is not the same number of all."""
    trials, evals, diagnoses = tables
    trials = trials.loc[trials.seed < (seeds if isinstance(seeds, int) else trials.sweep.map(seeds))]
    kept = [table.loc[table.trial_id.isin(trials.trial_id)] if len(table) else None for table in (evals, diagnoses)]
    return compare_by_seed(trials, kept[0], kept[1], baseline="baseline", looks=looks)


def looks_of(found: Compared) -> list[Look]:
    """The looks that a comparison of several sweeps is."""
    by_seed = dict(list(found.differences.groupby("sweep")))
    of_sweep = [(rows, by_seed[sweep]) for sweep, rows in found.comparison.groupby("sweep") if sweep in by_seed]
    return [look for each in of_sweep for look in complete_looks(*each)]


def goes_on_to(found: Compared, most: int) -> pd.Series:
    """By sweep the seeds of somebody who adds some where the arm looks better: 4 fewer where it looks much better.

    All others stop. To stop earlier when it looks good is the choice that costs a test most.
    """
    primary = found.comparison.loc[found.comparison.primary].set_index("sweep")
    t = primary.difference / primary.difference_sd * primary.n_seeds**0.5
    return primary.n_seeds.where(t < 1, most).mask(t > 2, most - 4)


def truth(effect: float, sigma: float = 0.0) -> float:
    """The expected difference of accuracies, over many runs and puzzles."""
    rng = np.random.default_rng(1)
    logits = rng.normal(*EASINESS, (200, 1000)) + rng.normal(0, RUN_SD * 2**0.5, (200, 1)) - sigma
    return float((_share(logits + effect) - _share(logits)).mean())


def rates(sweeps: int, scene: Scene) -> Rates:
    """What is printed of so many simulated sweeps; with looks, wrong is what any of the looks said."""
    rng = np.random.default_rng(scene.seeds)
    truths = {sigma: truth(scene.effect, sigma) if scene.effect else 0.0 for sigma in (0.0, *SIGMAS)}
    claims, rows, ups, plain = [], [], [], []
    holds: dict[str, list[bool]] = {"clean": [], "perturbed": [], "modes": []}
    for first in range(0, sweeps, TOGETHER):
        tables, looks = sweeps_of(rng, scene, min(TOGETHER, sweeps - first)), []
        claimed = pd.Series(False, tables[0].sweep.unique())
        found = None
        for seeds in (*scene.looks, scene.seeds):
            last = found is not None and scene.chosen and seeds == scene.seeds
            found = compared(tables, goes_on_to(found, seeds) if last else seeds, looks)
            looks += looks_of(found) if scene.looks else []
            said = verdicts(found.comparison)
            claimed |= said.verdict.isin(WRONG).groupby(said.sweep).any()
        signals = found.comparison.loc[found.comparison.role == "signal"]
        claims += claimed.tolist()
        rows += signals.verdict.isin(["up", "down"]).groupby(signals.sweep).any().tolist()
        plain += (signals.p < 0.05).fillna(False).groupby(signals.sweep).any().tolist()
        ups += (signals.verdict[signals.primary] == "up").tolist()
        printed = signals.loc[signals.low.notna()]
        true = np.where(printed.metric == "positive_modes", 0.0, printed.sigma.map(truths))
        held = (printed.low <= true) & (true <= printed.high)
        for kind, metrics in (
            ("clean", ("best", "final")),
            ("perturbed", ("perturbed",)),
            ("modes", ("positive_modes",)),
        ):
            holds[kind] += held[printed.metric.isin(metrics)].tolist()
    hold = {kind: float(np.mean(each)) for kind, each in holds.items() if each}
    return Rates(*(float(np.mean(each)) for each in (claims, rows, ups)), hold, float(np.mean(plain)))


def promises(sweeps: int, seeds: int) -> tuple[float, float, float]:
    """Of sweeps without an effect: median of the promised difference, median of its true power, share above 80 %."""
    rng, scene = np.random.default_rng(seeds), Scene(seeds)
    found = compared(sweeps_of(rng, scene, sweeps), seeds, []).comparison
    primary = found.loc[found.primary]
    assert set(primary.detectable_seeds) == {seeds}
    effects = np.linspace(0.1, 1.4, 8)
    power = [rates(max(20, sweeps // 4), scene._replace(effect=effect)).up for effect in effects]
    powers = np.interp(primary.detectable, [truth(effect) for effect in effects], np.maximum.accumulate(power))
    return float(primary.detectable.median()), float(np.median(powers)), float((powers >= 0.8).mean())


def logits_for(difference: float) -> float:
    """The effect in logits that changes the expected accuracy by so much."""
    return float(brentq(lambda effect: truth(effect) - difference, 0, 3))  # pyright: ignore[reportArgumentType]


SEEDS = (6, 8, 10, 12)
KINDS: dict[str, dict[str, Any]] = {
    "": {},
    ", not diagnosed": {"diagnosed": False},
    ", interaction": {"interaction": 0.5},
    ", a tenth of the runs fails": {"failures": 0.1},
    ", 4 points": {"points": 4},
}
SCENES = {f"{seeds} seeds{name}": Scene(seeds, **kind) for name, kind in KINDS.items() for seeds in SEEDS}
SCENES |= {
    "10 seeds, 4 points, interaction": Scene(10, points=4, interaction=0.5),
    "looks at 2 and 4 seeds, then 8": Scene(8, looks=(2, 4)),
    "at 4, then stop, or 8 or 12 if good": Scene(12, looks=(2, 4), chosen=True),
    "the same, not diagnosed": Scene(12, looks=(2, 4), chosen=True, diagnosed=False),
    "looks at 2, 4, 6 and 12 seeds": Scene(12, looks=(2, 4, 6)),
    "looks at 6, 7 and 8 seeds": Scene(8, looks=(6, 7)),
    "looks at 6, 8 and 10 seeds": Scene(10, looks=(6, 8)),
    "looks at 6, 7, ... 12 seeds": Scene(12, looks=tuple(range(6, 12))),
    "the same, interaction": Scene(12, looks=tuple(range(6, 12)), interaction=0.5),
    "looks at 8 and 10 seeds, 4 points": Scene(10, looks=(8,), points=4),
}

# With fewer seeds no verdict on each of so many signals can be had.
PLANNED = {f"power of {seeds} seeds": seeds for seeds in (9, 10, 12)}


def main(sweeps: int = 1000, *names: str) -> None:
    """Print the tables of wrong headlines and of what is detectable; of the scenes named, or of all."""
    unknown = [name for name in names if name not in (*SCENES, *PLANNED)]
    if unknown:
        raise SystemExit(f"{', '.join(unknown)}: no scene; there are {'; '.join((*SCENES, *PLANNED))}")
    scenes, planned = (
        {name: one for name, one in each.items() if name in (names or each)} for each in (SCENES, PLANNED)
    )
    error = 1.96 * (0.05 * 0.95 / sweeps) ** 0.5
    print(f"{sweeps} simulated sweeps a row, {N} puzzles; Monte-Carlo error of 5 %: +-{error:.1%}")
    if scenes:
        print(f"\n{'No effect':38}{'wrong headline':>15}{'intervals hold: clean':>23}{'perturbed':>11}{'modes':>8}")
    for name, scene in scenes.items():
        found = rates(sweeps, scene)
        hold = [f"{found.hold[kind]:.1%}" if kind in found.hold else "" for kind in ("clean", "perturbed", "modes")]
        print(f"{name:38}{found.headline:15.1%}{hold[0]:>23}{hold[1]:>11}{hold[2]:>8}", flush=True)
    if planned:
        print(f"\n{'Promised with 80 % power':38}{'points':>15}{'true power':>11}{'80 % or more in':>16}")
    for name, seeds in planned.items():
        size, power, share = promises(sweeps // 5, seeds)
        print(f"{name:38}{100 * size:15.1f}{power:11.0%}{share:16.0%}", flush=True)


if __name__ == "__main__":
    main(*(int(sweeps) for sweeps in sys.argv[1:2]), *sys.argv[2:])

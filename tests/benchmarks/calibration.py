"""How often the statistics are right: `python tests/benchmarks/calibration.py [SWEEPS]`.

Simulated sweeps: paired seeds, test examples that are hard for every run alike, each run a little better or worse than
its arm. Without an effect, `p below 5 %` is the false-positive rate; with one, the power. `holds` is the share of 95 %
intervals that hold the true difference. The effects are what `stats.detectable` says is found in 80 % of sweeps and,
beside it, what the normal formula (z_.975 + z_.8) sd / sqrt(n) says.
"""

import sys
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from results.stats import detectable, holm, paired_by_seed, seeds_needed

N = 256
RUN_SD = 0.10  # logits, between runs
EASINESS = np.random.default_rng(0).normal(0.5, 1.5, N)  # logits [examples], the same for every run


class Rates(NamedTuple):
    """Shares of simulated sweeps: p below 5 %, any p_holm below 5 %, intervals that hold the truth; sd of a pair."""

    p: float
    p_holm: float
    t_holds: float
    bca_holds: float
    sd: float


def differences_of(rng: np.random.Generator, seeds: int, arms: int, effect: float) -> np.ndarray:
    """Paired differences of accuracy [arms, seeds], each arm `effect` logits above the baseline."""
    ability = rng.normal(0, RUN_SD, seeds) + rng.normal(0, RUN_SD, (arms + 1, seeds))  # what a pair shares, and not
    ability[1:] += effect
    solved = rng.random((arms + 1, seeds, N)) < 1 / (1 + np.exp(-EASINESS - ability[..., None]))
    return solved[1:].mean(axis=2) - solved[0].mean(axis=1)


def truth(effect: float) -> float:
    """The expected difference of accuracies, over many runs."""
    logits = EASINESS + np.random.default_rng(1).normal(0, RUN_SD * 2**0.5, (2000, 1))
    return float((1 / (1 + np.exp(-logits - effect)) - 1 / (1 + np.exp(-logits))).mean())


def logits_for(difference: float) -> float:
    """The effect in logits that changes the expected accuracy by so much."""
    return float(brentq(lambda effect: truth(effect) - difference, 0, 3))  # pyright: ignore[reportArgumentType]


def rates(sweeps: int, seeds: int, arms: int = 1, effect: float = 0.0) -> Rates:
    """What the statistics say of so many simulated sweeps."""
    rng, true = np.random.default_rng(seeds), truth(effect)
    differences = [differences_of(rng, seeds, arms, effect) for _ in range(sweeps)]
    found = [[paired_by_seed(arm) for arm in sweep] for sweep in differences]
    effects = [effect for sweep in found for effect in sweep]
    return Rates(
        float(np.mean([effect.p < 0.05 for effect in effects])),
        float(np.mean([(holm(np.array([effect.p for effect in sweep])) < 0.05).any() for sweep in found])),
        float(np.mean([effect.low <= true <= effect.high for effect in effects])),
        float(np.mean([effect.bca_low <= true <= effect.bca_high for effect in effects])),
        float(np.std(differences)),
    )


def main(sweeps: int = 2000) -> None:
    """Print the tables of false positives and of power."""
    error = 1.96 * (0.05 * 0.95 / sweeps) ** 0.5
    print(f"{sweeps} simulated sweeps a row, {N} examples; Monte-Carlo error of 5 %: +-{error:.1%}\n")
    print("No effect        p below 5 %   any p_holm below 5 %   t interval holds   BCa interval holds")
    sd = 0.0
    for seeds, arms in ((6, 1), (8, 1), (12, 1), (8, 4), (12, 4)):
        found = rates(sweeps, seeds, arms)
        sd = found.sd
        holds = f"{found.t_holds:22.1%}{found.bca_holds:19.1%}"
        print(f"{seeds:2} seeds, {arms} arms  {found.p:11.1%}{found.p_holm:19.1%}{holds}", flush=True)
    print("\nAn effect    detectable, points   found in (80 % said)   normal formula, points   found in (80 % said)")
    for seeds in (6, 7, 8, 12):
        cells = ""
        for size in (detectable(sd, seeds), float(norm.ppf(0.975) + norm.ppf(0.8)) * sd / seeds**0.5):
            cells += f"{100 * size:15.1f}{rates(sweeps, seeds, effect=logits_for(size)).p:24.1%}   "
        print(f"{seeds:2} seeds     {cells}", flush=True)
    print(f"\nseeds needed for one comparison: {seeds_needed()}; for four: {seeds_needed(4)}")


if __name__ == "__main__":
    main(*(int(number) for number in sys.argv[1:]))

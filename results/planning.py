"""What so many seeds can find: said before the end of a sweep, or of one that found nothing."""

import math

import numpy as np
from scipy.special import chdtri, nctdtrinc, ndtri, stdtrit

from results.stats import ALPHA, NAN

POWER = 0.8
SEEDS_FOR_PLANNING = 4  # below, the upper limit of the sd is several times the sd


def seeds_needed(comparisons: int = 1) -> int:
    """The fewest paired seeds with which sign flips can reach 5 % after correction for so many comparisons.

    The smallest p of n pairs is 2^(1-n): 6 seeds for one comparison, 7 for two or three, 8 for four to six.
    """
    return math.ceil(1 + math.log2(comparisons / ALPHA))


def seeds_needed_after_looks(comparisons: int) -> int:
    """The fewest paired seeds of which an always-valid p can reach 5 % after correction for so many comparisons.

    Of n differences S^2 <= n V, and so E (results.sequential) is at most exp((n - 1) / 2) / sqrt(n), where V is
    (n - 1) s^2: ten seeds for one comparison, 14 for six.
    """
    n = 1
    while math.sqrt(n) * math.exp(-(n - 1) / 2) * comparisons >= ALPHA:
        n += 1
    return n


def upper_sd(sd: float, n: int) -> float:
    """The upper 80 % limit of a standard deviation that was estimated from n values (chi square)."""
    return sd * math.sqrt((n - 1) / float(chdtri(n - 1, POWER)))


def detectable(sd: float, seeds: int, comparisons: int = 1) -> float:
    """The difference that so many paired seeds find in 80 % of sweeps, for normal differences of that sd.

    The normal formula, (z_.975 + z_.8) sd / sqrt(n), promises too much of few seeds: at six the sign-flip test finds
    that difference in under half of all sweeps. This is the noncentral t power at the level the flips can attain and,
    where only n equal signs reach it, the exact power Phi(d/sd)^n. nan below `seeds_needed`.
    """
    patterns = 2.0 ** min(seeds - 1, 500)  # pairs of mirrored ones; of more, any level can be attained
    rejecting = math.floor(ALPHA / comparisons * patterns + 1e-9)
    if rejecting < 1 or math.isnan(sd):
        return NAN
    if rejecting == 1:
        return sd * float(ndtri(POWER ** (1 / seeds)))
    level = min(ALPHA / comparisons, rejecting / patterns)
    critical = stdtrit(seeds - 1, 1 - level / 2)
    noncentrality = float(nctdtrinc(seeds - 1, 1 - POWER, critical))  # the far tail, left out, adds less than 1e-4
    return sd * noncentrality / math.sqrt(seeds)


def detectable_from(differences: np.ndarray, puzzles_error: float, seeds: int, comparisons: int) -> float:
    """The difference that `seeds` pairs find with 80 % power, going by differences [n] of other pairs; nan under four.

    By the upper 80 % limit of their sd: of sweeps so planned, four of five have the power that they were promised.
    puzzles_error: standard error that the choice of puzzles adds, which more seeds do not lower.
    """
    n = len(differences)
    if n < SEEDS_FOR_PLANNING or np.ptp(differences) == 0:
        return NAN
    sd = upper_sd(float(differences.std(ddof=1)), n)
    return detectable(math.sqrt(sd**2 + seeds * puzzles_error**2), seeds, comparisons)

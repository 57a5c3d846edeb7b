"""Paired statistics as pure functions of arrays: the unit of replication is the training run, paired by seed."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, bootstrap, mannwhitneyu, nct, norm, permutation_test, t, trim_mean, ttest_1samp

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
POWER = 0.8
EXACT_SEEDS = 14
RESAMPLES = 99_999
BOOTSTRAPS = 9_999
NAN = float("nan")


class PairedEffect(NamedTuple):
    """Mean paired difference, 95 % t and BCa intervals, two-sided p of no difference (nan if undefined)."""

    mean: float
    low: float
    high: float
    bca_low: float
    bca_high: float
    p: float


class McNemar(NamedTuple):
    """Examples that only the arm solves, that only the baseline solves, and the exact two-sided p of no difference."""

    gained: int
    lost: int
    p: float


def paired_by_seed(differences: np.ndarray) -> PairedEffect:
    """Effect over training runs: differences [seeds], one a pair of runs.

    The p-value is the sign-flip test's: over all flips up to EXACT_SEEDS, over RESAMPLES random ones beyond. From
    six pairs on, the BCa bootstrap interval (Efron 1987) stands beside the t interval; of few seeds it is too narrow
    (it holds the truth in 86 % of sweeps of six, tests/benchmarks/calibration.py), so no verdict rests on it.
    """
    if len(differences) < 2:
        return PairedEffect(float(differences.mean()), *[NAN] * 5)
    low, high = _t_interval(differences)
    resamples = 2 ** len(differences) if len(differences) <= EXACT_SEEDS else RESAMPLES
    p = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=resamples, rng=np.random.default_rng(0)
    ).pvalue
    return PairedEffect(float(differences.mean()), low, high, *_bca_interval(differences), float(p))


def paired_by_example(differences: np.ndarray) -> PairedEffect:
    """Effect over test examples, given the runs: differences [examples], each averaged over the paired seeds.

    The p-value is a t-test's. It says nothing about other seeds.
    """
    low, high = _t_interval(differences)
    p = NAN
    if np.ptp(differences) > 0:
        test: Any = ttest_1samp(differences, 0)
        p = float(test.pvalue)
    return PairedEffect(float(differences.mean()), low, high, NAN, NAN, p)


def _t_interval(differences: np.ndarray) -> tuple[float, float]:
    if len(differences) < 2 or np.ptp(differences) == 0:
        # Equal differences hold no estimate of the spread: an interval of width 0 would claim certainty.
        return NAN, NAN
    interval = ttest_1samp(differences, 0).confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high)


def _bca_interval(differences: np.ndarray) -> tuple[float, float]:
    if len(differences) < seeds_needed() or np.ptp(differences) == 0:
        return NAN, NAN
    interval = bootstrap(
        (differences,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=BOOTSTRAPS,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of the p-values [m] of one question; nan stays nan and counts for nothing."""
    order = np.argsort(p)  # nan last
    steps = np.count_nonzero(~np.isnan(p)) - np.arange(len(p))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * steps), 1)
    return corrected


def mcnemar(arm: np.ndarray, baseline: np.ndarray) -> McNemar:
    """Exact McNemar test of one pair of runs on the same examples: bool [n] each.

    Never to be pooled over seeds: the examples of two runs are not independent.
    """
    gained, lost = int((arm & ~baseline).sum()), int((baseline & ~arm).sum())
    return McNemar(gained, lost, float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0)


def iqm(scores: np.ndarray) -> float:
    """Interquartile mean of scores [runs]: without the lowest and the highest quarter (Agarwal et al. 2021)."""
    return float(trim_mean(scores, 0.25))


def probability_of_improvement(arm: np.ndarray, baseline: np.ndarray) -> float:
    """P(a run of the arm scores above a run of the baseline), ties half: [runs] each (Agarwal et al. 2021)."""
    statistic: Any = mannwhitneyu(arm, baseline).statistic
    return float(statistic / (len(arm) * len(baseline)))


def auc(scores: np.ndarray, positives: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties half: scores [n], bool [n]; nan without both kinds.

    The area under the ROC curve, by the Mann-Whitney statistic.
    """
    if positives.all() or not positives.any():
        return NAN
    return probability_of_improvement(scores[positives], scores[~positives])


def seeds_needed(comparisons: int = 1) -> int:
    """The fewest paired seeds with which the sign-flip test can reach 5 % after Holm over so many comparisons.

    The smallest p of n pairs is 2^(1-n): 6 seeds for one comparison, 7 for two or three, 8 for four to six.
    """
    return math.ceil(1 + math.log2(comparisons / ALPHA))


def detectable(sd: float, seeds: int, comparisons: int = 1) -> float:
    """The difference that so many paired seeds find in 80 % of sweeps, for normal differences of that sd.

    The normal formula, (z_.975 + z_.8) sd / sqrt(n), promises too much of few seeds: at six the sign-flip test finds
    that difference in under half of all sweeps. This is the noncentral t power at the level the flips can attain and,
    where only n equal signs reach it, the exact power Phi(d/sd)^n. nan below `seeds_needed`.
    """
    rejecting = math.floor(ALPHA / comparisons * 2 ** (seeds - 1) + 1e-9)  # pairs of mirrored sign patterns
    if rejecting < 1 or math.isnan(sd):
        return NAN
    if rejecting == 1:
        return sd * float(norm.ppf(POWER ** (1 / seeds)))
    level = min(ALPHA / comparisons, rejecting * 2.0 ** (1 - seeds))
    critical = t.ppf(1 - level / 2, seeds - 1)

    def shortfall(size: float) -> float:  # the far tail, where scipy's nct is nan, adds less than 1e-4
        return float(nct.sf(critical, seeds - 1, size * math.sqrt(seeds)) - POWER)

    return sd * float(brentq(shortfall, 1e-3, 10))  # pyright: ignore[reportArgumentType]

"""Paired statistics as pure functions of arrays."""

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import permutation_test, ttest_1samp

CONFIDENCE = 0.95
EXACT_SEEDS = 14
RESAMPLES = 99_999


class PairedEffect(NamedTuple):
    """Mean paired difference, its 95 % t interval and the two-sided p-value of no difference (nan if undefined)."""

    mean: float
    low: float
    high: float
    p: float


def paired_by_seed(differences: np.ndarray) -> PairedEffect:
    """Effect over training runs: differences [seeds], one a pair of runs, two or more.

    The p-value is the sign-flip test's: over all flips up to EXACT_SEEDS, over RESAMPLES random ones beyond.
    """
    low, high = _t_interval(differences)
    resamples = 2 ** len(differences) if len(differences) <= EXACT_SEEDS else RESAMPLES
    p = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=resamples, rng=np.random.default_rng(0)
    ).pvalue
    return PairedEffect(float(differences.mean()), low, high, float(p))


def paired_by_example(differences: np.ndarray) -> PairedEffect:
    """Effect over test examples, given the runs: differences [examples], each averaged over the paired seeds.

    The p-value is a t-test's. It says nothing about other seeds.
    """
    low, high = _t_interval(differences)
    p = float("nan")
    if np.ptp(differences) > 0:
        test: Any = ttest_1samp(differences, 0)
        p = float(test.pvalue)
    return PairedEffect(float(differences.mean()), low, high, p)


def _t_interval(differences: np.ndarray) -> tuple[float, float]:
    if len(differences) < 2 or np.ptp(differences) == 0:
        # Equal differences hold no estimate of the spread: an interval of width 0 would claim certainty.
        return float("nan"), float("nan")
    interval = ttest_1samp(differences, 0).confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high)

"""Paired statistics against closed forms and against enumeration."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from results.stats import paired_by_example, paired_by_seed

DIFFERENCES = np.array([0.02, 0.05, -0.01, 0.03, 0.04, 0.01])


def test_sign_flip_p_is_the_enumeration():
    flips = np.array(list(itertools.product([1, -1], repeat=6)))
    means = np.abs((flips * DIFFERENCES).mean(axis=1))
    expected = (means >= abs(DIFFERENCES.mean()) - 1e-12).mean()
    assert paired_by_seed(DIFFERENCES).p == pytest.approx(expected)


def test_five_pairs_can_never_reach_five_percent():
    assert paired_by_seed(np.full(5, 0.1) + np.arange(5) * 1e-3).p == pytest.approx(0.0625)
    assert paired_by_seed(np.full(6, 0.1) + np.arange(6) * 1e-3).p == pytest.approx(0.03125)


def test_many_seeds_are_resampled_and_agree_with_a_t_test():
    differences = np.random.default_rng(0).normal(0.01, 0.03, size=60)
    t_test: Any = ttest_1samp(differences, 0)
    effect = paired_by_seed(differences)
    assert effect.p == pytest.approx(t_test.pvalue, abs=0.01)
    assert effect == paired_by_seed(differences)


def test_t_interval_is_the_closed_form():
    effect = paired_by_seed(DIFFERENCES)
    half = 2.5705818366147395 * DIFFERENCES.std(ddof=1) / math.sqrt(6)  # t quantile 0.975 with 5 degrees of freedom
    assert effect.mean == pytest.approx(DIFFERENCES.mean())
    assert (effect.low, effect.high) == pytest.approx((DIFFERENCES.mean() - half, DIFFERENCES.mean() + half))


def test_intervals_cover_and_p_values_are_calibrated():
    """No effect: 95 % intervals hold 0, and p < 0.05, as often as they say, within the error of 400 simulations."""
    rng = np.random.default_rng(0)
    effects = [paired_by_example(rng.integers(-1, 2, size=200) / 2) for _ in range(400)]
    covered = np.mean([e.low <= 0 <= e.high for e in effects])
    rejected = np.mean([e.p < 0.05 for e in effects])
    assert 0.92 < covered < 0.98
    assert 0.02 < rejected < 0.08


def test_differences_without_spread_claim_nothing():
    equal = paired_by_example(np.zeros(10))
    assert equal.mean == 0
    assert all(math.isnan(x) for x in (equal.low, equal.high, equal.p))
    one = paired_by_example(np.array([0.1]))
    assert one.mean == 0.1
    assert math.isnan(one.low)
    assert math.isnan(one.p)

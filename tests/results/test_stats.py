"""Paired statistics against closed forms and against enumeration."""

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap, norm, ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from results.stats import (
    detectable,
    holm,
    iqm,
    mcnemar,
    paired_by_example,
    paired_by_seed,
    probability_of_improvement,
    seeds_needed,
)

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


def test_bca_is_scipys_and_claims_nothing_without_spread():
    expected = bootstrap((DIFFERENCES,), np.mean, n_resamples=50_000, rng=np.random.default_rng(1)).confidence_interval
    effect = paired_by_seed(DIFFERENCES)
    assert (effect.bca_low, effect.bca_high) == pytest.approx((expected.low, expected.high), abs=5e-4)
    with warnings.catch_warnings(action="error"):
        assert math.isnan(paired_by_seed(np.full(6, 0.1)).bca_low)
        assert math.isnan(paired_by_seed(np.array([0.1])).p)


def test_holm_is_statsmodels_and_skips_what_is_unknown():
    p = np.random.default_rng(0).random(7) ** 4
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm(np.array([0.01, np.nan, 0.04, 0.02])) == pytest.approx([0.03, np.nan, 0.04, 0.04], nan_ok=True)
    assert holm(np.array([np.nan])) == pytest.approx([np.nan], nan_ok=True)


@pytest.mark.parametrize("flipped", [0, 1, 9])
def test_mcnemar_counts_and_is_statsmodels_exact_test(flipped):
    baseline = np.arange(40) < 20
    arm = baseline.copy()
    arm[20 : 20 + flipped] = True
    arm[:2] = flipped == 1  # two are lost, unless one alone is gained
    test = mcnemar(arm, baseline)
    assert (test.gained, test.lost) == (flipped, 0 if flipped == 1 else 2)
    table = np.array([[0, test.gained], [test.lost, 0]])
    assert test.p == pytest.approx(reference_mcnemar(table, exact=True).pvalue)
    assert mcnemar(arm, arm).p == 1


def test_interquartile_mean_and_probability_of_improvement():
    assert iqm(np.array([0.0, 0.4, 0.5, 0.5, 0.6, 0.7, 0.7, 9.0])) == pytest.approx((0.5 + 0.5 + 0.6 + 0.7) / 4)
    arm, baseline = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])
    assert probability_of_improvement(arm, baseline) == pytest.approx((3 + 0 + 0.5 + 1) / 6)


def test_seeds_needed_is_where_the_smallest_p_survives_holm():
    assert [seeds_needed(m) for m in (1, 2, 3, 4, 6, 7)] == [6, 7, 7, 8, 8, 9]
    for m in range(1, 20):
        smallest = [2.0 ** (1 - n) * m for n in (seeds_needed(m) - 1, seeds_needed(m))]
        assert smallest[0] > 0.05 > smallest[1]


def test_detectable_difference():
    # six pairs: only six equal signs reject, so 80 % power is P(difference > 0) = 0.8 ** (1 / 6)
    assert norm.cdf(detectable(1.0, 6)) ** 6 == pytest.approx(0.8)
    assert detectable(0.02, 12) == pytest.approx(
        0.02 * TTestPower().solve_power(nobs=12, alpha=0.05, power=0.8), rel=5e-3
    )
    assert detectable(1.0, 400) == pytest.approx((1.959964 + 0.841621) / 20, rel=0.01)  # the normal formula
    assert detectable(1.0, 8, comparisons=4) > detectable(1.0, 8)
    assert math.isnan(detectable(1.0, 5))
    assert math.isnan(detectable(1.0, 6, comparisons=2))

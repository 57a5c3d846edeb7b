"""Effects and their intervals against closed forms, other libraries and simulation."""

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.optimize import brentq
from scipy.stats import binomtest, chi2, mannwhitneyu, nct, t, ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from results.planning import detectable, upper_sd
from results.stats import (
    auc,
    aurc,
    iqm,
    mcnemar,
    over_one_sample,
    over_seeds_and_puzzles,
    probability_of_improvement,
    wilson,
)

DIFFERENCES = np.array([0.02, 0.05, -0.01, 0.03, 0.04, 0.01])


def test_the_area_under_the_risk_coverage_curve():
    failed = np.array([False, False, True, True])
    assert aurc(np.array([4.0, 3, 2, 1]), failed) == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert aurc(np.array([1.0, 2, 3, 4]), failed) == pytest.approx((1 + 1 + 2 / 3 + 2 / 4) / 4)
    assert aurc(np.zeros(4), failed) == 0.5  # of equals the order says nothing
    assert aurc(np.arange(4), np.zeros(4, bool)) == 0


@pytest.mark.parametrize(("some", "n"), [(0, 7), (1, 7), (40, 90), (7, 7), (1, 1)])
def test_the_interval_of_a_share_is_scipys(some, n):
    assert wilson(some, n) == pytest.approx(tuple(binomtest(some, n).proportion_ci(method="wilson")), abs=1e-12)


@pytest.mark.parametrize(("seeds", "comparisons"), [(7, 1), (8, 1), (12, 6), (60, 10), (400, 1)])
def test_what_seeds_detect_has_the_power_of_the_noncentral_t(seeds, comparisons):
    level = max(math.floor(0.05 / comparisons * 2 ** min(seeds - 1, 50)) / 2 ** min(seeds - 1, 50), 0)
    critical = t.ppf(1 - level / 2, seeds - 1)
    size = brentq(lambda size: nct.sf(critical, seeds - 1, size * math.sqrt(seeds)) - 0.8, 1e-3, 10)
    assert detectable(0.03, seeds, comparisons) == pytest.approx(0.03 * size, rel=1e-6)
    assert upper_sd(0.03, seeds) == pytest.approx(0.03 * math.sqrt((seeds - 1) / chi2.ppf(0.2, seeds - 1)))


def test_t_interval_is_the_closed_form_and_scipys():
    effect = over_one_sample(DIFFERENCES)
    half = 2.5705818366147395 * DIFFERENCES.std(ddof=1) / math.sqrt(6)  # t quantile 0.975 with 5 degrees of freedom
    assert effect.mean == pytest.approx(DIFFERENCES.mean())
    assert (effect.low, effect.high) == pytest.approx((DIFFERENCES.mean() - half, DIFFERENCES.mean() + half))
    assert effect[3:] == pytest.approx(tuple(ttest_1samp(DIFFERENCES, 0).confidence_interval(0.95)))


def test_differences_without_spread_claim_nothing():
    for effect in (over_one_sample(np.zeros(10)), over_seeds_and_puzzles(np.zeros((6, 10)))):
        assert effect.mean == 0
        assert all(math.isnan(x) for x in effect[1:])
    one = over_one_sample(np.array([0.1]))
    assert one.mean == 0.1
    assert math.isnan(one.low)


def test_the_interval_over_seeds_and_puzzles_has_the_mean_squares_of_an_analysis_of_variance():
    rng = np.random.default_rng(0)
    d = rng.normal(0, 0.1, (5, 1)) + rng.normal(0, 0.2, 30) + rng.normal(0, 0.3, (5, 30)) + 0.1
    seeds, puzzles = (index.ravel() for index in np.indices(d.shape))
    model = sm.OLS.from_formula("d ~ C(s) + C(p)", pd.DataFrame({"d": d.ravel(), "s": seeds, "p": puzzles})).fit()
    squares = sm.stats.anova_lm(model).mean_sq
    S, P, R = squares["C(s)"], squares["C(p)"], squares["Residual"]
    effect = over_seeds_and_puzzles(d)
    assert effect.error == pytest.approx(math.sqrt((S + P - R) / d.size))
    assert effect.freedom == pytest.approx((S + P - R) ** 2 / (S**2 / 4 + P**2 / 29 + R**2 / 116))
    assert effect.error > over_one_sample(d.mean(axis=1)).error


def test_no_component_is_below_nothing():
    """Seeds that agree by chance more than their puzzles allow are no proof that every seed would."""
    rng = np.random.default_rng(0)
    d = rng.normal(0, 1, (6, 50))
    d -= d.mean(axis=1, keepdims=True)  # every seed has the same mean
    effect = over_seeds_and_puzzles(d)
    assert effect.error > 0.5 / math.sqrt(d.size)
    equal = np.tile(rng.normal(0, 1, 50), (6, 1))  # every seed has the same bits: puzzles are all that varies
    assert over_seeds_and_puzzles(equal).error == pytest.approx(over_one_sample(equal[0]).error)


@pytest.mark.parametrize(("seed_sd", "puzzle_sd"), [(0.05, 0.0), (0.05, 0.5), (0.0, 0.5), (0.0, 0.0)])
def test_the_interval_covers_seeds_and_puzzles_alike(seed_sd, puzzle_sd):
    rng, holds = np.random.default_rng(1), []
    for _ in range(400):
        d = rng.normal(0, seed_sd, (6, 1)) + rng.normal(0, puzzle_sd, 60) + rng.normal(0, 0.5, (6, 60))
        effect = over_seeds_and_puzzles(d)
        holds.append(effect.low <= 0 <= effect.high)
    assert 0.92 < np.mean(holds) < 0.999


@pytest.mark.parametrize("flipped", [0, 1, 9])
def test_mcnemar_counts_and_is_statsmodels_exact_test(flipped):
    baseline = np.arange(40) < 20
    arm = baseline.copy()
    arm[20 : 20 + flipped] = True
    arm[:2] = flipped == 1  # two are lost, unless one alone is gained
    test, same = mcnemar(np.stack([arm, arm]), np.stack([baseline, arm]))
    assert (test.gained, test.lost) == (flipped, 0 if flipped == 1 else 2)
    table = np.array([[0, test.gained], [test.lost, 0]])
    assert test.p == pytest.approx(reference_mcnemar(table, exact=True).pvalue)
    assert same == (0, 0, 1)


def test_interquartile_mean_probability_of_improvement_and_auc():
    assert iqm(np.array([0.0, 0.4, 0.5, 0.5, 0.6, 0.7, 0.7, 9.0])) == pytest.approx((0.5 + 0.5 + 0.6 + 0.7) / 4)
    arm, baseline = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])
    assert probability_of_improvement(arm, baseline) == pytest.approx((3 + 0 + 0.5 + 1) / 6)
    assert auc(np.array([1.0, 2.0, 3.0, 2.0, 0.0]), np.array([1, 1, 1, 0, 0], bool)) == pytest.approx(4.5 / 6)
    assert math.isnan(auc(np.array([1.0]), np.array([True])))
    rng = np.random.default_rng(0)
    for n in (2, 9, 100):
        scores, positives = rng.integers(0, n, n).astype(float), np.arange(n) % 3 == 0  # many are equal
        statistic = mannwhitneyu(scores[positives], scores[~positives]).statistic
        assert auc(scores, positives) == statistic / (positives.sum() * (~positives).sum())

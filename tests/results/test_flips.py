"""Sign-flip tests and corrections against enumeration and statsmodels; what may be looked at again and again."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from results.family import holm_across, judge
from results.flips import max_t, sign_flip_p
from results.measure import Measured, Place
from results.pairs import Pair, Pairing
from results.planning import detectable, detectable_from, seeds_needed, seeds_needed_after_looks, upper_sd
from results.sequential import always_valid_p

DIFFERENCES = np.array([0.02, 0.05, -0.01, 0.03, 0.04, 0.01])


def test_sign_flip_p_is_the_enumeration():
    flips = np.array(list(itertools.product([1, -1], repeat=6)))
    means = np.abs((flips * DIFFERENCES).mean(axis=1))
    assert sign_flip_p(DIFFERENCES) == (means >= abs(DIFFERENCES.mean()) - 1e-12).mean()
    assert sign_flip_p(np.zeros(6)) == 1


def test_five_pairs_can_never_reach_five_percent():
    assert sign_flip_p(np.full(5, 0.1) + np.arange(5) * 1e-3) == 0.0625
    assert sign_flip_p(np.full(6, 0.1) + np.arange(6) * 1e-3) == 0.03125


def test_many_seeds_are_drawn_and_agree_with_a_t_test():
    differences = np.random.default_rng(0).normal(0.01, 0.03, size=60)
    assert sign_flip_p(differences) == pytest.approx(ttest_1samp(differences, 0).pvalue, abs=0.02)
    assert sign_flip_p(differences) == sign_flip_p(differences)
    assert sign_flip_p(np.full(60, 0.1)) == 1 / 4097


def test_max_t_is_the_step_down_enumeration():
    rng = np.random.default_rng(0)
    d = rng.normal([[0.0], [0.5], [1.5]], 1, (3, 8))
    flips = np.array(list(itertools.product([1, -1], repeat=8)))

    def t(x):
        return np.abs(x.mean(axis=-1)) / x.std(axis=-1, ddof=1)

    found, flipped = t(d), t(flips[:, None] * d)  # [signals], [flips, signals]
    expected, left, highest = np.empty(3), [0, 1, 2], 0.0
    while left:
        best = max(left, key=lambda signal: found[signal])
        reached = flipped[:, left].max(axis=1) >= found[best] - 1e-12
        highest = max(highest, reached.mean())
        expected[best] = highest
        left.remove(best)
    assert max_t(d) == pytest.approx(expected)


def test_signals_that_say_the_same_cost_nothing_and_others_do():
    d = np.random.default_rng(0).normal(0.5, 1, 9)
    alone = sign_flip_p(d)
    assert max_t(np.stack([d, 2 * d, -d])) == pytest.approx([alone] * 3)
    other = np.random.default_rng(1).normal(0, 1, (4, 9))
    assert max_t(np.stack([d, *other]))[0] > alone


def test_a_larger_error_than_the_one_over_seeds_raises_p():
    d = np.random.default_rng(0).normal(1, 1, (2, 10))
    over_seeds = d.std(axis=1, ddof=1) / math.sqrt(10)
    assert max_t(d, over_seeds) == pytest.approx(max_t(d))
    assert max_t(d, np.full(2, np.nan)) == pytest.approx(max_t(d))
    assert (max_t(d, 3 * over_seeds) > max_t(d)).all()


def test_across_places_with_one_signal_it_is_holms_correction():
    p = np.random.default_rng(0).random(7) ** 4
    assert np.ravel(holm_across([[one] for one in p], 7)) == pytest.approx(multipletests(p, method="holm")[1])


def test_a_place_weighs_on_the_others_until_all_its_signals_are_found():
    corrected = holm_across([[0.001, 0.6], [0.03]], 2)
    assert corrected == [[0.002, 0.6], [0.06]]  # with 0.6 in a place of its own: (0.002, 0.06, 0.6)
    assert holm_across([[0.001, 0.01], [0.03]], 2) == [[0.002, 0.02], [0.03]]
    assert holm_across([[], [0.03]], 3) == [[], [0.09]]  # a place that has not ended yet weighs, too


def test_family_wise_error_is_held_when_one_place_has_a_real_signal():
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(400):
        d = rng.normal(0, 1, (2, 3, 8))
        d[0, 0] += 5
        corrected = holm_across([max_t(place).tolist() for place in d], 2)
        wrong += min(*corrected[0][1:], *corrected[1]) < 0.05
    assert wrong / 400 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_the_always_valid_p_is_its_formula():
    assert always_valid_p(np.full(10, 0.02), 0.02, 10) == pytest.approx(0.035, abs=5e-4)
    assert always_valid_p(np.full(8, 0.02), 0.02, 8) == pytest.approx(0.09, abs=3e-3)
    assert always_valid_p(np.zeros(5), 0.02, 8) == 1
    assert always_valid_p(np.array([0.02] * 10 + [-0.02] * 5), 0.02, 10) == pytest.approx(
        0.035, abs=5e-4
    )  # the maximum


def test_looking_after_every_seed_is_wrong_in_at_most_five_percent():
    rng = np.random.default_rng(0)
    for draw in (lambda n: rng.normal(0, 0.02, n), lambda n: rng.standard_t(2, n) * 0.02):
        wrong = np.mean([always_valid_p(draw(30), 0.02, 8) < 0.05 for _ in range(1000)])
        assert wrong < 0.05


def test_a_large_family_gets_as_many_flips_as_it_takes():
    """Of 4096 no p is below 1 / 4097, which times 210 is no find."""
    d = np.random.default_rng(0).normal([[4.0], [0.9], [0.0]], 1, (3, 16))
    few, many = max_t(d), max_t(d, comparisons=210)
    assert few[0] == 1 / 4097
    assert many[0] == 2 / 2**16  # all flips: they are no more than would be drawn
    flips = np.array(list(itertools.product([1, -1], repeat=16)))
    size = np.sqrt((d**2).sum(axis=1))
    reached = np.maximum(abs(flips @ d[1]) / size[1], abs(flips @ d[2]) / size[2]) >= abs(d[1].sum()) / size[1] - 1e-9
    assert 0 < few[1] < 20 / 4096
    assert many[1] == reached.mean()
    assert many[2] == few[2]
    long = np.random.default_rng(1).normal(2, 1, (2, 40))
    assert max_t(long, comparisons=210)[0] == 1 / (20 * 210 / 0.05 + 1)
    assert (max_t(long, comparisons=210) == max_t(long, comparisons=210)).all()


def test_one_of_210_places_is_found_with_sixteen_seeds():
    places, found = [], np.random.default_rng(0).normal(0.1, 0.02, 16)
    row = {"role": "signal", "metric": "best", "margin": 0.02, "n_failed": 0, "n_seeds": 16, "n_planned": 16}
    for number in range(210):
        d = found if number == 7 else np.zeros(16)
        runs = [SimpleNamespace(status="done", trial_id=f"{number}-{run}") for run in range(32)]
        pairs = [Pair(seed, *runs[2 * seed : 2 * seed + 2]) for seed in range(16)]
        interval = {"difference": d.mean(), "low": d.mean() - 0.01, "high": d.mean() + 0.01}
        measured = Measured(row | interval, pairs, np.zeros(16), d, np.empty(0), 0.005, 0.005)
        places.append(Place(Pairing("s", "arm", "baseline", f"x={number}", pairs, []), [measured]))
    judge(places, [])
    assert [place.measured[0].row["verdict"] for place in places].count("up") == 1
    assert places[7].measured[0].row["p_adjusted"] == pytest.approx(210 * 2 / 2**16)


def test_seeds_needed_is_where_the_smallest_p_survives_correction():
    assert [seeds_needed(m) for m in (1, 2, 3, 4, 6, 7)] == [6, 7, 7, 8, 8, 9]
    for m in range(1, 20):
        smallest = [2.0 ** (1 - n) * m for n in (seeds_needed(m) - 1, seeds_needed(m))]
        assert smallest[0] > 0.05 > smallest[1]


def test_seeds_needed_after_looks_is_where_the_smallest_always_valid_p_survives_correction():
    assert [seeds_needed_after_looks(m) for m in (1, 6)] == [10, 14]
    s = math.sqrt(0.1 * 6) * 0.02  # of six planned seeds
    for n in (9, 10, 14):  # n equal differences; V = (n - 1) s^2 is where their p is smallest
        sizes = s * math.sqrt((n - 1) / n) * np.array([0.9, 1.0, 1.1])
        p = [always_valid_p(np.full(n, size), 0.02, 6) for size in sizes]
        assert p[1] == min(p) == pytest.approx(math.sqrt(n) * math.exp(-(n - 1) / 2))
        assert (p[1] < 0.05) == (n >= 10)


def test_detectable_difference():
    # six pairs: only six equal signs reject, so 80 % power is P(difference > 0) = 0.8 ** (1 / 6)
    assert norm.cdf(detectable(1.0, 6)) ** 6 == pytest.approx(0.8)
    by_t_test = TTestPower().solve_power(nobs=12, alpha=0.05, power=0.8)
    assert detectable(0.02, 12) == pytest.approx(0.02 * by_t_test, rel=5e-3)
    assert detectable(1.0, 400) == pytest.approx((1.959964 + 0.841621) / 20, rel=0.01)  # the normal formula
    assert detectable(1.0, 5000) == pytest.approx((1.959964 + 0.841621) / 5000**0.5, rel=0.01)  # 2 ** 4999 is no float
    assert detectable(1.0, 8, comparisons=4) > detectable(1.0, 8)
    assert math.isnan(detectable(1.0, 5))
    assert math.isnan(detectable(1.0, 6, comparisons=2))


def test_a_plan_goes_by_the_upper_limit_of_the_sd():
    rng = np.random.default_rng(0)
    below = np.mean([upper_sd(rng.normal(0, 1, 5).std(ddof=1), 5) >= 1.0 for _ in range(2000)])
    assert below == pytest.approx(0.8, abs=0.03)
    d = rng.normal(0, 0.02, 8)
    assert detectable_from(d, 0.0, 8, 1) == pytest.approx(detectable(upper_sd(d.std(ddof=1), 8), 8))
    assert detectable_from(d, 0.01, 8, 1) > detectable_from(d, 0.0, 8, 1)
    assert math.isnan(detectable_from(d[:3], 0.0, 8, 1))
    assert math.isnan(detectable_from(np.zeros(8), 0.0, 8, 1))


def test_a_difference_that_is_no_number_has_no_p_and_costs_the_others_nothing():
    signals = np.array([np.full(8, np.nan), np.full(8, 0.1)])
    p = max_t(signals)
    assert np.isnan(p[0])
    assert p[1] == sign_flip_p(signals[1]) == 2 / 2**8

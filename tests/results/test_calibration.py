"""The statistics on simulated sweeps: a small version of tests/benchmarks/calibration.py."""

import pytest
from calibration import logits_for, rates

from results.stats import detectable

SWEEPS = 400
ERROR = 3 * (0.05 * 0.95 / SWEEPS) ** 0.5  # three standard errors of a share of 5 %


def test_without_an_effect_five_percent_are_found_and_intervals_hold():
    found = rates(SWEEPS, seeds=8)  # the largest level that 8 pairs attain is 12/256
    assert found.p == pytest.approx(12 / 256, abs=ERROR)
    assert found.t_holds == pytest.approx(0.95, abs=ERROR)
    assert 0.85 < found.bca_holds < found.t_holds


def test_holm_keeps_five_percent_over_four_arms():
    found = rates(SWEEPS // 4, seeds=8, arms=4)
    assert found.p_holm < 0.05 + 3 * (0.05 * 0.95 / (SWEEPS // 4)) ** 0.5


@pytest.mark.parametrize("seeds", [6, 8])
def test_a_detectable_effect_is_found_in_four_sweeps_of_five(seeds):
    size = detectable(rates(60, seeds).sd, seeds)
    assert rates(SWEEPS // 2, seeds, effect=logits_for(size)).p == pytest.approx(0.8, abs=0.1)

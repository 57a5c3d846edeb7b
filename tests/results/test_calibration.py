"""What is printed of simulated sweeps: a small version of tests/benchmarks/calibration.py."""

import pytest
from calibration import Scene, rates

SWEEPS = 60


@pytest.mark.parametrize(
    "scene",
    [
        Scene(8, diagnosed=False, interaction=0.5),
        Scene(8, points=3),
        Scene(10, looks=(8,)),
    ],
)
def test_without_an_effect_few_headlines_claim_one_and_intervals_hold(scene):
    found = rates(SWEEPS, scene)
    assert found.headline <= 0.05 + 3 * (0.05 * 0.95 / SWEEPS) ** 0.5
    assert found.holds >= 0.95 - 3 * (0.05 * 0.95 / SWEEPS) ** 0.5


def test_an_effect_is_found():
    found = rates(SWEEPS // 2, Scene(10, effect=0.8))
    assert found.up > 0.7
    assert found.headline > 0.7
    assert found.holds >= 0.95 - 3 * (0.05 * 0.95 / SWEEPS) ** 0.5

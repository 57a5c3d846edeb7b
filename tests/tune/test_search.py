"""Sampled spaces: the same points for every arm and seed, and for whoever asks for more of them."""

import numpy as np
import pytest
from tiny import MULTI, TINY, tiny_sweep, write_spec

from rrm.presets import merge
from tune.search import samples, space_problem
from tune.spec import SpecError, load_sweep

LR = {"optim.lr": {"loguniform": [1e-4, 1e-2]}}


def test_more_samples_and_more_fields_keep_the_first_ones():
    three = list(samples(LR, 3))
    assert list(samples(LR, 5))[:3] == three
    wider = list(samples({"perturb.sigma": {"uniform": [0, 1]}} | LR, 3))
    assert [point["optim.lr"] for point in wider] == [point["optim.lr"] for point in three]
    assert len({point["optim.lr"] for point in three}) == 3


def test_numbers_are_from_their_distribution():
    drawn = np.array([point["optim.lr"] for point in samples(LR, 2000)])
    assert drawn.min() >= 1e-4
    assert drawn.max() <= 1e-2
    quarters = np.quantile(np.log10(drawn), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quarters, [-3.5, -3, -2.5], atol=0.1)
    whole = [point["n"] for point in samples({"n": {"randint": [1, 4]}}, 300)]
    assert all(type(value) is int for value in whole)
    assert {whole.count(value) > 60 for value in (1, 2, 3)} == {True}
    chosen = [point["where"] for point in samples({"where": {"choice": [["z_H"], ["z_L"]]}}, 50)]
    assert all(value in (["z_H"], ["z_L"]) for value in chosen)


def test_a_point_that_is_drawn_twice_is_one(tmp_path):
    """It would stand for more seeds than there are."""
    search = {"optim.lr": {"choice": [1e-3, 1e-2]}}
    points = {tuple(point.values()) for point in samples(search, 9)}
    cells = load_sweep(write_spec(tmp_path, tiny_sweep(search=search, num_samples=9))).cells
    assert len(points) == 2
    assert len(cells) == len({(cell.arm, cell.point_name, cell.seed) for cell in cells}) == 2 * 2 * 2


def test_a_rounded_number_stays_in_its_space():
    drawn = [point["optim.ema_rate"] for point in samples({"optim.ema_rate": {"uniform": [0.99991, 0.99999]}}, 200)]
    assert all(0.99991 <= value <= 0.99999 for value in drawn)


def test_every_arm_and_seed_has_the_same_points(tmp_path):
    search = LR | {"perturb.sigma": {"loguniform": [0.01, 1.0]}}
    base = merge(TINY, {"perturb": {"rollouts": 2}})
    arms = {"baseline": {"objective": "clean"}, "multi2": {"objective": "multi_perturbed_ce"}}
    raw = tiny_sweep(search=search, num_samples=3, grid={"train.batch_size": [2, 4]}) | {"base": base, "arms": arms}
    sweep = load_sweep(write_spec(tmp_path, raw))
    points = {arm: [cell.point for cell in sweep.cells if (cell.arm, cell.seed) == (arm, 0)] for arm in arms}
    assert points["baseline"] == points["multi2"]
    assert len(points["baseline"]) == 2 * 3
    assert list(points["baseline"][0]) == ["train.batch_size", "optim.lr", "perturb.sigma"]
    for cell in sweep.cells:
        assert cell.config.optim.lr == cell.point["optim.lr"]
        assert cell.config.train.batch_size == cell.point["train.batch_size"]
    more = load_sweep(write_spec(tmp_path, raw | {"num_samples": 4}))
    assert sweep.trials.keys() < more.trials.keys()
    only_noise = raw | {"search": {"perturb.sigma": search["perturb.sigma"]}, "grid": {}}
    trials = load_sweep(write_spec(tmp_path, only_noise)).trials
    assert [cell.arm for cell in trials.values()].count("baseline") == 2  # one a seed: a clean arm has no sigma


@pytest.mark.parametrize(
    ("space", "problem"),
    [
        (3, "3 is no search space; give one of choice, uniform"),
        ({"loguniform": [1, 2], "uniform": [1, 2]}, "is no search space"),
        ({"logunifrm": [1, 2]}, "'logunifrm' is no distribution; give one of choice, uniform"),
        ({"loguniform": 0.1}, "0.1 is no list; give what ray.tune.loguniform takes, as a list"),
        ({"choice": []}, "[] is no list"),
        ({"uniform": [2, 1]}, "uniform of [2, 1] is empty; give [low, high]"),
        ({"uniform": ["a", 1]}, "uniform of ['a', 1] is empty"),
        ({"loguniform": [0, 1]}, "loguniform does not take [0, 1] (LogUniform requires a lower bound greater than 0"),
        (
            {"quniform": [0, 1]},
            "quniform does not take [0, 1] (quniform() missing 1 required positional argument: 'q')",
        ),
        ({"quniform": [0, 1, 0]}, "quniform does not take [0, 1, 0] (division by zero); see ray.tune.quniform"),
    ],
)
def test_a_space_that_is_none_is_named(space, problem):
    assert problem in str(space_problem(space))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"search": LR}, "num_samples: missing; say how many points to draw from `search`"),
        ({"num_samples": 2}, "num_samples: 2 without `search`, which says what to draw from; remove it or give one"),
        ({"search": {"optim.lrr": {"uniform": [0, 1]}}}, "search.optim.lrr: no such field (did you mean lr?)"),
        ({"search": {"optim.lr": {"unifrm": [0, 1]}}}, "search.optim.lr: 'unifrm' is no distribution"),
        ({"search": LR, "grid": {"optim.lr": [1e-3]}}, "search.optim.lr: set by grid.optim.lr too; remove one of"),
        (
            {"search": {"perturb.sigma": {"uniform": [0, 1]}}},
            "search.perturb.sigma: {'uniform': [0, 1]} is crossed with every arm, but arms.multi2 sets perturb.sigma",
        ),
        ({"search": {"optim.lr": {"uniform": [-2, -1]}}, "num_samples": 1}, " is not above 0; give more than 0"),
        ({"scheduler": "ashe"}, "scheduler.name: 'ashe' is not one of 'asha' or 'median' (did you mean asha?)"),
        (
            {"scheduler": {"name": "median", "reduction_factor": 2}},
            "scheduler.reduction_factor: 2 with median, which has none; use asha, or remove it",
        ),
        ({"scheduler": {"name": "asha", "grace_steps": 0}}, "scheduler.grace_steps: 0 is below 1; give 1 or more"),
        (
            {"scheduler": {"name": "asha", "grace_steps": 12}},
            "scheduler.grace_steps: 12 is no less than the 12 steps of the longest trial, so that nothing",
        ),
    ],
)
def test_what_is_wrong_with_a_search_is_named(tmp_path, changes, problem):
    with pytest.raises(SpecError) as error:
        load_sweep(write_spec(tmp_path, tiny_sweep(arms={"multi2": MULTI}, **changes)))
    assert problem in str(error.value)

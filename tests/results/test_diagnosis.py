"""Functions of the tables of a diagnosis, held to tables whose answer is planted."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap

from results import diagnosis
from results.bootstrap import auc_with_interval, resampled_auc
from results.diagnosis_schema import DIAGNOSIS_SCHEMAS
from results.schema import TABLE_SCHEMAS
from results.stats import auc
from results.types import frame


def diagnosed(n: int, **columns) -> pd.DataFrame:
    """A diagnosis of n puzzles: all solved, settled and alike, but for `columns`."""
    rows = {"sweep": "s", "trial_id": "t", "step": 8, "example": np.arange(n), "act_steps": 4, "sub_updates": 2}
    rows |= {"solved": True, "settled": True, "late_drift": 1.0, "lambda_1": 0.0, "q_halt": 1.0, "halt_step": 2.0}
    rows |= {"token_accuracy": 1.0, "rating": math.nan, "givens": math.nan, "path_length": math.nan, "depth": math.nan}
    found = pd.DataFrame(rows).assign(**columns)
    found["exponents"] = [[value, value - 1] for value in found.lambda_1]
    return found.assign(late_exponents=found.exponents)


def test_the_four_cells_have_their_counts_and_medians():
    rows = diagnosed(
        5,
        solved=[True, True, True, False, False],
        settled=[True, True, False, False, False],
        lambda_1=[-0.3, -0.1, 0.0, 0.2, 0.4],
        halt_step=[2.0, 4.0, math.nan, math.nan, math.nan],
        givens=[9, 7, 5, 3, 3],
    )
    cells = diagnosis.two_by_two(rows).set_index(["settled", "solved"])
    assert cells.n.to_dict() == {(True, True): 2, (True, False): 0, (False, True): 1, (False, False): 2}
    assert cells.loc[(True, True), ["share", "lambda_1", "lambda_k", "halt_step", "givens"]].tolist() == pytest.approx(
        [0.4, -0.2, -1.2, 3.0, 8.0]
    )
    assert math.isnan(cells.lambda_1[True, False])
    assert math.isnan(cells.halt_step[False, False])
    two = pd.concat([rows, rows.assign(trial_id="u", solved=True)])
    assert diagnosis.two_by_two(two).groupby("trial_id").n.sum().to_dict() == {"t": 5, "u": 5}


def test_the_sweep_over_thresholds_and_the_failure_that_drifts_least():
    rows = diagnosed(20, late_drift=np.arange(1.0, 21), solved=np.arange(20) < 15)
    (least,) = diagnosis.smallest_failure(rows).to_dict("records")
    assert [least[name] for name in ("late_drift", "below", "solved_median", "solved_max")] == [16.0, 1.0, 8.0, 15.0]
    below = diagnosis.thresholds(rows).set_index("percentile")
    assert below.loc[75, ["settled", "settled_solved", "settled_failed"]].tolist() == pytest.approx([0.75, 1.0, 0.0])
    assert below.loc[90, "settled_failed"] == pytest.approx(3 / 5)
    assert not len(diagnosis.smallest_failure(rows.assign(solved=True)))


def test_an_aucs_resamples_are_what_the_plain_auc_says_of_each():
    rng = np.random.default_rng(0)
    scores, solved = rng.integers(0, 6, 30).astype(float), rng.random(30) < 0.5
    counts = rng.multinomial(30, np.full(30, 1 / 30), size=40)
    counts[0] = 30 * np.eye(30, dtype=int)[0]  # one kind alone
    drawn = [np.repeat(np.arange(30), row) for row in counts]
    plain = [auc(scores[rows], solved[rows]) for rows in drawn]
    np.testing.assert_allclose(resampled_auc(scores, solved, counts), plain, atol=1e-12)
    assert math.isnan(plain[0])


def test_an_aucs_interval_is_scipys():
    rng = np.random.default_rng(1)
    solved = rng.random(150) < 0.6
    scores = rng.normal(size=150) + solved
    found = auc_with_interval(scores, solved, 4000)
    theirs = bootstrap(
        (scores, solved),
        lambda s, p: auc(s, p.astype(bool)),
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=rng,
    ).confidence_interval
    assert found.auc == auc(scores, solved)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)
    assert all(math.isnan(value) for value in auc_with_interval(scores, np.ones(150, bool)))
    assert auc_with_interval(scores, solved, 4000) == found  # the same draws each time
    # The same puzzles under ten seeds are no more puzzles.
    often = auc_with_interval(np.tile(scores, 10), np.tile(solved, 10), 4000, np.tile(np.arange(len(scores)), 10))
    assert often == pytest.approx(found)


def test_each_measure_and_window_has_its_auc():
    solved = np.arange(8) < 4
    rows = diagnosed(8, solved=solved, lambda_1=np.where(solved, -1.0, 1.0), late_drift=np.where(solved, 2.0, 1.0))
    windows = pd.concat(
        rows[["sweep", "trial_id", "step", "example"]].assign(window=window, lambda_1=values, drift=1.0)
        for window, values in (("quarter 1", 0.0), ("quarter 4", np.where(solved, 0.0, 1.0)))
    )
    found = diagnosis.auc(rows, windows).set_index(["measure", "window"]).auc
    assert found["-lambda_1", "all"] == found["-lambda_2", "all"] == found["-spectral_mean", "all"] == 1
    assert found["-late_drift", "all"] == 0
    assert found["q_halt", "all"] == found["-lambda_1", "quarter 1"] == found["-drift", "quarter 4"] == 0.5
    assert found["-lambda_1", "quarter 4"] == found["-positive_sum", "all"] == 1


def test_what_lambda_1_says_beyond_drift_and_beyond_difficulty():
    """Planted: lambda_1 tells the failures, whatever their drift; or lambda_1 is difficulty and nothing else."""
    rng = np.random.default_rng(0)
    drift, lambda_1 = rng.random(400), rng.random(400)
    rows = diagnosed(400, late_drift=drift, lambda_1=lambda_1, solved=lambda_1 < 0.6, settled=drift < 0.5)
    deciles = diagnosis.by_decile(rows)
    assert deciles.n.sum() == (drift >= 0.5).sum()
    assert (deciles.drift_from[1:].to_numpy() > deciles.drift_to[:-1].to_numpy()).all()
    assert (deciles.auc == 1).all()
    blind = diagnosis.by_decile(
        rows.assign(lambda_1=-drift, exponents=[[-x] for x in drift], solved=rng.random(400) < 0.5)
    )
    assert abs(blind.auc.mean() - 0.5) < 0.1

    level = rng.integers(1, 6, 2000)
    solved = rng.random(2000) < 1 - level / 6
    hard = diagnosed(2000, rating=level.astype(float), lambda_1=level + 0.1 * rng.normal(size=2000), solved=solved)
    assert diagnosis.auc(hard, measures=["-lambda_1"]).auc.item() > 0.7
    bins = diagnosis.by_difficulty(hard)
    assert bins.measure.unique().tolist() == ["rating"]
    one_level = [row for row in bins.itertuples() if row.difficulty in (1, 2, 3, 4, 5)]
    assert len(one_level) >= 2
    assert all(row.n_solved == solved[level == row.difficulty].sum() for row in one_level)
    assert all(abs(row.auc - 0.5) < 0.08 for row in one_level)
    assert not len(diagnosis.by_difficulty(hard.assign(rating=3.0)))


def test_difficulty_is_the_rating_else_the_givens_or_the_length_of_the_path():
    """Of mazes by any outcome: no longer path is answered exactly, and the longest two kinds are one bin."""
    length = 4 + np.arange(200) % 4
    rows = diagnosed(200, path_length=1.0 * length, solved=length < 6, valid=length < 7, settled=length % 2 == 0)
    rows["lambda_1"] = 0.1 * length
    bins = diagnosis.by_difficulty(rows).set_index("difficulty")
    assert bins.measure.unique().tolist() == ["path_length"]
    assert bins.n_solved.to_dict() == {4: 50, 5: 50, 6.5: 0}
    assert bins.lambda_1.to_dict() == pytest.approx({4: 0.4, 5: 0.5, 6.5: 0.65})
    assert bins.settled.to_dict() == {4: 1, 5: 0, 6.5: 0.5}
    valid = diagnosis.by_difficulty(rows, outcome="valid")
    assert valid.n_solved.tolist() == [50, 50, 50]
    cells = diagnosis.two_by_two(rows).set_index(["settled", "solved"])
    assert cells.path_length.to_dict() == {(True, True): 4, (True, False): 6, (False, True): 5, (False, False): 7}
    rated = rows.assign(givens=30.0 + rows.example % 3, rating=1.0 * (rows.example < 100))
    assert diagnosis.by_difficulty(rated).measure.unique().tolist() == ["rating"]
    assert diagnosis.by_difficulty(rated.assign(rating=math.nan)).measure.unique().tolist() == ["givens"]


def test_the_exponents_as_the_run_goes_on():
    """Of two diagnoses, each with its own windows: the failed grow late, the solved at no time."""
    rows = diagnosed(6, solved=np.arange(6) < 4)
    both = pd.concat([rows, rows.assign(trial_id="u", solved=True)], ignore_index=True)
    key = both[["sweep", "trial_id", "step", "example"]]
    late = np.where(both.solved, -0.1 * both.example, 0.2 * both.example)
    windows = pd.concat(
        key.assign(window=name, lambda_1=values, first_step=first, last_step=last)
        for name, values, first, last in (("quarter 1", 0.0, 1, 4), ("quarter 4", late, 13, 16))
    )
    found = diagnosis.by_window(windows, both).set_index(["trial_id", "window"])
    assert found.index.tolist() == [(trial, name) for name in ("quarter 1", "quarter 4") for trial in ("t", "u")]
    steps = found[["first_step", "last_step"]].loc["t"]
    assert steps.to_dict("index") == {
        "quarter 1": {"first_step": 1, "last_step": 4},
        "quarter 4": {"first_step": 13, "last_step": 16},
    }
    solved, failed = found.lambda_1_solved, found.lambda_1_failed
    assert (solved["t", "quarter 1"], failed["t", "quarter 1"]) == (0, 0)
    assert (solved["t", "quarter 4"], failed["t", "quarter 4"]) == pytest.approx((-0.15, 0.9))
    assert solved["u", "quarter 4"] == pytest.approx(-0.25)
    assert math.isnan(failed["u", "quarter 4"])


def far(rows: pd.DataFrame, since: list[float], settled: list[bool]) -> pd.DataFrame:
    return rows.assign(depth=10, solved_from=since, far_settled=settled)


def test_the_failed_escape_move_on_or_settle_wrong():
    rows = diagnosed(6, solved=[False, False, False, False, True, True])
    rows = far(rows, [5, 8, math.nan, math.nan, 2, math.nan], [True, False, True, False, True, True])
    (fate,) = diagnosis.fates(rows).to_dict("records")
    names = ("failed", "escaped", "moving", "settled_wrong", "lost")
    assert [fate[name] for name in names] == [4, 2, 1, 1, 1]
    p = 2 / (1 + 4 + 6 + 6)  # ACT steps that each was tried for, from the fifth on
    assert fate["half_life"] == pytest.approx(math.log(2) / -math.log(1 - p))
    assert fate["low"] < fate["half_life"] < fate["high"]
    none = diagnosis.fates(far(rows, [math.nan] * 6, [True] * 6)).iloc[0]
    assert math.isinf(none.half_life)
    assert math.isinf(none.high)
    assert none.low == pytest.approx(math.log(2) / -math.log(0.025 ** (1 / 24)))  # none in 24 tries
    assert not len(diagnosis.fates(diagnosed(3)))


def test_a_restart_frees_puzzles_that_depend_on_their_start():
    rows = diagnosed(3, solved=[False, False, True], valid=[True, False, True], shortest=[True, False, True])
    solves = [[True, True, True, False], [False] * 4]
    table = pd.DataFrame(
        {
            "sweep": "s",
            "trial_id": "t",
            "step": 8,
            "example": i,
            "sigma": 0.1,
            "restart": r,
            "solved": ok,
            "valid": True,
        }
        for i, of_puzzle in enumerate(solves)
        for r, ok in enumerate(of_puzzle)
    )
    (found,) = diagnosis.restarts(table, rows).to_dict("records")
    assert [found[name] for name in ("puzzles", "restarts", "share", "some", "all")] == [2, 4, 0.375, 0.5, 0.0]
    assert found["low"] < 0.5 < found["high"]
    (valid,) = diagnosis.restarts(table, rows, outcome="valid").to_dict("records")  # the first did not fail by that
    assert [valid[name] for name in ("puzzles", "share", "all")] == [1, 1.0, 1.0]


def test_an_estimate_that_changes_says_by_how_much():
    usual = np.array([0.0, 1.0, 2.0, 3.0])
    table = pd.DataFrame({"variation": "x", "lambda_1": usual + np.array([0.1, -0.3, 0, 0]), "usual_lambda_1": usual})
    (found,) = diagnosis.robustness(table).to_dict("records")
    assert [found[name] for name in ("largest", "mean", "order")] == pytest.approx([0.3, 0.1, 1.0])


def test_an_outcome_that_is_none_is_refused():
    with pytest.raises(ValueError, match="outcome: 'exact' is none; give one of solved, valid, shortest"):
        diagnosis.two_by_two(diagnosed(2), outcome="exact")


def test_of_no_diagnoses_nothing_is_said():
    tables = {name: frame(TABLE_SCHEMAS[name].empty_table()) for name in DIAGNOSIS_SCHEMAS}
    rows, windows = tables["diagnostics"], tables["windows"]
    for say in (
        diagnosis.two_by_two,
        diagnosis.thresholds,
        diagnosis.by_decile,
        diagnosis.by_difficulty,
        diagnosis.fates,
    ):
        assert not len(say(rows))
    assert not len(diagnosis.auc(rows, windows))
    assert not len(diagnosis.by_window(windows, rows))
    assert not len(diagnosis.escape(tables["depths"], rows))
    assert not len(diagnosis.restarts(tables["restarts"], rows))
    assert not len(diagnosis.robustness(tables["robustness"]))

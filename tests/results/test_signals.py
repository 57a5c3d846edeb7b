"""The headline: it never contradicts a row, nothing drops out without a word, and no look is free."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from simulated import sweep_of
from statsmodels.stats.multitest import multipletests

from results.comparison import compare, compare_by_seed, differences
from results.looks import Look, as_they_came, complete_looks, earlier_looks
from results.pairs import ComparisonError, Pair, Pairing
from results.sequential import always_valid_p
from results.signals import short_verdict, verdicts

BASE = {"final": 0.6, "best": 0.62, "perturbed": {0.1: 0.5, 0.3: 0.4}, "modes": 3.0}


def judged(arms, **how):
    """The comparison of arms with BASE, and its verdicts as named tuples by (arm, point)."""
    comparison = compare(*sweep_of({"baseline": BASE, **arms}, **how), baseline="baseline")
    return comparison, {(row.arm, row.point): row for row in verdicts(comparison).itertuples()}


def row_of(comparison, metric, sigma=0.0, arm="arm", point=""):
    of = (comparison.metric == metric) & (comparison.sigma == sigma) & (comparison.arm == arm)
    (row,) = comparison[of & (comparison.point == point) & comparison.trained_depth].itertuples()
    return row


def test_clean_accuracy_that_rises_is_in_the_headline():
    comparison, found = judged({"arm": BASE | {"final": 0.702, "best": 0.722}})
    assert row_of(comparison, "best").verdict == row_of(comparison, "final").verdict == "up"
    row = found["arm", ""]
    assert (row.verdict, row.best, row.final, row.perturbed) == ("helps", "up", "up", "level")
    assert row.headline.startswith("clean accuracy (best) +9.4 ±2.3 points, p = 0.008, at 1.0x the compute: helps; ")


def test_clean_accuracy_that_falls_a_little_in_every_seed_is_in_the_headline():
    comparison, found = judged({"arm": BASE | {"final": 0.58, "best": 0.60}}, sd=0.002)
    assert row_of(comparison, "best").verdict == "down"
    assert found["arm", ""].verdict == "harms"
    assert "helps" not in found["arm", ""].headline


def test_an_arm_that_loses_at_equal_compute_does_not_help_on_all_counts():
    arm = BASE | {"final": 0.65, "perturbed": {0.1: 0.6, 0.3: 0.5}, "modes": 1.5, "equal": 0.4, "flops": 2}
    _, found = judged({"arm": arm})
    row = found["arm", ""]
    assert (row.perturbed, row.positive_modes, row.equal_compute) == ("up", "down", "down")
    assert row.verdict == "mixed"
    assert "clean accuracy at equal compute down -19.9" in row.headline
    assert "positive modes fewer -1.6" in row.headline
    assert "at 2.0x the compute" in row.headline


def test_positive_modes_are_level_within_half_a_mode():
    """They had no margin, so that an arm that was diagnosed could never be level."""
    same = {"final": [0.6] * 8, "perturbed": {0.1: [0.5] * 8}, "modes": 3.0}
    for modes, verdict in ((3.0, "level"), (4.0, "up")):
        comparison = compare(*sweep_of({"baseline": same, "arm": same | {"modes": modes}}, n=1000), baseline="baseline")
        row, (said,) = row_of(comparison, "positive_modes"), verdicts(comparison).itertuples()
        assert (row.verdict, row.margin, said.verdict) == (verdict, 0.5, "level" if verdict == "level" else "harms")
        assert set(comparison.margin[comparison.unit == "share"]) == {0.02}


@pytest.mark.parametrize("seed", range(3))
def test_a_headline_says_what_its_rows_say(seed):
    """Whatever the arms do: it claims something exactly if a row does, and names every row that does."""
    rng = np.random.default_rng(seed)
    arms = {}
    for name in "abc":
        shift = rng.normal(0, 0.06, 5)
        arms[name] = {"final": 0.6 + shift[0], "best": 0.62 + shift[1], "equal": 0.6 + shift[2], "flops": 2}
        arms[name] |= {"perturbed": {0.1: 0.5 + shift[3], 0.3: 0.4 + shift[3]}, "modes": 3.0 * np.exp(5 * shift[4])}
    comparison, found = judged(arms)
    for (arm, _), row in found.items():
        mine = comparison[(comparison.arm == arm) & (comparison.role == "signal")]
        better = (mine.verdict == np.where(mine.metric == "positive_modes", "down", "up")).any()
        worse = (mine.verdict == np.where(mine.metric == "positive_modes", "up", "down")).any()
        expected = {(True, True): "mixed", (True, False): "helps", (False, True): "harms"}.get((better, worse))
        assert row.verdict == expected or (expected is None and row.verdict in ("level", "cannot tell"))
        assert (
            row.headline.count(" up ")
            + row.headline.count(" down ")
            + row.headline.count(" fewer ")
            + row.headline.count(" more ")
            == (mine.verdict.isin(["up", "down"]) & ~mine.primary).sum()
        )
        word, named = short_verdict(row), rf"({'|'.join(['best', 'final', 'equal cost', 'perturbed', 'modes'])})"
        (own,) = mine.verdict[mine.primary]
        claims = {"up": ("helps", "mixed"), "down": ("harms", "mixed")}.get(own, (own,))
        assert word in claims or re.fullmatch(rf"(level; )?[a-z ]+ \({named}( [0-9.]+)?( \+\d)?\)", word), word
    assert {row.verdict for row in found.values()} & {"helps", "harms", "mixed"}


def test_another_training_depth_is_compared_at_its_own():
    """halt_max_steps 8 against 4: the pair is there, with a third arm and without."""
    for arms in ({"deep": BASE | {"final": 0.75, "depth": 8}}, {"deep": BASE | {"depth": 8}, "third": BASE}):
        comparison, found = judged(arms)
        row = row_of(comparison, "final", arm="deep")
        assert (row.depth, row.baseline_depth, row.n_seeds) == (8, 4, 8)
        assert set(found) == {(arm, "") for arm in arms}


def test_what_is_not_there_is_an_error_by_name():
    trials, evals, _ = sweep_of({"baseline": BASE, "arm": BASE}, seeds=2)
    with pytest.raises(
        ComparisonError, match=r"baseline: 'basline' is not an arm of s among these trials; arms: baseline, arm"
    ):
        compare(trials, evals, baseline="basline")
    with pytest.raises(ComparisonError, match="evals: trial arm0 has no clean evaluation on validation"):
        compare(trials, evals[evals.split == "test"], baseline="baseline")
    with pytest.raises(ComparisonError, match="evals: trial arm0 has no clean evaluation on test at step 30"):
        compare(trials, evals[evals.split == "validation"], baseline="baseline")
    with pytest.raises(ComparisonError, match="evals: done trial arm0 of s has none; load its evaluations"):
        compare(trials, evals[evals.trial_id != "arm0"], baseline="baseline")
    with pytest.raises(ComparisonError, match="baseline: there is no sweep 'other' among these trials; sweeps: s"):
        compare(trials, evals, baseline=("other", "baseline"))


def test_every_arm_and_point_has_a_row_whatever_became_of_it():
    changes = {f"failed{seed}": {"status": "failed"} for seed in range(2)}
    changes |= {f"waiting{seed}": {"status": "waiting"} for seed in range(2)}
    changes |= {f"stopped{seed}": {"status": "stopped"} for seed in range(2)}
    changes |= {f"elsewhere{seed}": {"test_digest": "other"} for seed in range(2)}
    arms = dict.fromkeys(("failed", "waiting", "stopped", "elsewhere", "undiagnosed"), BASE)
    arms["undiagnosed"] = {key: value for key, value in BASE.items() if key != "modes"}
    comparison, found = judged(arms, seeds=2, **changes)
    assert {arm: row.verdict for (arm, _), row in found.items()} == {
        "failed": "no pair to compare: 2 of 2 seeds failed",
        "waiting": "interim, 0 of 2 seeds",
        "stopped": "selected: 2 of 2 seeds stopped early",
        "elsewhere": "not comparable: other test puzzles",
        "undiagnosed": "too few seeds (2 of 8)",  # the arms are five
    }
    assert found["waiting", ""].headline == "clean accuracy (best): interim, 0 of 2 seeds"
    modes = row_of(comparison, "positive_modes", arm="undiagnosed")
    assert modes.verdict == "not comparable: measured in 0 of 2 pairs"


def test_an_arm_that_ignores_the_grid_counts_once():
    points = tuple(f"perturb.sigma={10.0**-at:g}" for at in range(6))
    tables = sweep_of(
        {"baseline": BASE, "other": BASE | {"final": 0.75, "best": 0.75, "ignores_grid": True}}, points=points
    )
    comparison = compare(*tables, baseline="baseline")
    best = comparison[comparison.metric == "best"]
    assert len(best) == 6
    assert set(best.comparisons) == {1}
    assert set(best.p_adjusted) == {2 / 256}


def test_a_large_effect_in_every_seed_of_a_grid_is_found():
    """+20.8 points in 10 of 10 seeds at 6 points x 3 sigmas: it was too few seeds."""
    perturbed = {0.1: 0.3, 0.3: 0.25, 1.0: 0.2}
    better = {sigma: (value + 0.208, *[value] * 5) for sigma, value in perturbed.items()}
    points = tuple(f"perturb.sigma={at}" for at in range(6))
    tables = sweep_of(
        {"baseline": {"perturbed": perturbed}, "arm": {"perturbed": better}}, seeds=10, points=points, n=200, sd=0.03
    )
    comparison = compare(*tables, baseline="baseline")
    rows = comparison[(comparison.metric == "perturbed") & (comparison.point == points[0])]
    assert set(rows.verdict) == {"up"}
    assert (rows.p == 2 / 1024).all()
    assert verdicts(comparison).verdict.tolist()[0] == "helps"


def test_exploratory_rows_have_an_interval_and_no_verdict():
    arms = {"arm": BASE | {"final": 0.75, "perturbed": {0.1: 0.9, 0.3: 0.9}}}
    comparison, _ = judged(arms)
    assert row_of(comparison, "final").regressed == "no"
    assert judged(arms, seeds=5)[0].regressed.isna().all()  # too few for a verdict
    assert judged(arms, arm7={"status": "waiting"})[0].regressed.isna().all()
    rows = comparison[comparison.role == "exploratory"]
    assert {"last_k", "perturbed_all", "perturbed_any", "lambda_1"} <= set(rows.metric)
    assert set(rows.verdict) == {"exploratory"}
    assert rows[["p", "p_adjusted", "regressed"]].isna().all(axis=None)
    assert rows.low.notna().any()


def test_a_sweep_underway_has_intervals_and_no_verdict():
    waiting = {f"arm{seed}": {"status": "waiting"} for seed in range(8, 20)}
    comparison, found = judged({"arm": BASE | {"final": 0.8, "best": 0.8}}, seeds=20, **waiting)
    signals = comparison[comparison.role == "signal"]
    assert set(signals.verdict) == {"interim, 8 of 20 seeds"}
    assert signals.low.notna().all()
    assert found["arm", ""].verdict == "interim, 8 of 20 seeds"
    assert found["arm", ""].headline.startswith("clean accuracy (best) +17.2 ±3.")


def test_failed_seeds_count_at_their_worst_and_are_named():
    comparison, found = judged({"arm": BASE | {"final": 0.31, "best": 0.31}}, seeds=10, arm9={"status": "failed"})
    row = row_of(comparison, "final")
    assert (row.n_seeds, row.n_failed, row.failed_seeds.tolist(), row.verdict) == (9, 1, [9], "down")
    by_seed = differences(
        *sweep_of({"baseline": BASE, "arm": BASE | {"final": 0.31, "best": 0.31}}, seeds=10, arm9={"status": "failed"}),
        baseline="baseline",
    )
    final = by_seed[by_seed.metric == "final"]
    assert row.bound < row.difference == pytest.approx(final.difference.mean())
    assert found["arm", ""].verdict == "harms"
    assert "failed: seed 9, -34.9 points with them at their worst" in found["arm", ""].headline


def test_a_gain_that_failed_seeds_could_undo_is_no_gain():
    arm = BASE | {"final": 0.8, "best": 0.8}
    for failed, verdict in (((), "up"), (("arm9",), "cannot tell"), (("baseline9",), "up")):
        comparison, _ = judged({"arm": arm}, seeds=10, **{name: {"status": "failed"} for name in failed})
        row = row_of(comparison, "final")
        assert row.verdict == verdict, failed
    # A baseline that failed could have solved all: nine of ten pairs carry it here, at their worst.
    assert row.bound == pytest.approx(0.9 * row.difference + 0.1 * (0.8 - 1), abs=0.01)


def looked(tables, seeds, looks):
    trials, evals, diagnoses = tables
    mine = trials[trials.seed < seeds]
    compared = compare_by_seed(mine, evals, diagnoses, baseline="baseline", looks=looks)
    return compared, [*looks, *complete_looks(*compared)]


def test_seeds_that_are_added_after_a_look_are_held_to_an_always_valid_p():
    tables = sweep_of({"baseline": BASE, "arm": BASE | {"final": 0.66, "best": 0.68}}, seeds=12)
    first, looks = looked(tables, 8, [])
    assert row_of(first.comparison, "best").p_adjusted < 0.02
    again, same = looked(tables, 8, looks)  # the same seeds again are no new look
    assert row_of(again.comparison, "best").p_adjusted == row_of(first.comparison, "best").p_adjusted
    assert len(same) == 2
    more, _ = looked(tables, 12, looks)
    signals = more.comparison[(more.comparison.role == "signal") & more.comparison.difference.notna()]
    p = []
    for row in signals.itertuples():
        of_row = (more.differences.metric == row.metric) & (more.differences.sigma == row.sigma)
        d = more.differences[of_row & (more.differences.depth == row.depth)].sort_values("seed").difference.to_numpy()
        s2 = 8 * (0.5 if row.metric == "positive_modes" else 0.02) ** 2 / 10
        S, V = np.cumsum(d), np.cumsum(d**2)
        p.append(1 / max(1.0, (np.exp(S**2 / (2 * (s2 + V))) / np.sqrt(1 + V / s2)).max()))
    assert len(p) == 6
    assert signals.p_adjusted.tolist() == pytest.approx(multipletests(p, method="holm")[1].tolist())
    assert set(signals.looks) == {1}
    fresh, _ = looked(tables, 12, [])
    assert row_of(more.comparison, "best").p_adjusted > row_of(fresh.comparison, "best").p_adjusted
    assert "p is for 2 looks" in verdicts(more.comparison).headline[0]


def test_a_look_at_too_few_seeds_for_a_verdict_costs_nothing():
    """At two seeds nothing could be claimed: six are tested as if they were the first. Of twelve the six are a look."""
    tables, looks = sweep_of({"baseline": BASE, "arm": BASE | {"final": 0.7, "best": 0.72}}, seeds=12), []
    said = {}
    for seeds in (2, 6, 12):
        compared, looks = looked(tables, seeds, looks)
        (said[seeds],) = verdicts(compared.comparison).itertuples()
        row = row_of(compared.comparison, "best")
        assert (row.looks, row.seeds_needed) == {2: (0, 6), 6: (0, 6)}.get(seeds, (1, 14))
        assert pd.isna(row.detectable) == (seeds != 6)
    assert said[2].verdict == "too few seeds (2 of 6)"
    assert (said[6].verdict, said[6].p_adjusted) == ("helps", 2 / 2**6)
    assert said[12].verdict == "too few seeds (12 of 14)"  # of six signals none can reach 5 % yet
    assert "power" not in said[12].headline
    assert "p is for 2 looks" in said[12].headline


def test_the_worst_seed_stands_beside_the_mean():
    bests = [0.7] * 7 + [0.3]  # a rare collapse hides in a mean
    tables = sweep_of({"baseline": {"best": [0.62] * 8}, "arm": {"best": bests}})
    comparison = compare(*tables, baseline="baseline")
    row = row_of(comparison, "best")
    assert (row.worst_seed, row.worst_difference) == (7, pytest.approx(-0.32))
    assert "; worst seed 7: -32.0;" in verdicts(comparison).headline[0]


def test_plans_say_nothing_below_four_seeds_nor_of_a_metric_at_its_floor():
    _, few = judged({"arm": BASE}, seeds=3)
    assert "power" not in few["arm", ""].headline
    _, enough = judged({"arm": BASE}, seeds=8)
    assert "8 seeds detect" in enough["arm", ""].headline
    assert "points of clean accuracy (best) with 80 % power" in enough["arm", ""].headline
    floor = {"final": [0.0025 * (seed % 2) for seed in range(8)]}
    comparison = compare(*sweep_of({"baseline": floor, "arm": floor | {"final": [0.0] * 8}}), baseline="baseline")
    assert "power" not in verdicts(comparison).headline[0]


def test_a_primary_metric_leads_the_headline():
    tables = sweep_of({"baseline": BASE, "arm": BASE | {"perturbed": {0.1: 0.5, 0.3: 0.6}}})
    comparison = compare(*tables, baseline="baseline", primary=("perturbed", 0.3), margin=0.05)
    assert comparison.primary.sum() == 1
    assert set(comparison.margin[comparison.unit == "share"]) == {0.05}
    (row,) = verdicts(comparison).itertuples()
    assert (row.metric, row.sigma) == ("perturbed", 0.3)
    assert row.headline.startswith("perturbed success at sigma 0.3 +")
    with pytest.raises(
        ComparisonError, match="primary: 'last_k' is not tested; give one of best, final, equal_compute"
    ):
        compare(*tables, baseline="baseline", primary=("last_k", 0.0))
    absent = compare(*tables, baseline="baseline", primary=("perturbed", 0.7))
    (row,) = verdicts(absent).itertuples()
    assert row.verdict == "helps"  # of the other sigma
    reason = "not comparable: measured in 0 of 8 pairs"
    assert row.headline.startswith(
        f"perturbed success at sigma 0.7 ({reason}), at 1.0x the compute: helps; clean accuracy (final) level "
    )
    assert "; perturbed success at sigma 0.3 up +20.0 " in row.headline
    assert "sigma 0.7" not in row.headline[30:]  # it is not told twice


def test_a_primary_metric_that_was_not_measured_drops_nothing_else():
    arm = BASE | {"final": 0.31, "best": 0.31, "flops": 2}
    tables = sweep_of({"baseline": BASE, "arm": arm}, seeds=10, arm9={"status": "failed"})
    (row,) = verdicts(compare(*tables, baseline="baseline", primary=("perturbed", 0.7))).itertuples()
    assert (row.verdict, row.primary_verdict) == ("harms", "not comparable: measured in 0 of 9 pairs")
    assert "measured in 0 of 9 pairs), at 2.0x the compute: harms; clean accuracy (best) down -3" in row.headline
    assert row.headline.endswith("; failed: seed 9")
    waiting = sweep_of({"baseline": BASE, "arm": arm}, arm7={"status": "waiting"})
    (row,) = verdicts(compare(*waiting, baseline="baseline", primary=("perturbed", 0.7))).itertuples()
    assert row.verdict == "interim, 7 of 8 seeds"
    assert "measured in 0 of 7 pairs), at 2.0x the compute: interim, 7 of 8 seeds" in row.headline


def test_the_verdict_of_the_primary_metric_is_its_own():
    """Of perturbed success, at the sigma that stands there: another sigma is another signal."""
    tables = sweep_of({"baseline": BASE, "arm": BASE | {"perturbed": {0.1: 0.5, 0.3: 0.6}}})
    for sigma, own, said in ((0.1, "level", "helps (perturbed 0.3)"), (0.3, "up", "helps")):
        (row,) = verdicts(compare(*tables, baseline="baseline", primary=("perturbed", sigma))).itertuples()
        assert (row.perturbed, row.verdict, row.rests_on) == ("up", "helps", "perturbed 0.3")
        assert (row.primary_verdict, short_verdict(row)) == (own, said)


def test_a_level_primary_metric_is_called_so_though_another_signal_is_not():
    """The answer line's word stands beside the primary metric's numbers."""
    same = {"final": [0.6] * 8, "best": [0.62] * 8}
    apart = [0.4 + 0.03 * (-1) ** seed for seed in range(8)]
    tables = sweep_of({"baseline": same | {"perturbed": {0.3: 0.4}}, "arm": same | {"perturbed": {0.3: apart}}}, n=1000)
    comparison = compare(*tables, baseline="baseline")
    (row,) = verdicts(comparison).itertuples()
    assert (row.primary_verdict, row.verdict, row.rests_on) == ("level", "cannot tell", "perturbed 0.3")
    assert short_verdict(row) == "level; cannot tell (perturbed 0.3)"
    assert ": level; clean accuracy (final) level " in row.headline
    assert "; cannot tell: perturbed success at sigma 0.3; worst seed" in row.headline
    (other,) = verdicts(compare(*tables, baseline="baseline", primary=("perturbed", 0.3))).itertuples()
    assert (short_verdict(other), other.rests_on) == ("cannot tell", "perturbed 0.3")
    assert ": cannot tell; clean accuracy (best) level" in other.headline
    assert "cannot tell: " not in other.headline  # it opened the sentence


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"primary": []}, r"primary: \[\] is no metric with its sigma; give such as \('best', 0.0\)"),
        ({"primary": "best"}, "primary: 'best' is no metric with its sigma"),
        ({"primary": ("best", "much")}, "primary: 'much' is no sigma; give 0 for the clean run, or one that is"),
        ({"primary": ("perturbed", np.nan)}, "primary: nan is no sigma"),
        ({"baseline": ("s", "baseline", 0.1)}, "is no arm; give its name, or"),
        ({"margin": 0}, "margin: 0 is no share of accuracy; give one such as 0.02"),
        ({"margin": -0.1}, "margin: -0.1 is no share"),
        ({"margin": "2 points"}, "margin: '2 points' is no share"),
    ],
)
def test_what_cannot_be_asked_is_an_error_by_name(how, error):
    with pytest.raises(ComparisonError, match=error):
        compare(*sweep_of({"baseline": BASE, "arm": BASE}, seeds=1), **{"baseline": "baseline"} | how)


def test_a_pair_may_be_a_list():
    tables = sweep_of({"baseline": BASE, "arm": BASE}, seeds=2)
    of_tuples = compare(*tables, baseline=("s", "baseline"), primary=("perturbed", 0.3))
    pd.testing.assert_frame_equal(compare(*tables, baseline=["s", "baseline"], primary=["perturbed", 0.3]), of_tuples)


def test_points_that_one_side_alone_has_have_a_row_with_the_reason():
    tables = sweep_of({"baseline": BASE | {"ignores_grid": False}, "arm": BASE}, points=("x=1", "x=2", "x=3"), seeds=6)
    for arm, at in (("arm", "x=2"), ("baseline", "x=3")):
        gone = (tables[0].arm == arm) & (tables[0].points.str[0] == at)
        tables = (tables[0][~gone], *tables[1:])
    found = verdicts(compare(*tables, baseline="baseline")).set_index("point")
    reason = "not comparable: {} has no trial at this point with these seeds"
    assert found.loc["x=2"].headline == f"clean accuracy (best): {reason.format('arm')}"
    assert found.loc["x=3"].headline == f"clean accuracy (best): {reason.format('baseline')}"
    assert found.loc["x=1"].verdict == "cannot tell"  # one place is compared, and six seeds are enough for one


@pytest.mark.parametrize("lost", ["gone", "unreadable"])
def test_a_run_that_cannot_be_read_is_no_run_to_wait_for(lost):
    better = {"baseline": BASE, "arm": BASE | {"final": 0.8, "best": 0.8}}
    for waits in (False, True):
        changes = {"arm3": {"status": "unreadable"}} | ({"arm5": {"status": "waiting"}} if waits else {})
        trials, *others = sweep_of(better, **changes)
        trials = trials[trials.status != "unreadable"] if lost == "gone" else trials
        comparison = compare(trials, *others, baseline="baseline")
        row = row_of(comparison, "best")
        reason = "incomplete: 1 of 8 seeds unpaired"
        assert row.verdict == ("interim, 6 of 8 seeds" if waits else reason)
        assert (row.n_planned, row.n_seeds, row.unpaired_seeds.tolist()) == (8, 6 if waits else 7, [3])
        assert row.low > 0
        assert comparison.p_adjusted.isna().all()
        assert "; not paired: seed 3, which one side lacks; " in verdicts(comparison).headline[0]


def test_places_with_the_same_runs_do_not_overwrite_each_other():
    """At the one point a seed more is asked for, which the arm has no run of."""
    trials, *others = sweep_of({"baseline": BASE, "arm": BASE | {"ignores_grid": True}}, 9, points=("x=1", "x=2"))
    trials = trials[trials.trial_id != "arm8"]
    trials.loc[trials.trial_id == "baseline8", "points"] = pd.Series([["x=1"]], trials.index[trials.seed == 8])
    found = compare(trials, *others, baseline="baseline")
    best = found[found.metric == "best"].set_index("point")
    assert best.loc["x=1"].verdict == "incomplete: 1 of 9 seeds unpaired"
    assert best.loc["x=2"].p_adjusted > 0
    assert np.isnan(best.loc["x=1"].p_adjusted)


def test_diagnoses_of_other_examples_are_not_compared():
    trials, evals, diagnoses = sweep_of({"baseline": BASE, "arm": BASE})
    mine = diagnoses.trial_id.str.startswith("arm")
    shuffled = diagnoses.sample(frac=1, random_state=0)  # rows have no order of their own
    whole, mixed = (compare(trials, evals, each, baseline="baseline") for each in (diagnoses, shuffled))
    pd.testing.assert_frame_equal(whole, mixed)
    other = diagnoses.assign(example=diagnoses.example + 64 * mine)
    comparison = compare(trials, evals, other, baseline="baseline")
    row = row_of(comparison, "positive_modes")
    assert (row.verdict, pd.isna(row.difference)) == ("not comparable: other examples were diagnosed", True)
    assert row_of(comparison, "lambda_1").verdict == row.verdict


def test_a_run_that_was_not_diagnosed_leaves_the_others_diagnoses_comparable():
    trials, evals, diagnoses = sweep_of({"baseline": BASE, "arm": BASE})
    comparison = compare(trials, evals, diagnoses[diagnoses.trial_id != "arm3"], baseline="baseline")
    assert row_of(comparison, "positive_modes").verdict == "not comparable: measured in 7 of 8 pairs"
    row = row_of(comparison, "lambda_1")
    assert (row.verdict, row.n_seeds) == ("exploratory, 7 of 8 pairs", 7)


def test_a_failed_seed_has_all_its_modes_at_its_worst():
    """Of eight vectors; and where it is not known how many were followed, the row says why it is not tested."""
    arms = {"baseline": BASE | {"modes": 4.0}, "arm": BASE | {"modes": 0.5}}
    tables = sweep_of(arms, seeds=10, arm9={"status": "failed"})
    known = tables[0].assign(config='{"diagnose": {"k": 8}}')
    row = row_of(compare(known, *tables[1:], baseline="baseline"), "positive_modes")
    base = tables[2][tables[2].trial_id == "baseline9"].n_pos.mean()
    assert row.bound == pytest.approx(0.9 * row.difference + 0.1 * (8 - base))
    assert row.p_adjusted > 2 / 2**9  # of nine pairs alone: the tenth speaks against them
    assert (row.verdict, row.n_failed) == ("down", 1)
    unknown = row_of(compare(*tables, baseline="baseline"), "positive_modes")
    assert unknown.verdict == "not tested: 1 of 10 seeds failed, and have no worst case"
    assert np.isnan(unknown.p_adjusted)


def test_a_baseline_of_another_sweep_where_puzzles_agree():
    ours = sweep_of({"arm": BASE | {"final": 0.7, "best": 0.7}, "bad": BASE}, bad0={"test_digest": "other"})
    theirs = sweep_of({"baseline": BASE, "old": BASE}, seeds=10, sweep="other")
    trials, evals, diagnoses = (pd.concat(both, ignore_index=True) for both in zip(ours, theirs, strict=True))
    comparison = compare(trials, evals, diagnoses, baseline=("other", "baseline"))
    found = verdicts(comparison).set_index(["sweep", "arm"])
    assert set(found.index) == {("s", "arm"), ("s", "bad"), ("other", "old")}
    assert found.loc[("s", "arm")].verdict == "helps"
    assert found.loc[("s", "arm")].baseline == "other/baseline"
    assert found.loc[("s", "arm")].n_planned == 8
    assert "not paired: seeds 8, 9, which one side lacks" in found.loc[("s", "arm")].headline
    assert found.loc[("s", "bad")].verdict == "not comparable: other test puzzles"


@pytest.mark.parametrize(("fidelity", "said"), [(0.24, True), (0.95, False), (np.nan, False)])
def test_a_precision_that_drowns_the_noise_is_said_beside_the_effect(fidelity, said):
    trials, evals, *others = sweep_of({"baseline": BASE, "arm": BASE})
    evals["noise_fidelity"] = np.where(evals.trial_id.isin(trials.trial_id[trials.arm == "arm"]), fidelity, np.nan)
    (row,) = verdicts(compare(trials, evals, *others, baseline="baseline")).itertuples()
    assert ("this precision drowns the noise (noise_fidelity 0.24)" in row.headline) is said


def pairing_of(statuses: list[str], arm: str = "arm", point: str = "") -> Pairing:
    """Pairs whose runs end so, with trials of their own."""
    pairs = [
        Pair(
            seed,
            SimpleNamespace(status="done", trial_id=f"b{seed}"),
            SimpleNamespace(status=status, trial_id=f"a{seed}"),
        )
        for seed, status in enumerate(statuses)
    ]
    return Pairing("s", arm, "baseline", point, pairs, [])


def test_after_a_look_failed_pairs_count_from_the_first():
    pairing = pairing_of(["done"] * 10 + ["failed"] * 2)
    before = [Look("arm", "", frozenset((f"b{seed}", f"a{seed}") for seed in range(6)), 0.02, 6, 6)]
    order = as_they_came(before, pairing)
    assert order.tolist() == [10, 11, *range(10)]
    differences = np.array([0.05] * 10 + [-0.2] * 2)
    assert always_valid_p(differences[:10], 0.02, 6) < 0.08
    assert always_valid_p(differences[order], 0.02, 6) > 0.5


def test_a_look_is_of_runs_whatever_their_arm_and_point_are_called():
    look = Look("old name", "sigma=0.1", frozenset({("b0", "a0"), ("b1", "a1")}), 0.02, 2, 2)
    renamed = pairing_of(["done"] * 3, arm="new name", point="sigma=1e-1")
    assert earlier_looks([look, look], renamed) == [look]
    assert earlier_looks([look], pairing_of(["done"] * 2)) == []  # the same pairs: no earlier look

"""The comparison on tables whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from results.comparison import compare
from results.curves import curve, sentences, snapshot
from results.rows import unpack_correct
from results.signals import verdicts

N, ROLLOUTS, SIGMA = 40, 4, 0.3


def evals_of(trial_id: str, curve: list[float], perturbed: float = 0.5, validation: list[float] | None = None):
    """Evaluations every 10 steps: the first `share * N` examples are solved, on test and (by default) on validation."""
    rows = []
    for i, share in enumerate(curve):
        for split, value in (("validation", (validation or curve)[i]), ("test", share)):
            clean = np.arange(N) < round(value * N)
            noisy = np.repeat((np.arange(N) < round(perturbed * N))[:, None], ROLLOUTS, axis=1)
            noisy[: N // 4, 0] = False  # a quarter of the examples is not solved by every rollout
            for sigma, solved in ((0.0, clean[:, None]), (SIGMA, noisy)):
                rows.append(
                    {
                        "sweep": "s",
                        "trial_id": trial_id,
                        "step": 10 * i,
                        "optimizer_steps": 10 * i,
                        "train_sigma": None,
                        "noise_rms_z_H": None,
                        "noise_rms_z_L": None,
                        "act_steps": 80 * i * (4 if trial_id.startswith("multi") else 1),
                        "split": split,
                        "sigma": sigma,
                        "depth": 4,
                        "rollouts": solved.shape[1],
                        "n": N,
                        "exact_accuracy": solved.mean(),
                        "token_accuracy": 0.9,
                        "valid_accuracy": None,
                        "shortest_accuracy": None,
                        "correct": np.packbits(solved).tobytes(),
                        "best_q_correct": np.packbits(solved[:, 0]).tobytes(),
                        "majority_correct": np.packbits(solved[:, -1]).tobytes(),
                    }
                )
    return rows


def trials_of(seeds, arms=("baseline", "multi"), **changes):
    rows = [
        {
            "sweep": "s",
            "arm": arm,
            "points": [""],
            "seed": seed,
            "trial_id": f"{arm}{seed}",
            "model": "hrm",
            "task": "sudoku",
            "objective": "clean" if arm == "baseline" else "multi_perturbed_ce",
            "rollout": "parallel_fixed",
            "rollouts": 1 if arm == "baseline" else 4,
            "parameters": 1000,
            "commit": "c",
            "data_digest": "d",
            "config": "{}",
            "status": "done",
            "reason": None,
            "test_digest": "d",
            "steps": 40,
            "flops_per_step": 80.0 * (4 if arm == "multi" else 1),
            "device_hours": 0.5,
            "train_seconds": 30.0,
            "evaluate_seconds": 30.0,
        }
        | changes.get(f"{arm}{seed}", {})
        for arm in arms
        for seed in seeds
    ]
    return pd.DataFrame(rows)


def two_arms(seeds, gain=0.1, **changes):
    rows = []
    for seed in seeds:
        rows += evals_of(f"baseline{seed}", [0.0, 0.6, 0.5])
        rows += evals_of(f"multi{seed}", [0.0, 0.4, 0.5 + gain + seed * 0.025], perturbed=0.75)
    return trials_of(seeds, **changes), pd.DataFrame(rows)


def metric(comparison, name):
    (row,) = comparison[comparison.metric == name].itertuples()
    return row


def test_enough_seeds_are_paired_by_seed():
    comparison = compare(*two_arms(range(6)), baseline="baseline")
    final = metric(comparison, "final")
    assert (final.arm, final.baseline, final.n_seeds, final.n_examples) == ("multi", "baseline", 6, N)
    assert (final.paired_by, final.verdict) == ("seed", "above baseline")
    assert final.baseline_mean == pytest.approx(0.5)
    assert final.difference == pytest.approx(0.1 + 0.0625)
    assert final.low < final.difference < final.high
    assert final.p == pytest.approx(2 / 64)
    assert final.compute_ratio == 4
    assert (final.collapsed, final.regressed) == (0, "no")


@pytest.mark.parametrize("status", ["stopped", "failed"])
def test_seeds_that_are_left_over_are_no_verdict(status):
    """Whoever is stopped has a low accuracy, whoever diverged none: the pairs that are left are no fair sample."""
    trials, evals = two_arms(range(8), multi3={"status": status}, baseline5={"status": status})
    comparison = compare(trials, evals, baseline="baseline")
    final = metric(comparison, "final")
    assert (final.n_seeds, final.n_left_out, final.regressed) == (6, 2, "cannot tell")
    assert set(comparison.verdict) == {"selected: 2 of 8 seeds failed or stopped early"}
    assert verdicts(comparison).verdict.tolist() == ["selected: 2 of 8 seeds failed or stopped early"]
    assert snapshot(trials, evals).set_index("trial_id").status["multi3"] == status


def test_a_fall_is_a_regression_only_if_all_of_its_interval_is_beyond_the_margin():
    trials = trials_of(range(6))
    for shares, regressed in (
        ([0.65, 0.675, 0.65, 0.7, 0.65, 0.675], "yes"),  # of 0.8, with a margin of two points
        ([0.775, 0.8, 0.75, 0.775, 0.775, 0.8], "cannot tell"),  # below it, perhaps by less
        ([0.8, 0.8, 0.825, 0.8, 0.8, 0.8], "no"),
        ([0.8] * 6, "no"),
        ([0.7] * 6, "yes"),
    ):
        rows = [row for seed in range(6) for row in evals_of(f"baseline{seed}", [0.0, 0.8])]
        rows += [row for seed, share in enumerate(shares) for row in evals_of(f"multi{seed}", [0.0, share])]
        final = metric(compare(trials, pd.DataFrame(rows), baseline="baseline"), "final")
        assert final.regressed == regressed
    assert (final.verdict, final.difference) == ("below baseline", pytest.approx(-0.1))  # six of six, p = 2 / 64
    assert np.isnan(final.low)


def test_a_seed_cannot_count_twice():
    trials, evals = two_arms(range(2))
    twice = trials.assign(points=[["", ""]] * len(trials))
    with pytest.raises(pd.errors.MergeError):
        compare(twice, evals, baseline="baseline")


def test_differences_without_spread_are_no_verdict():
    trials, _ = two_arms(range(6))
    rows = [row for arm in ("baseline", "multi") for seed in range(6) for row in evals_of(f"{arm}{seed}", [0.0, 0.5])]
    comparison = compare(trials, pd.DataFrame(rows), baseline="baseline")
    assert set(comparison.verdict) == {"no difference shown"}
    assert comparison.low.isna().all()


def test_best_is_chosen_on_validation_and_scored_on_test():
    trials, _ = two_arms(range(1))
    rows = evals_of("baseline0", [0.0, 0.9, 0.5], validation=[0.0, 0.5, 0.8])
    rows += evals_of("multi0", [0.0, 0.4, 0.6])
    best = metric(compare(trials, pd.DataFrame(rows), baseline="baseline"), "best")
    assert best.baseline_mean == pytest.approx(0.5)  # step 20 has the best validation; 0.9 was there, but not chosen
    assert best.arm_mean == pytest.approx(0.6)


def test_perturbed_success_by_mean_and_by_all_rollouts():
    comparison = compare(*two_arms(range(6)), baseline="baseline")
    mean, every = metric(comparison, "perturbed"), metric(comparison, "perturbed_all")
    assert mean.sigma == every.sigma == SIGMA
    assert mean.baseline_mean == pytest.approx(0.5 - 0.25 / ROLLOUTS)
    assert every.baseline_mean == pytest.approx(0.5 - 0.25)
    assert every.arm_mean == pytest.approx(0.75 - 0.25)


def test_few_seeds_are_paired_by_example_and_it_says_so():
    comparison = compare(*two_arms(range(2)), baseline="baseline")
    final = metric(comparison, "final")
    assert (final.paired_by, final.verdict) == ("example", "too few seeds (2 of 6)")
    # 4 of 40 examples are gained by both seeds, one more by the second seed alone
    differences = np.zeros(N)
    differences[20:24], differences[24] = 1.0, 0.5
    assert final.difference == pytest.approx(differences.mean())
    assert final.low == pytest.approx(differences.mean() - 2.0226909 * differences.std(ddof=1) / np.sqrt(N), rel=1e-6)


@pytest.mark.parametrize("seeds", [2, 6])
@pytest.mark.parametrize("digest", ["other", None])
def test_other_test_puzzles_are_never_compared(seeds, digest):
    trials, evals = two_arms(range(seeds), multi0={"test_digest": digest})
    (row,) = compare(trials, evals, baseline="baseline").itertuples()
    assert row.verdict == "not comparable: other test puzzles"
    assert pd.isna(row.difference)


def test_an_empty_sweep_has_an_empty_snapshot():
    trials, evals = two_arms(range(1))
    assert snapshot(trials.iloc[:0], evals).empty


def test_only_seeds_that_both_arms_finished_count():
    trials, evals = two_arms(range(3), multi2={"status": "failed"}, baseline1={"status": "unfinished"})
    assert set(compare(trials, evals, baseline="baseline").n_seeds) == {1}
    trials, evals = two_arms(range(1), multi0={"status": "failed"})
    assert compare(trials, evals, baseline="baseline").empty


def test_a_baseline_shared_by_grid_points_meets_each_of_them():
    trials, evals = two_arms(range(2))
    trials["points"] = [["lr=1", "lr=2"], ["lr=1", "lr=2"], ["lr=1"], ["lr=1"]]
    other = trials[trials.arm == "multi"].assign(points=[["lr=2"], ["lr=2"]], trial_id=["multi_b0", "multi_b1"])
    more = [row for seed in range(2) for row in evals_of(f"multi_b{seed}", [0.0, 0.3, 0.4])]
    comparison = compare(pd.concat([trials, other]), pd.concat([evals, pd.DataFrame(more)]), baseline="baseline")
    final = comparison[comparison.metric == "final"].set_index("point")
    assert final.loc["lr=1", "difference"] == pytest.approx(0.1125)
    assert final.loc["lr=2", "difference"] == pytest.approx(-0.1)


def test_snapshot_has_the_seed_table_form():
    trials, evals = two_arms(range(1), multi0={"status": "failed", "reason": "NaN", "train_seconds": np.nan})
    table = snapshot(trials, evals).set_index("arm")
    row = table.loc["baseline"]
    assert (row.initial, row.best, row.best_step, row.final, row.final_step) == (0.0, 0.6, 10, 0.5, 20)
    assert (row.minutes, row.final_tokens) == (1.0, 0.9)
    assert (table.loc["multi"].status, table.loc["multi"].reason) == ("failed", "NaN")
    waiting = snapshot(trials_of([0], arms=("baseline",)), evals.iloc[:0]).iloc[0]
    assert pd.isna(waiting.best)
    assert pd.isna(waiting.final_step)


def test_packed_bits_come_back():
    solved = np.random.default_rng(0).random((13, 3)) < 0.5
    assert np.array_equal(unpack_correct(np.packbits(solved).tobytes(), 13, 3), solved)


def diagnoses_of(trial_ids, n_pos, n=8):
    return pd.DataFrame(
        {
            "sweep": "s",
            "trial_id": trial_id,
            "step": 20,
            "example": example,
            "n_pos": n_pos(trial_id) + (example == 0),
            "lambda_1": 0.01 * n_pos(trial_id) * (example != 7),
            "late_drift": 1.0,
        }
        for trial_id in trial_ids
        for example in range(n)
    )


def test_every_column_of_a_row_with_a_known_answer():
    trials, evals = two_arms(range(6), gain=-0.3)
    final = metric(compare(trials, evals, baseline="baseline"), "final")
    seeds = np.array([round((0.2 + 0.025 * seed) * N) / N for seed in range(6)])
    assert final.arm_mean == pytest.approx(seeds.mean())
    assert (final.arm_sd, final.difference_sd) == pytest.approx((seeds.std(ddof=1), seeds.std(ddof=1)))
    assert (final.baseline_sd, final.baseline_iqm) == (0, 0.5)
    assert final.arm_iqm == pytest.approx(seeds[1:5].mean())
    assert final.probability_of_improvement == 0
    assert final.bca_low < final.difference < final.bca_high
    assert (final.mcnemar_gained, final.mcnemar_lost) == ([0] * 6, [20 - round(s * N) for s in seeds])
    assert final.mcnemar_p[0] == pytest.approx(2 * 0.5**12)  # 12 lost, none gained
    assert (final.p, final.p_holm, final.comparisons, final.seeds_needed) == (2 / 64, 2 / 64, 1, 6)
    assert (final.verdict, final.regressed) == ("below baseline", "yes")
    assert (final.collapsed, final.baseline_collapsed) == (6, 6)  # best 0.4 against 0.2, ..., 0.325; 0.6 against 0.5
    assert (final.optimizer_steps, final.act_steps, final.minutes, final.parameters) == (20, 640, 1, 1000)
    assert (final.model, final.task, final.rollouts, final.unit) == ("hrm", "sudoku", 4, "share")


def test_last_k_and_equal_compute():
    trials, evals = two_arms(range(6))
    comparison = compare(trials, evals, baseline="baseline")
    assert not (comparison.metric == "last_k").any()  # of three evaluations one is before any training
    longer = pd.concat([evals.assign(step=evals.step + 10 * (evals.step > 0)), evals[evals.step == 20].assign(step=10)])
    assert metric(compare(trials, longer, baseline="baseline"), "last_k").baseline_mean == pytest.approx(
        (0.5 + 0.6 + 0.5) / 3
    )
    assert metric(compare(trials, longer, baseline="baseline"), "last_k").mcnemar_gained is None
    # A step of multi costs four of the baseline's: after a quarter of its steps only step 0 was evaluated.
    assert not (comparison.metric == "equal_compute").any()
    cheaper = trials.assign(
        flops_per_step=trials.flops_per_step.where(trials.arm != "multi", trials.flops_per_step / 2)
    )
    equal = metric(compare(cheaper, evals, baseline="baseline"), "equal_compute")  # half of its steps are enough
    assert equal.baseline_mean == pytest.approx(0.5)
    assert 0 < equal.arm_mean != metric(comparison, "final").arm_mean


def test_modes_and_lambda_1_come_from_the_last_diagnosis():
    trials, evals = two_arms(range(6))
    diagnoses = diagnoses_of(trials.trial_id, lambda name: 2 if name.startswith("multi") else 3 + int(name[-1]))
    old = diagnoses.assign(step=10, n_pos=99)
    comparison = compare(trials, evals, pd.concat([diagnoses, old]), baseline="baseline")
    modes, lambda_1 = metric(comparison, "positive_modes"), metric(comparison, "lambda_1")
    assert (modes.arm_mean, modes.baseline_mean) == pytest.approx((2 + 1 / 8, 3 + 2.5 + 1 / 8))
    assert (modes.unit, modes.n_examples, modes.verdict) == ("modes", 8, "below baseline")
    assert lambda_1.arm_mean == pytest.approx(0.02)  # the median, though one example has 0
    assert lambda_1.paired_by == "seed"
    assert metric(compare(*two_arms(range(2)), diagnoses, baseline="baseline"), "lambda_1").paired_by == "seed"


def test_holm_is_over_the_arms_of_one_question_and_asks_for_more_seeds():
    trials, evals = two_arms(range(6))
    third = trials[trials.arm == "multi"].assign(arm="third", trial_id=[f"third{seed}" for seed in range(6)])
    more = pd.DataFrame([row for s in range(6) for row in evals_of(f"third{s}", [0.0, 0.4, 0.7])])
    comparison = compare(pd.concat([trials, third]), pd.concat([evals, more]), baseline="baseline")
    final = comparison[comparison.metric == "final"].set_index("arm")
    assert final.comparisons.tolist() == [2, 2]
    assert final.loc["multi", "p_holm"] == pytest.approx(4 / 64)
    assert final.loc["multi", "verdict"] == "too few seeds (6 of 7)"
    assert comparison[comparison.depth == 4].groupby("metric").comparisons.first().unique().tolist() == [2]


@pytest.mark.parametrize(
    ("gain", "n_pos", "signals", "words"),
    [
        (0.1, 0, ("up", "fewer", "no"), "helps on all three signals"),
        (-0.4, 0, ("up", "fewer", "yes"), "mixed"),
        (0.1, 20, ("up", "more", "no"), "mixed"),
        (0.1, None, ("up", "not measured", "no"), "helps in part"),
    ],
)
def test_three_signals_make_the_verdict(gain, n_pos, signals, words):
    trials, evals = two_arms(range(6), gain=gain)
    # evals_of has the same perturbed rollouts for each seed: give the differences some spread
    noisy = (evals.sigma > 0) & (evals.trial_id == "multi0")
    evals.loc[noisy, "correct"] = evals[noisy].correct.map(lambda bits: bytes([255]) + bits[1:])
    evals.loc[noisy, "correct"] = evals[noisy].correct.map(lambda bits: bits[:-1] + bytes([255]))
    diagnoses = None
    if n_pos is not None:
        diagnoses = diagnoses_of(trials.trial_id, lambda name: n_pos if name[:5] == "multi" else 10 + int(name[-1]))
    comparison = compare(trials, evals, diagnoses, baseline="baseline")
    (row,) = verdicts(comparison).itertuples()
    assert (row.perturbed, row.modes, row.clean_regressed) == signals
    assert row.verdict.startswith(words)


def test_verdicts_say_how_many_seeds_more():
    (row,) = verdicts(compare(*two_arms(range(1)), baseline="baseline")).itertuples()
    assert row.verdict == "too few seeds (1 of 6): 5 more allow a verdict"
    trials, evals = two_arms(range(2))
    evals = evals[evals.sigma == 0]
    (row,) = verdicts(compare(trials, evals, baseline="baseline")).itertuples()
    sd = 0.025 / np.sqrt(2)
    expected = f"4 more would detect about {100 * sd * 1.7924:.1f} points of clean accuracy"
    assert row.verdict == f"too few seeds (2 of 6): {expected}, going by the spread of 2"
    assert row.clean_regressed == "cannot tell"


def test_the_line_of_a_snapshot():
    trials, evals = two_arms(range(1), multi0={"status": "unfinished"})
    assert sentences(snapshot(trials, evals)).tolist() == [
        "HRM fixed baseline: initial 0.0000, best 0.6000 @ 10, final 0.5000",
        "HRM fixed multi: initial 0.0000, best 0.6000 @ 20, final 0.6000 (unfinished @ 20)",
    ]
    waiting = sentences(snapshot(trials_of([0, 1], arms=("baseline",)), evals.iloc[:0]))
    assert waiting[1] == "HRM fixed baseline, seed 1: no evaluation yet (done)"


def test_a_curve_has_a_mean_and_an_interval_over_seeds():
    trials, evals = two_arms(range(2))
    table = curve(trials, evals)
    row = table[(table.arm == "multi") & (table.split == "test") & (table.sigma == 0)].set_index("step").loc[20]
    assert (row.n_seeds, row.worst, row.best) == (2, 0.6, 0.625)
    assert row["mean"] == pytest.approx(0.6125)
    assert row.high - row["mean"] == pytest.approx(12.7062 * 0.0125, rel=1e-5)  # t quantile, one degree of freedom

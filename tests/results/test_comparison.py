"""The comparison on tables whose answer is known."""

import itertools

import numpy as np
import pandas as pd
import pytest
from simulated import sweep_of

from results.comparison import compare, compare_by_seed
from results.curves import curve, sentences, snapshot
from results.diagnosis_schema import DIAGNOSTICS_SCHEMA
from results.metrics import OF_RUN
from results.pairs import ComparisonError
from results.rows import unpack_correct
from results.schema import TRIALS_SCHEMA
from results.signals import change, metric_name, verdicts
from results.stats import over_seeds_and_puzzles

N, ROLLOUTS, SIGMA = 40, 4, 0.3
NO_EQUAL_COMPUTE = "not comparable: no evaluation near equal compute"


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
                        "noise_fidelity": None,
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


def test_seeds_are_paired():
    comparison = compare(*two_arms(range(6)), baseline="baseline")
    final = metric(comparison, "final")
    assert (final.arm, final.baseline, final.n_seeds, final.n_planned, final.n_examples) == (
        "multi",
        "baseline",
        6,
        6,
        N,
    )
    assert (final.paired_by, final.role) == ("seed and puzzle", "signal")
    assert final.baseline_mean == pytest.approx(0.5)
    assert final.difference == pytest.approx(0.1 + 0.0625)
    assert final.low < final.seeds_low < final.difference < final.seeds_high < final.high
    assert final.p == pytest.approx(2 / 64)
    assert final.compute_ratio == 4
    assert (final.collapsed, final.regressed) == (0, "no")


def test_seeds_that_a_scheduler_left_over_are_no_verdict():
    """Whoever is stopped has a low accuracy: the pairs that are left are no fair sample."""
    trials, evals = two_arms(range(8), multi3={"status": "stopped"}, baseline5={"status": "stopped"})
    comparison = compare(trials, evals, baseline="baseline")
    final = metric(comparison, "final")
    assert (final.n_seeds, final.n_stopped) == (6, 2)
    assert comparison.regressed.isna().all()
    reason = "selected: 2 of 8 seeds stopped early"
    assert set(comparison.verdict[comparison.role == "signal"]) - {NO_EQUAL_COMPUTE} == {reason}
    assert comparison.p_adjusted.isna().all()
    assert verdicts(comparison).verdict.tolist() == [reason]
    assert snapshot(trials, evals).set_index("trial_id").status["multi3"] == "stopped"


@pytest.mark.parametrize(
    ("final", "regressed", "verdict"),
    [
        ([0.65, 0.675, 0.65, 0.7, 0.65, 0.675, 0.66, 0.66], "yes", "down"),  # of 0.8, with a margin of two points
        ([0.775, 0.8, 0.75, 0.775, 0.775, 0.8, 0.78, 0.775], "cannot tell", "down"),  # perhaps by less
        ([0.8, 0.8, 0.805, 0.8, 0.8, 0.8, 0.795, 0.8], "no", "level"),
        ([0.8] * 8, "no", "level"),
        ([0.7] * 8, "yes", "down"),
    ],
)
def test_a_fall_is_a_regression_only_if_all_of_its_interval_is_beyond_the_margin(final, regressed, verdict):
    tables = sweep_of({"baseline": {"final": [0.8] * 8}, "multi": {"final": final}}, n=2000)
    row = metric(compare(*tables, baseline="baseline"), "final")
    assert (row.regressed, row.verdict, row.difference) == (regressed, verdict, pytest.approx(np.mean(final) - 0.8))


def test_a_seed_cannot_count_twice():
    trials, evals = two_arms(range(2))
    twice = trials.assign(points=[["", ""]] * len(trials))
    with pytest.raises(ComparisonError, match="seed 0 of baseline stands twice at the point ''"):
        compare(twice, evals, baseline="baseline")


def test_runs_that_solve_the_same_puzzles_are_level_and_have_no_interval():
    trials, _ = two_arms(range(6))
    rows = [row for arm in ("baseline", "multi") for seed in range(6) for row in evals_of(f"{arm}{seed}", [0.0, 0.5])]
    comparison = compare(trials, pd.DataFrame(rows), baseline="baseline")
    assert set(comparison.verdict) == {"level", "exploratory", NO_EQUAL_COMPUTE}
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


def test_one_pair_of_runs_has_an_interval_over_puzzles_and_it_says_so():
    comparison = compare(*two_arms(range(1)), baseline="baseline")
    final = metric(comparison, "final")
    assert (final.paired_by, final.verdict) == ("puzzle", "too few seeds (1 of 6)")
    differences = np.zeros(N)
    differences[20:24] = 1.0  # 4 of 40 examples are gained
    assert final.difference == pytest.approx(differences.mean())
    assert final.low == pytest.approx(differences.mean() - 2.0226909 * differences.std(ddof=1) / np.sqrt(N), rel=1e-6)
    assert np.isnan(final.p)


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
    comparison = compare(trials, evals, baseline="baseline")
    assert set(comparison.n_seeds) == {1}
    assert set(comparison.n_planned) == {3}
    trials, evals = two_arms(range(1), multi0={"status": "failed"})
    (row,) = compare(trials, evals, baseline="baseline").itertuples()
    assert row.verdict == "no pair to compare: 1 of 1 seeds failed"


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
            "exponents": [0.01 * n_pos(trial_id) * (example != 7)],
            "late_exponents": [0.01 * n_pos(trial_id) * (example != 7)],
            "q_halt": 1.0,
            "act_steps": 4,
            "token_accuracy": 1.0,
            "solved": example < 6,
            "settled": True,
        }
        for trial_id in trial_ids
        for example in range(n)
    ).reindex(columns=DIAGNOSTICS_SCHEMA.insert(0, TRIALS_SCHEMA.field("sweep")).names)


def test_every_column_of_a_row_with_a_known_answer():
    trials, evals = two_arms(range(6), gain=-0.3)
    lost = np.array([[20 - round((0.2 + 0.025 * seed) * N)] for seed in range(6)])  # the last of the baseline's 20
    final = metric(compare(trials, evals, baseline="baseline"), "final")
    seeds = np.array([round((0.2 + 0.025 * seed) * N) / N for seed in range(6)])
    assert final.arm_mean == pytest.approx(seeds.mean())
    assert (final.arm_sd, final.difference_sd) == pytest.approx((seeds.std(ddof=1), seeds.std(ddof=1)))
    assert (final.baseline_sd, final.baseline_iqm) == (0, 0.5)
    assert final.arm_iqm == pytest.approx(seeds[1:5].mean())
    assert final.probability_of_improvement == 0
    half = 2.5705818366147395 * seeds.std(ddof=1) / np.sqrt(6)  # t quantile 0.975 with 5 degrees of freedom
    assert (final.seeds_low, final.seeds_high) == pytest.approx((final.difference - half, final.difference + half))
    bits = (np.arange(N) < 20 - lost).astype(float) - (np.arange(N) < 20)
    assert (final.low, final.high) == pytest.approx(over_seeds_and_puzzles(bits)[3:])
    assert (final.worst_seed, final.worst_difference) == (0, pytest.approx(-0.3))
    assert final.mcnemar_gained.tolist() == [0] * 6
    assert final.mcnemar_lost.tolist() == lost[:, 0].tolist()
    assert final.mcnemar_p[0] == pytest.approx(2 * 0.5**12)  # 12 lost, none gained
    assert (final.p, final.comparisons, final.seeds_needed, final.looks) == (2 / 64, 1, 6, 0)
    assert final.p_adjusted >= final.p
    assert final.regressed == "yes"
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
    nothing = metric(comparison, "equal_compute")
    assert (nothing.verdict, pd.isna(nothing.difference)) == (NO_EQUAL_COMPUTE, True)
    cheaper = trials.assign(
        flops_per_step=trials.flops_per_step.where(trials.arm != "multi", trials.flops_per_step / 2)
    )
    equal = metric(compare(cheaper, evals, baseline="baseline"), "equal_compute")  # half of its steps are enough
    assert equal.baseline_mean == pytest.approx(0.5)
    assert 0 < equal.arm_mean != metric(comparison, "final").arm_mean
    # A warm-up's steps are cheaper: by FLOPs the first half of multi's is the quarter that the baseline had.
    spent = evals.assign(train_flops=evals.act_steps * ((evals.step == 20) + 1) / 2)
    equal = metric(compare(trials, spent, baseline="baseline"), "equal_compute")
    assert equal.arm_mean == pytest.approx(
        evals.loc[
            (evals.step == 10) & (evals.split == "test") & (evals.sigma == 0) & evals.trial_id.str.startswith("multi")
        ].exact_accuracy.mean()
    )


def test_modes_and_lambda_1_come_from_the_last_diagnosis():
    trials, evals = two_arms(range(6))
    diagnoses = diagnoses_of(trials.trial_id, lambda name: 2 if name.startswith("multi") else 3 + int(name[-1]))
    old = diagnoses.assign(step=10, n_pos=99)
    comparison = compare(trials, evals, pd.concat([diagnoses, old]), baseline="baseline")
    modes, lambda_1 = metric(comparison, "positive_modes"), metric(comparison, "lambda_1")
    assert (modes.arm_mean, modes.baseline_mean) == pytest.approx((2 + 1 / 8, 3 + 2.5 + 1 / 8))
    assert (modes.unit, modes.n_examples, modes.verdict) == ("modes", 8, "down")
    assert lambda_1.arm_mean == pytest.approx(0.02)  # the median, though one example has 0
    assert lambda_1.paired_by == "seed"
    assert metric(compare(*two_arms(range(2)), diagnoses, baseline="baseline"), "lambda_1").paired_by == "seed"


def test_settled_and_solved_are_compared_by_seed_as_exploratory_rows():
    trials, evals = two_arms(range(6))
    rows = diagnoses_of(trials.trial_id, lambda name: 1)
    of_arm = rows.trial_id.str.startswith("multi")
    rows["settled"] = (rows.example < 7) | ~of_arm  # of the two failed, the arm's last wanders
    rows["lambda_1"] = 0.1 * rows.example - of_arm * rows.trial_id.str[-1].astype(int)
    comparison = compare(trials, evals, rows, baseline="baseline")
    expected = {"settled_solved": 0, "settled_failed": -1 / 8, "wandering_solved": 0, "wandering_failed": 1 / 8}
    for name, difference in (expected | {"lambda_1_solved": -2.5, "lambda_1_failed": -2.5}).items():
        assert metric(comparison, name).difference == pytest.approx(difference), name
        assert metric(comparison, name).role == "exploratory"
    assert metric(comparison, "lambda_1_failed").baseline_mean == pytest.approx(0.65)
    assert metric(comparison, "lambda_1_solved").n_seeds == 6


def test_what_some_pairs_lack_is_told_of_the_others_and_says_so():
    trials, evals = two_arms(range(6))
    rows = diagnoses_of(trials.trial_id, lambda name: 1 + name.startswith("multi") * int(name[-1]))
    # Of one run no puzzle failed: there is no median of their exponents. Another was evaluated at a sigma of its own.
    rows["solved"] |= rows.trial_id == "multi3"
    evals = pd.concat([evals, evals[(evals.trial_id == "multi0") & (evals.sigma > 0)].assign(sigma=0.7)])
    compared = compare_by_seed(trials, evals, rows, baseline="baseline")
    failed = metric(compared.comparison, "lambda_1_failed")
    assert (failed.verdict, failed.n_seeds, failed.n_planned) == ("exploratory, 5 of 6 pairs", 5, 6)
    by_seed = compared.differences[compared.differences.metric == "lambda_1_failed"]
    assert by_seed.seed.tolist() == [0, 1, 2, 4, 5]
    assert (
        failed.difference == pytest.approx(by_seed.difference.mean()) == pytest.approx(0.005 * (0 + 1 + 2 + 4 + 5) / 5)
    )
    other = compared.comparison[compared.comparison.sigma == 0.7].set_index("metric")
    assert set(other.verdict) == {"not comparable: measured in 0 of 6 pairs"}
    assert other.role.to_dict() == {name: "signal" if name == "perturbed" else "exploratory" for name in other.index}
    assert {"perturbed", "perturbed_all", "perturbed_majority"} <= set(other.index)
    assert other.difference.isna().all()
    everything = rows.assign(solved=True)
    nothing = metric(compare(trials, evals, everything, baseline="baseline"), "lambda_1_failed")
    assert nothing.verdict == "not comparable: measured in 0 of 6 pairs"


def test_mazes_are_compared_by_every_outcome():
    """32 of the arm's answers are a path, and of the baseline's all that are exact."""
    trials, evals = two_arms(range(6))
    of_baseline = evals.trial_id.str.startswith("baseline")
    a_path = np.packbits(np.arange(N) < 32).tobytes()
    evals["valid_correct"] = evals.correct.where(of_baseline | (evals.sigma > 0), a_path)
    evals["shortest_correct"] = evals.correct
    rows = diagnoses_of(trials.trial_id, lambda name: 1)
    rows["settled"], rows["shortest"] = rows.example < 7, True
    rows["valid"] = rows.solved | rows.trial_id.str.startswith("multi")
    comparison = compare(trials, evals, rows, baseline="baseline")
    exact, valid, shortest = (metric(comparison, name) for name in ("final", "final_valid", "final_shortest"))
    assert (valid.arm_mean, valid.baseline_mean) == pytest.approx((0.8, 0.5))
    assert valid.mcnemar_gained.tolist() == [12] * 6
    assert (shortest.difference, shortest.low) == (exact.difference, exact.low)
    of_valid = {"settled_valid": 1, "settled_invalid": -1, "wandering_valid": 1, "wandering_invalid": -1}
    for name, examples in (of_valid | {"settled_solved": 0, "settled_shortest": 0}).items():
        assert metric(comparison, name).difference == pytest.approx(examples / 8), name
    assert metric(comparison, "settled_not_shortest").arm_mean == 0
    assert metric(comparison, "lambda_1_invalid").verdict == "not comparable: measured in 0 of 6 pairs"
    of_sudoku = compare(*two_arms(range(6)), diagnoses_of(trials.trial_id, lambda name: 1), baseline="baseline")
    assert not set(of_sudoku.metric) & {"final_valid", "settled_valid", "lambda_1_shortest"}


def test_readouts_are_exploratory_rows():
    trials, evals = two_arms(range(6))
    gain = evals.trial_id.str.startswith("multi") * (1 + evals.trial_id.str[-1].astype(int))
    evals["halting_steps"] = 4 - 0.5 * gain
    evals["done_share"] = 0.5 + 0.05 * gain
    evals["done_exact_accuracy"] = np.where(evals.trial_id == "multi3", np.nan, 0.9)  # it never says that it is done
    evals["winner_entropy"] = np.where(evals.trial_id.str.startswith("multi"), 0.2 * gain, np.nan)
    rows = diagnoses_of(trials.trial_id, lambda name: 1)
    rows["q_halt"] = np.where(rows.trial_id.str.startswith("multi"), 1.0 * rows.solved, -1.0 * rows.solved)
    comparison = compare(trials, evals, rows, baseline="baseline")
    steps, done, accuracy = (metric(comparison, name) for name in ("halting_steps", "done", "done_accuracy"))
    assert (steps.difference, steps.unit, steps.worst_seed) == (pytest.approx(-1.75), "ACT steps", 0)
    assert metric_name(steps) == "ACT steps until it halts"
    assert (done.difference, done.paired_by) == (pytest.approx(0.05 * 3.5), "seed")
    half = 2.5705818366147395 * np.std(0.05 * np.arange(6), ddof=1) / np.sqrt(6)
    assert (done.low, done.high) == pytest.approx((done.difference - half, done.difference + half))
    assert (accuracy.verdict, accuracy.difference) == ("exploratory, 5 of 6 pairs", 0)
    race = metric(comparison, "winner_entropy")  # without one a trajectory wins always
    assert (race.baseline_mean, race.arm_mean, race.unit) == (0, pytest.approx(0.2 * 3.5), "nats")
    assert f"{metric_name(race)} {change(race)}".startswith("entropy of who wins +0.70 ")
    curve = metric(comparison, "aurc")  # of eight two fail: last, or first
    assert curve.arm_mean == pytest.approx((1 / 7 + 2 / 8) / 8)
    assert curve.baseline_mean == pytest.approx((1 + 1 + sum(2 / at for at in range(3, 9))) / 8)
    named = comparison[comparison.metric.isin([*OF_RUN, "aurc"])]
    assert set(named.role) == {"exploratory"}
    assert named[["p", "p_adjusted", "n_examples"]].isna().all(axis=None)
    for k, name in ((1, "perturbed"), (2, "perturbed_pass_2"), (ROLLOUTS, "perturbed_any")):
        row = evals[(evals.trial_id == "multi0") & (evals.sigma > 0) & (evals.split == "test")].iloc[-1]
        bits = unpack_correct(row.correct, N, ROLLOUTS)
        expected = np.mean([bits[:, list(some)].any(axis=1) for some in itertools.combinations(range(ROLLOUTS), k)])
        assert metric(comparison, name).arm_mean == pytest.approx(expected)


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


def test_a_curve_stays_within_what_an_accuracy_can_be_and_claims_no_band_without_spread():
    trials, evals = two_arms(range(2), gain=0.45)
    table = curve(trials, evals).set_index(["arm", "split", "sigma", "step"])
    top = table.loc[("multi", "test", 0, 20)]
    assert (top["mean"], top.high) == (pytest.approx(0.9625), 1.0)
    assert table.loc[("multi", "test", 0, 10)][["low", "high"]].isna().all()
    loss = curve(trials, evals.assign(lm_loss=evals.step + evals.trial_id.str[-1].astype(int)), "lm_loss")
    assert loss.high.max() > 20

"""The comparison on tables whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from results.compare import compare, snapshot, unpack_correct

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
                        "trial_id": trial_id,
                        "step": 10 * i,
                        "act_steps": 80 * i * (4 if trial_id.startswith("multi") else 1),
                        "split": split,
                        "sigma": sigma,
                        "rollouts": solved.shape[1],
                        "n": N,
                        "exact_accuracy": solved.mean(),
                        "token_accuracy": 0.9,
                        "correct": np.packbits(solved).tobytes(),
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
            "status": "done",
            "reason": None,
            "test_digest": "d",
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

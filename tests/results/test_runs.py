"""Which evaluations a comparison reads: far from all, and no score is another for it."""

import numpy as np
import pandas as pd

from results.rows import by_trial, with_when
from results.runs import EVALUATED, rows_read
from results.scores import equal_compute, scores

N, RUN = 16, ("sweep", "trial_id")


def random_evals(rng: np.random.Generator) -> pd.DataFrame:
    """Two sweeps with runs of the same names and other lengths and depths, in no order; validation has ties."""
    rows = [
        {"sweep": sweep, "trial_id": trial_id, "step": step, "act_steps": 3 * step, "split": split, "depth": depth}
        | {"sigma": sigma, "rollouts": 2 if sigma else 1, "n": N, "exact_accuracy": rng.integers(4) / 4}
        | {name: rng.bytes(4) for name in ("correct", "best_q_correct", "majority_correct")}
        for sweep, length, depths in (("a", 4, (4, 8)), ("b", 7, (8, 16, 32)))
        for trial_id in ("x", "y", "z")
        for step in range(length)
        for split in ("validation", "test")
        for sigma in (0.0, 0.1, 0.5)
        for depth in depths
    ]
    return pd.DataFrame([rows[at] for at in rng.permutation(len(rows))], index=rng.integers(5, size=len(rows)))


def test_the_rows_that_are_read_give_the_scores_of_all_rows():
    for seed in range(5):
        evals = random_evals(np.random.default_rng(seed))
        read = rows_read(evals)
        assert len(read) < 0.3 * len(evals)
        every, kept = by_trial(with_when(evals.reindex(columns=list(EVALUATED))), RUN), by_trial(read, RUN)
        assert len(every) == len(kept) == 6
        for run, rows in every.items():
            assert_same(scores(kept[run], []), scores(rows, []))
            for share in (0.1, 0.5, 0.75, 1.0):
                assert_same(equal_compute(kept[run], share), equal_compute(rows, share))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, score in expected.items():
        assert np.array_equal(found[key], score), key

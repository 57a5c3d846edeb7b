"""How hard a puzzle is, and how much of what is so hard was solved."""

import numpy as np
import pandas as pd

from results.rows import BY_SWEEP, by_trial, right, rows_of
from results.stats import wilson

BINS = 8
MEASURES = {"rating": "rating", "givens": "givens", "path_length": "length of the path"}
DIFFICULTY_COLUMNS = ("arm", "measure", "difficulty", "n", "share", "low", "high")


def by_difficulty(
    trials: pd.DataFrame, evals: pd.DataFrame, puzzles: pd.DataFrame, *, outcome: str = "solved"
) -> pd.DataFrame:
    """A row an arm and bin of test puzzles: the share that the clean run solves at each trial's last step.

    Columns measure (the puzzle's rating where its file has one; else the givens of a Sudoku, the length of a maze's
    path), difficulty (the mean of the bin), n (puzzles, all grid points and seeds together), share, and low and high,
    Wilson's 95 % interval (Wilson, JASA 22, 1927) of these runs. Bins hold about as many puzzles each, up to BINS.
    `outcome` says what is solved: exactly that, or of mazes a valid or a shortest path.
    """
    found = []
    last = evals.loc[(evals.split == "test") & (evals.sigma == 0)]
    last = last.loc[last.step == last.groupby([*BY_SWEEP], observed=True).step.transform("max")]
    rows_of_trial = by_trial(last, BY_SWEEP)
    for name, words in MEASURES.items():
        known = puzzles.dropna(subset=[name]) if name in puzzles else pd.DataFrame({name: []})
        if len(set(known[name])) < 2:
            continue
        hard = {digest: mine.set_index("example")[name].astype(float) for digest, mine in known.groupby("test_digest")}
        edges = np.unique(np.quantile(np.concatenate(list(hard.values())), np.linspace(0, 1, BINS + 1)))
        for arm, mine in trials.groupby("arm", sort=False):
            solved, difficulty = [np.empty(0)], [np.empty(0)]
            for trial in rows_of(mine):
                row = min(rows_of_trial.get((trial.sweep, trial.trial_id), []), key=lambda row: row.depth, default=None)
                bits = None if row is None else right(row, outcome)
                if bits is not None and trial.test_digest in hard:
                    of_test = hard[trial.test_digest]
                    of_test = of_test.loc[of_test.index < len(bits)]
                    solved.append(bits[of_test.index.to_numpy(dtype=int), 0])
                    difficulty.append(of_test.to_numpy())
            is_right, level = np.concatenate(solved), np.concatenate(difficulty)
            bins = np.clip(np.searchsorted(edges, level, side="right") - 1, 0, len(edges) - 2)
            for at in np.unique(bins):
                here = bins == at
                n, k = int(here.sum()), int(is_right[here].sum())
                low, high = wilson(k, n)
                row = {"arm": arm, "measure": words, "difficulty": float(level[here].mean()), "n": n, "share": k / n}
                found.append(row | {"low": low, "high": high})
        break
    return pd.DataFrame(found, columns=list(DIFFICULTY_COLUMNS))

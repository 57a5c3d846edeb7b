"""What more ACT steps than in training do to puzzles that failed."""

import pandas as pd

from results.rows import BY_SWEEP, by_trial, right
from results.stats import NAN

DECAY = 0.02  # of accuracy, by which a deeper reading than the best is worse, if it is
ESCAPE_COLUMNS = ("arm", "depth", "failed", "escaped", "solved")


def peak(accuracy: dict[int, float]) -> tuple[int | None, bool | None]:
    """By accuracy at each depth: the depth of the highest, of equals the first, and whether it decays beyond it.

    None for what cannot be said: of no depth, and of one alone.
    """
    if not accuracy:
        return None, None
    best = min(accuracy, key=lambda depth: (-accuracy[depth], depth))
    decays = any(accuracy[best] - accuracy[depth] > DECAY for depth in accuracy if depth > best)
    return best, decays if len(accuracy) > 1 else None


def escape(trials: pd.DataFrame, evals: pd.DataFrame, *, outcome: str = "solved") -> pd.DataFrame:
    """A row an arm and depth: of the puzzles that the clean run fails at the training's depth, what becomes of them.

    Columns depth (ACT steps), failed (puzzles, all grid points and seeds together), escaped (the share of them that is
    right after so many steps) and solved (the share of all puzzles that is). At each trial's last step, on test; no
    rows for trials that are evaluated at one depth only. `outcome` says what is right: solved, or of mazes valid or
    shortest.
    """
    clean = evals.loc[(evals.split == "test") & (evals.sigma == 0)]
    clean = clean.loc[clean.step == clean.groupby([*BY_SWEEP], observed=True).step.transform("max")]
    by_arm: dict[str, dict[int, list[int]]] = {}
    arm_of = dict(zip(zip(trials.sweep, trials.trial_id, strict=True), trials.arm, strict=True))
    for trial, rows in by_trial(clean, BY_SWEEP).items():
        if len(rows) < 2 or trial not in arm_of:
            continue
        rows = sorted(rows, key=lambda row: row.depth)
        solved = [bits[:, 0] for row in rows if (bits := right(row, outcome)) is not None]
        if len(solved) < len(rows):
            continue
        failed = ~solved[0]
        for row, mine in zip(rows, solved, strict=True):
            counts = by_arm.setdefault(arm_of[trial], {}).setdefault(row.depth, [0, 0, 0, 0])
            added = int(failed.sum()), int((failed & mine).sum()), int(mine.sum()), len(mine)
            counts[:] = [before + new for before, new in zip(counts, added, strict=True)]
    found = [
        {
            "arm": arm,
            "depth": depth,
            "failed": failed,
            "escaped": escaped / failed if failed else NAN,
            "solved": solved / n,
        }
        for arm in dict.fromkeys(trials.arm)
        for depth, (failed, escaped, solved, n) in sorted(by_arm.get(arm, {}).items())
    ]
    return pd.DataFrame(found, columns=ESCAPE_COLUMNS)

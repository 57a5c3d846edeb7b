"""A diagnosis in a line of numbers."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from results.bootstrap import auc_with_interval
from results.diagnosed import judged


class Summary(NamedTuple):
    """A diagnosis of n examples: counts, medians of lambda_1 (nats a sub-update), mean modes; nan if undefined.

    The 2 x 2: settled and solved, settled and failed, and so on, counted. The AUCs say how well a lower value tells the
    solved from the failed, whatever the threshold between them; low and high are their 95 % interval over puzzles.
    """

    n: int
    solved: int
    settled_solved: int
    settled_failed: int
    wandering_solved: int
    wandering_failed: int
    lambda_1: float
    lambda_1_solved: float
    lambda_1_failed: float
    n_pos: float
    settled: float
    lambda_1_auc: float
    lambda_1_auc_low: float
    lambda_1_auc_high: float
    late_drift_auc: float
    late_drift_auc_low: float
    late_drift_auc_high: float


def summary(diagnostics: pd.DataFrame, outcome: str = "solved") -> Summary:
    """What the rows of one diagnosis say together; `outcome`: solved, or of mazes valid or shortest."""
    rows = judged(diagnostics, outcome)
    solved, settled = rows.outcome.to_numpy(dtype=bool), rows.settled.to_numpy(dtype=bool)
    lambda_1 = rows.lambda_1.to_numpy(dtype=float)

    def median(values: np.ndarray) -> float:
        return float(np.median(values)) if len(values) else float("nan")

    area = auc_with_interval(-lambda_1, solved)
    of_drift = auc_with_interval(-rows.late_drift.to_numpy(dtype=float), solved)
    return Summary(
        n=len(rows),
        solved=int(solved.sum()),
        settled_solved=int((settled & solved).sum()),
        settled_failed=int((settled & ~solved).sum()),
        wandering_solved=int((~settled & solved).sum()),
        wandering_failed=int((~settled & ~solved).sum()),
        lambda_1=median(lambda_1),
        lambda_1_solved=median(lambda_1[solved]),
        lambda_1_failed=median(lambda_1[~solved]),
        n_pos=float(rows.n_pos.mean()),
        settled=float(settled.mean()),
        lambda_1_auc=area.auc,
        lambda_1_auc_low=area.low,
        lambda_1_auc_high=area.high,
        late_drift_auc=of_drift.auc,
        late_drift_auc_low=of_drift.low,
        late_drift_auc_high=of_drift.high,
    )

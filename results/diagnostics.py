"""Tables of diagnoses in a few numbers."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from results.stats import auc


class Summary(NamedTuple):
    """A diagnosis of n examples: counts, medians of lambda_1 (nats a sub-update), mean modes; nan if undefined.

    The AUCs say how well a lower value tells the solved from the failed, whatever the threshold between them.
    """

    solved: int
    lambda_1: float
    lambda_1_solved: float
    lambda_1_failed: float
    n_pos: float
    settled: float
    lambda_1_auc: float
    late_drift_auc: float


def summary(diagnostics: pd.DataFrame) -> Summary:
    """What the rows of one diagnosis say together."""
    solved = diagnostics.solved.to_numpy(dtype=bool)
    lambda_1 = diagnostics.lambda_1.to_numpy()

    def median(values: np.ndarray) -> float:
        return float(np.median(values)) if len(values) else float("nan")

    return Summary(
        int(solved.sum()),
        median(lambda_1),
        median(lambda_1[solved]),
        median(lambda_1[~solved]),
        float(diagnostics.n_pos.mean()),
        float(diagnostics.settled.mean()),
        auc(-lambda_1, solved),
        auc(-diagnostics.late_drift.to_numpy(), solved),
    )

"""A diagnosis in a few numbers."""

import math

import pandas as pd
import pytest

from results.diagnostics import summary

FOUND = pd.DataFrame(
    {
        "solved": [True, True, False, False],
        "lambda_1": [-0.2, 0.0, -0.1, 0.3],
        "late_drift": [1.0, 2.0, 3.0, 2.0],
        "n_pos": [0, 0, 1, 4],
        "settled": [True, True, False, True],
    }
)


def test_of_a_pair_of_a_solved_and_a_failed_example_the_lower_value_should_be_the_solved():
    found = summary(FOUND)
    assert found.lambda_1_auc == 3 / 4
    assert found.late_drift_auc == 3.5 / 4  # of equal ones, half
    assert found.late_drift_auc_low <= found.late_drift_auc <= found.late_drift_auc_high <= 1
    lambdas = (found.lambda_1_solved, found.lambda_1_failed, found.lambda_1)
    assert lambdas == pytest.approx((-0.1, 0.1, -0.05))
    assert (found.solved, found.n_pos, found.settled) == (2, 1.25, 0.75)


def test_what_no_example_did_is_not_a_number():
    found = summary(FOUND.loc[FOUND.solved])
    assert math.isnan(found.lambda_1_failed)
    assert math.isnan(found.lambda_1_auc)
    assert math.isnan(found.late_drift_auc)

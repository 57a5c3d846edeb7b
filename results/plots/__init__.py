"""Charts as functions of tables, by Altair: interactive in a notebook, the same on the report's page and in a paper.

`chart.save("figure.svg")` (or .png, .pdf) draws one without a browser; `chart` at a cell's end shows it.
"""

from results.plots.diagnosis import (
    auc_by_decile,
    auc_by_difficulty,
    auc_by_measure,
    auc_by_window,
    fates_of_failed,
    freed_by_restart,
    settled_by_threshold,
    varied_estimates,
)
from results.plots.dynamics import escape_by_depth, lambda_by_outcome, settled_by_outcome, solved_by_difficulty
from results.plots.effects import SHOWN, difference_map, paired_differences, sigma_ladder, training_sigma
from results.plots.puzzles import solving
from results.plots.training import accuracy_against_compute, accuracy_curves

__all__ = [
    "SHOWN",
    "accuracy_against_compute",
    "accuracy_curves",
    "auc_by_decile",
    "auc_by_difficulty",
    "auc_by_measure",
    "auc_by_window",
    "difference_map",
    "escape_by_depth",
    "fates_of_failed",
    "freed_by_restart",
    "lambda_by_outcome",
    "paired_differences",
    "settled_by_outcome",
    "settled_by_threshold",
    "sigma_ladder",
    "solved_by_difficulty",
    "solving",
    "training_sigma",
    "varied_estimates",
]

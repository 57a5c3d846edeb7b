"""How it is compared: the metrics that are tested, and the columns of comparison and differences."""

import pyarrow as pa

from results.columns import BOOL, FIDELITY, FLOAT, INT, TEXT, schema_of
from results.metrics import MODES

# The metrics that are tested, each at every sigma, after as many ACT steps as were trained; all others are exploratory.
SIGNALS = ("best", "final", "equal_compute", "perturbed", MODES)
PRIMARY = ("best", 0.0)  # the metric, and its sigma, that a headline begins with where a sweep does not say
WORDS = ("up", "down", "level", "cannot tell")  # the verdicts on a signal; any other text says why there is none
MARGIN = 0.02  # of clean accuracy: a difference whose interval lies within it counts as none
MODES_MARGIN = 0.5  # of positive modes: likewise

_OF_METRIC = "as the metric"
_COMPARED = (
    ("sweep", TEXT, "", "Name of the sweep."),
    ("arm", TEXT, "", "Arm that is compared."),
    ("baseline", TEXT, "", "Arm it is compared with; sweep/arm if it is another sweep's."),
    ("point", TEXT, "", "Grid point; empty without a grid."),
    ("model", TEXT, "", "The arm's architecture: hrm, trm or srm."),
    ("task", TEXT, "", "sudoku or maze."),
    ("objective", TEXT, "", "The arm's: clean, or a perturbed objective."),
)
_ROLE = ("role", TEXT, "", "signal: tested, and corrected for the others; exploratory: an interval, and no verdict.")

COMPARISON_SCHEMA = schema_of(
    *_COMPARED,
    ("rollout", TEXT, "", "The arm's: parallel_fixed, act_mask or serial_act."),
    ("rollouts", INT, "trajectories", "The arm's trajectories a puzzle in training, K."),
    ("perturb", TEXT, "JSON", "The arm's noise in training; null if there is none."),
    ("train_sigma", FLOAT, "as perturb.scale", "Sigma drawn in training, mean over the arm's evaluations and seeds."),
    ("noise_rms_z_H", FLOAT, "latent units", "RMS of the noise added to z_H, as rounded; mean likewise."),
    ("noise_rms_z_L", FLOAT, "latent units", "RMS of the noise added to z_L, as rounded; mean likewise."),
    ("noise_fidelity", FLOAT, "cosine", f"The arm's mean, of the change that noise makes to a latent, {FIDELITY}"),
    ("metric", TEXT, "", "What is compared: see results.metrics, METRICS."),
    ("unit", TEXT, "", "Of the metric, its difference and their intervals: see METRICS."),
    ("sigma", FLOAT, "latent RMS", "Noise of the evaluation; 0 is the clean run."),
    ("depth", INT, "ACT steps", "Steps after which the arm's answers are read."),
    ("baseline_depth", INT, "ACT steps", "Steps after which the baseline's are."),
    ("trained_depth", BOOL, "", "Whether each is read after the steps it was trained with, or both deeper."),
    _ROLE,
    ("primary", BOOL, "", "Whether a headline begins with this row: the sweep file's `primary`."),
    (
        "margin",
        FLOAT,
        _OF_METRIC,
        f"Difference that counts as none: the sweep file's `margin` of accuracies, {MODES_MARGIN} of positive modes.",
    ),
    ("n_seeds", INT, "seeds", "Pairs of runs that are done; of an exploratory metric those of them that have it."),
    ("n_planned", INT, "seeds", "Pairs that the sweep asks for."),
    ("n_failed", INT, "seeds", "Pairs that ended with a run failed; they count at their worst."),
    ("n_stopped", INT, "seeds", "Pairs of which the sweep's scheduler stopped a run early; the others are selected."),
    ("failed_seeds", pa.list_(INT), "", "The seeds of n_failed."),
    ("unpaired_seeds", pa.list_(INT), "", "Seeds of which one side has no run, or none that can be read."),
    ("n_examples", INT, "examples", "Test examples, the same in both arms; null for what a whole evaluation has."),
    ("baseline_mean", FLOAT, _OF_METRIC, "The baseline's, mean over paired seeds."),
    ("arm_mean", FLOAT, _OF_METRIC, "The arm's, mean over paired seeds."),
    ("baseline_sd", FLOAT, _OF_METRIC, "Standard deviation between the baseline's seeds; null for one seed."),
    ("arm_sd", FLOAT, _OF_METRIC, "Standard deviation between the arm's seeds; null for one seed."),
    ("baseline_iqm", FLOAT, _OF_METRIC, "Interquartile mean over the baseline's seeds."),
    ("arm_iqm", FLOAT, _OF_METRIC, "Interquartile mean over the arm's seeds."),
    ("difference", FLOAT, _OF_METRIC, "arm_mean - baseline_mean."),
    ("difference_sd", FLOAT, _OF_METRIC, "Standard deviation of the difference between seeds; null for one seed."),
    ("low", FLOAT, _OF_METRIC, "Lower end of the 95 % interval of the difference, over what paired_by says."),
    ("high", FLOAT, _OF_METRIC, "Upper end."),
    ("paired_by", TEXT, "", "seed and puzzle: both are samples; puzzle: one pair of runs; seed: these puzzles only."),
    ("seeds_low", FLOAT, _OF_METRIC, "Lower end of the 95 % t interval over seeds, for these puzzles only."),
    ("seeds_high", FLOAT, _OF_METRIC, "Upper end."),
    (
        "p",
        FLOAT,
        "probability",
        "Of a signal by itself: two-sided p of no difference by sign flips of seeds; null where exploratory.",
    ),
    (
        "p_adjusted",
        FLOAT,
        "probability",
        "p for all signals of all arms and points; null until all pairs ended.",
    ),
    ("comparisons", INT, "places", "Distinct arms and points that p_adjusted is corrected for."),
    (
        "looks",
        INT,
        "looks",
        "Comparisons of enough of these seeds before, with others: then p_adjusted is always valid. Null: no p.",
    ),
    ("worst_seed", INT, "", "The seed that speaks most against the arm."),
    ("worst_difference", FLOAT, _OF_METRIC, "Its difference."),
    ("bound", FLOAT, _OF_METRIC, "The difference if failed pairs count at their worst; null if none failed."),
    ("probability_of_improvement", FLOAT, "probability", "That a seed of the arm is above one of the baseline."),
    ("mcnemar_gained", pa.list_(INT), "examples", "By seed, examples only the arm solves; null if not yes or no."),
    ("mcnemar_lost", pa.list_(INT), "examples", "By seed, examples only the baseline solves; null likewise."),
    ("mcnemar_p", pa.list_(FLOAT), "probability", "By seed, exact two-sided McNemar p; null likewise."),
    ("seeds_needed", INT, "seeds", "Pairs below which p_adjusted cannot be below 0.05."),
    (
        "detectable",
        FLOAT,
        _OF_METRIC,
        "Found with 80 % power by detectable_seeds; null below four seeds and after looks.",
    ),
    ("detectable_seeds", INT, "seeds", "The seeds planned, or as many as a verdict on any signal needs if more."),
    ("regressed", TEXT, "", "Clean signals with a verdict: fell by more than the margin? yes, no or cannot tell."),
    ("collapsed", INT, "seeds", "Of the arm's: last accuracy below the best by more than 5 points."),
    ("baseline_collapsed", INT, "seeds", "Of the baseline's: likewise."),
    ("optimizer_steps", FLOAT, "steps", "The arm's, mean over paired seeds."),
    ("act_steps", FLOAT, "trajectory-steps", "The arm's, mean over paired seeds."),
    ("flops", FLOAT, "FLOP", "Trained by the arm, mean over paired seeds."),
    ("compute_ratio", FLOAT, "ratio", "FLOPs trained, arm over baseline."),
    ("device_hours", FLOAT, "h", "GPU-hours of the arm, core-hours where it ran on none; mean over paired seeds."),
    ("baseline_device_hours", FLOAT, "h", "The baseline's, likewise."),
    ("minutes", FLOAT, "min", "Training and evaluation of the arm, mean over paired seeds."),
    ("baseline_minutes", FLOAT, "min", "Training and evaluation of the baseline, mean over paired seeds."),
    ("parameters", INT, "weights", "Trained weights of the arm's model."),
    ("commit", TEXT, "", "Commits of the code the arm ran with."),
    ("data_digest", TEXT, "", "sha256 of the arm's puzzles."),
    (
        "verdict",
        TEXT,
        "",
        "up, down, level (within the margin) or cannot tell; exploratory, of how many pairs if not of all; else why "
        "nothing is said.",
    ),
)

DIFFERENCES_SCHEMA = schema_of(
    *_COMPARED,
    ("metric", TEXT, "", "What is compared: see results.metrics, METRICS."),
    ("unit", TEXT, "", "Of the scores and their difference: see METRICS."),
    ("sigma", FLOAT, "latent RMS", "Noise of the evaluation; 0 is the clean run."),
    ("depth", INT, "ACT steps", "Steps after which the arm's answers are read."),
    _ROLE,
    ("seed", INT, "", "Seed of both runs."),
    ("trial_id", TEXT, "", "The arm's trial."),
    ("baseline_trial_id", TEXT, "", "The baseline's."),
    ("baseline_score", FLOAT, _OF_METRIC, "The baseline's, over the test examples."),
    ("score", FLOAT, _OF_METRIC, "The arm's, likewise."),
    ("difference", FLOAT, _OF_METRIC, "score - baseline_score."),
)

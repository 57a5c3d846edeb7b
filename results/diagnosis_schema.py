"""The tables of a diagnosis: a row an example, and a window of its run, an ACT step, a restart, a way to estimate."""

import pyarrow as pa

from results.columns import BOOL, FLOAT, HARD, INT, TEXT, schema_of

_OF_DIAGNOSIS = (
    ("trial_id", TEXT, "", "Hash of the trial's config; names its folder."),
    ("step", INT, "batches", "Batches trained before this diagnosis; null for a checkpoint by itself."),
    ("example", INT, "", "Place among the test puzzles; the evaluation's `correct` has the same order."),
)

DIAGNOSTICS_SCHEMA = schema_of(
    *_OF_DIAGNOSIS,
    *HARD,
    ("solved", BOOL, "", "Whether the clean run, in the training's precision, solves it: every cell is right."),
    ("valid", BOOL, "", "Mazes: whether its answer is a path from start to goal; null for other tasks."),
    ("shortest", BOOL, "", "Mazes: whether it is a shortest path, whichever; null for other tasks."),
    ("token_accuracy", FLOAT, "share", "Cells of its answer that are right, givens included."),
    ("q_halt", FLOAT, "logit", "Halting logit at the end of the clean run."),
    ("halt_step", INT, "ACT steps", "The first ACT step after which it wants to halt; null if there is none."),
    ("act_steps", INT, "ACT steps", "Of the clean run: the training's halt_max_steps."),
    ("sub_updates", INT, "updates", "Latent updates in an ACT step, H_cycles (L_cycles + 1)."),
    ("exponents", pa.list_(FLOAT), "nats/sub-update", "Finite-time Lyapunov spectrum of (z_H, z_L), by vector."),
    ("late_exponents", pa.list_(FLOAT), "nats/sub-update", "The same without the first eighth of the ACT steps."),
    ("lambda_1", FLOAT, "nats/sub-update", "The first exponent."),
    ("spectral_mean", FLOAT, "nats/sub-update", "The mean exponent."),
    ("n_pos0", INT, "modes", "Exponents above 0."),
    ("n_pos", INT, "modes", "Vectors that grew by more than a factor e over the run."),
    ("late_drift", FLOAT, "latent norm", "Mean ||z_t - z_(t-1)|| of z_H over the last four ACT steps."),
    ("relative_late_drift", FLOAT, "ratio", "late_drift over ||z|| at the end."),
    ("settled", BOOL, "", "Whether late_drift is below drift_threshold, or no more than float32 rounding."),
    ("drift_threshold", FLOAT, "latent norm", "Otsu's threshold of late_drift, of all examples of this diagnosis."),
    ("depth", INT, "ACT steps", "Of the run far past training; null, as the columns below, where none was asked for."),
    ("solved_from", INT, "ACT steps", "From which ACT step on it stays solved to that depth; null if it does not."),
    ("valid_from", INT, "ACT steps", "Mazes: likewise of a path from start to goal."),
    ("shortest_from", INT, "ACT steps", "Mazes: likewise of a shortest path."),
    ("far_late_drift", FLOAT, "latent norm", "Mean drift over the last four ACT steps of that run."),
    ("far_settled", BOOL, "", "Whether that is below drift_threshold, or no more than float32 rounding."),
    newer=dict.fromkeys(
        (
            *(name for name, *_ in HARD),
            *("valid", "shortest", "token_accuracy", "halt_step", "act_steps", "drift_threshold"),
            *("depth", "solved_from", "valid_from", "shortest_from", "far_late_drift", "far_settled"),
        )
    ),
)

WINDOWS_SCHEMA = schema_of(
    *_OF_DIAGNOSIS,
    ("window", TEXT, "", "Of the clean run: first eighth (rounded up), quarter 1 to quarter 4, late half."),
    ("first_step", INT, "ACT steps", "Its first ACT step, counted from 1."),
    ("last_step", INT, "ACT steps", "Its last."),
    ("lambda_1", FLOAT, "nats/sub-update", "The first exponent over the window."),
    ("spectral_mean", FLOAT, "nats/sub-update", "The mean exponent over the window."),
    ("drift", FLOAT, "latent norm", "Mean ||z_t - z_(t-1)|| of z_H over its ACT steps."),
)

_RIGHT = (
    ("solved", BOOL, "", "Whether the answer is right in every cell."),
    ("valid", BOOL, "", "Mazes: whether it is a path from start to goal; null for other tasks."),
    ("shortest", BOOL, "", "Mazes: whether it is a shortest path; null for other tasks."),
)

DEPTHS_SCHEMA = schema_of(
    *_OF_DIAGNOSIS,
    ("depth", INT, "ACT steps", "After which the answer is read: each from 1 to the depth asked for."),
    *_RIGHT,
    ("drift", FLOAT, "latent norm", "||z_t - z_(t-1)|| of z_H in this ACT step."),
)

RESTARTS_SCHEMA = schema_of(
    *_OF_DIAGNOSIS,
    ("sigma", FLOAT, "latent RMS", "Standard deviation of the noise on the initial latents."),
    ("restart", INT, "", "Which restart of this puzzle, which the clean run does not solve; the first is 0."),
    *_RIGHT,
    ("q_halt", FLOAT, "logit", "Halting logit at the end."),
)

ROBUSTNESS_SCHEMA = schema_of(
    *_OF_DIAGNOSIS,
    ("variation", TEXT, "", "What the estimator does otherwise."),
    ("lambda_1", FLOAT, "nats/sub-update", "The first exponent by it."),
    ("usual_lambda_1", FLOAT, "nats/sub-update", "The first exponent as it is estimated elsewhere."),
)
# The tables of a diagnosis by name; in a trial's folder the files are called so, too.
DIAGNOSIS_SCHEMAS = {
    "diagnostics": DIAGNOSTICS_SCHEMA,
    "windows": WINDOWS_SCHEMA,
    "depths": DEPTHS_SCHEMA,
    "restarts": RESTARTS_SCHEMA,
    "robustness": ROBUSTNESS_SCHEMA,
}

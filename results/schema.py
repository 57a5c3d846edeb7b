"""What stands in a storage: file names, the tables' columns with types and units, how a trial ended.

<storage>/<sweep>/sweep.json          which arms, grid points and seeds stand for which trial
<storage>/<sweep>/trials/<trial id>/  one folder a trial
<storage>/<sweep>/report.html         the sweep on a page
<storage>/<sweep>/puzzles/            the test puzzles, a table a digest
<storage>/<sweep>/looks.json          the complete comparisons that were made of it
<storage>/<sweep>/progress.json       how a run stands, written by its driver every few seconds
<storage>/tables/<table>/sweep=<sweep>/<table>.parquet

The last are the tables that `gather` makes (TABLE_SCHEMAS), each a data set of all sweeps. A
sweep is a partition of it, in Hive's layout: its name is the column `sweep` of every row, and stands in no file.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from results.records import problem_of, table_problem
from results.storage import Location, is_held

MANIFEST = "sweep.json"
LOOKS = "looks.json"
SPEC = "spec.yaml"
TRIALS = "trials"
TABLES = "tables"
PUZZLES = "puzzles"
REPORT = "report.html"
ATTEMPTS = "attempts"
LOG = "log.txt"
PROGRESS = "progress.json"
RUN = "run.json"

TRIAL = "trial.json"
LOCK = ".lock"
DONE = "done.json"
FAILED = "failed.json"
STOPPED, ASKED = "stopped.json", "asked.json"
EVALS = "evals.parquet"
DIAGNOSTICS = "diagnostics.parquet"
UNROLLS = "unrolls.parquet"
LATEST_STATE = "latest_state.pt"
PREVIOUS_STATE = "previous_state.pt"
SAVED = "saved.json"  # the step of latest_state.pt
BEST, BEST_STATE = "best.pt", "best_state.pt"
FINAL, FINAL_STATE = "final.pt", "final_state.pt"

Status = Literal["waiting", "running", "unfinished", "done", "stopped", "failed"]


def _table(*columns: tuple[str, pa.DataType, str, str]) -> pa.Schema:
    return pa.schema(
        [
            pa.field(name, kind, metadata={"unit": unit, "description": description})
            for name, kind, unit, description in columns
        ]
    )


_TEXT, _INT, _FLOAT, _TIME = pa.string(), pa.int64(), pa.float64(), pa.timestamp("us", tz="UTC")

_NOISE = "since the evaluation before, mean over perturbed trajectories; null where there were none."
_FIDELITY = (
    "in train.forward_dtype and in float32, after one ACT step, at the smallest sigma of training; null where clean."
)

EVALS_SCHEMA = _table(
    ("trial_id", _TEXT, "", "Hash of the trial's config; names its folder."),
    ("step", _INT, "batches", "Batches trained before this evaluation."),
    ("optimizer_steps", _INT, "steps", "Optimizer steps taken before this evaluation."),
    ("act_steps", _INT, "trajectory-steps", "ACT steps trained, counted over all rows and rollouts."),
    ("train_loss", _FLOAT, "nats", "Mean training loss since the evaluation before; null at the first."),
    ("train_sigma", _FLOAT, "as perturb.scale", f"Sigma drawn in training {_NOISE}"),
    ("noise_rms_z_H", _FLOAT, "latent units", f"RMS of the noise drawn for z_H, as rounded {_NOISE}"),
    ("noise_rms_z_L", _FLOAT, "latent units", f"RMS of the noise drawn for z_L, as rounded {_NOISE}"),
    ("noise_fidelity", _FLOAT, "cosine", f"Of the change that noise makes to the first latent, {_FIDELITY}"),
    ("noise_fidelity_unroll", _FLOAT, "cosine", "The same after halt_max_steps ACT steps."),
    ("noise_norm_ratio", _FLOAT, "ratio", "Size of that change after one ACT step, over float32's."),
    ("split", _TEXT, "", "validation (chooses the best checkpoint) or test (scores it)."),
    ("sigma", _FLOAT, "latent RMS", "Standard deviation of the noise on the initial latents; 0 is the clean run."),
    (
        "depth",
        _INT,
        "ACT steps",
        "Steps after which answers are read: halt_max_steps of the training, or a deeper one.",
    ),
    ("rollouts", _INT, "trajectories", "Trajectories an example."),
    ("n", _INT, "examples", "Evaluation examples, the same for every trial of the task."),
    ("exact_accuracy", _FLOAT, "share", "Puzzles solved in every cell: mean over examples and rollouts."),
    ("all_exact_accuracy", _FLOAT, "share", "Examples that every rollout solves."),
    ("any_exact_accuracy", _FLOAT, "share", "Examples that some rollout solves (pass@K)."),
    ("best_q_exact_accuracy", _FLOAT, "share", "Examples solved by the rollout with the highest halting logit."),
    ("majority_exact_accuracy", _FLOAT, "share", "Examples solved by the answer that most rollouts give."),
    ("token_accuracy", _FLOAT, "share", "Cells that are right, givens included."),
    ("valid_accuracy", _FLOAT, "share", "Mazes: answers that are a path from start to goal; null for other tasks."),
    ("shortest_accuracy", _FLOAT, "share", "Mazes: answers that are a shortest path, whichever; null for other tasks."),
    ("lm_loss", _FLOAT, "nats", "Token loss a cell at the last ACT step."),
    ("correct", pa.binary(), "bits", "Exact correctness, bool [n, rollouts] packed row-major."),
    ("best_q_correct", pa.binary(), "bits", "Correctness of the answer chosen by halting logit, bool [n] packed."),
    ("majority_correct", pa.binary(), "bits", "Correctness of the answer chosen by majority, bool [n] packed."),
)

DIAGNOSTICS_SCHEMA = _table(
    ("trial_id", _TEXT, "", "Hash of the trial's config; names its folder."),
    ("step", _INT, "batches", "Batches trained before this diagnosis; null for a checkpoint by itself."),
    ("example", _INT, "", "Place among the test puzzles; the evaluation's `correct` has the same order."),
    ("solved", pa.bool_(), "", "Whether the clean run, in the training's precision, solves it."),
    ("q_halt", _FLOAT, "logit", "Halting logit at the end of the clean run."),
    ("sub_updates", _INT, "updates", "Latent updates in an ACT step, H_cycles (L_cycles + 1)."),
    ("exponents", pa.list_(_FLOAT), "nats/sub-update", "Finite-time Lyapunov spectrum of (z_H, z_L), by vector."),
    ("late_exponents", pa.list_(_FLOAT), "nats/sub-update", "The same without the first eighth of the ACT steps."),
    ("lambda_1", _FLOAT, "nats/sub-update", "The first exponent."),
    ("spectral_mean", _FLOAT, "nats/sub-update", "The mean exponent."),
    ("n_pos0", _INT, "modes", "Exponents above 0."),
    ("n_pos", _INT, "modes", "Vectors that grew by more than a factor e over the run."),
    ("late_drift", _FLOAT, "latent norm", "Mean ||z_t - z_(t-1)|| of z_H over the last four ACT steps."),
    ("relative_late_drift", _FLOAT, "ratio", "late_drift over ||z|| at the end."),
    ("settled", pa.bool_(), "", "Whether late_drift is below Otsu's threshold of all examples of this diagnosis."),
)

UNROLLS_SCHEMA = _table(
    ("trial_id", _TEXT, "", "Hash of the trial's config; names its folder."),
    ("step", _INT, "batches", "Batches trained before this evaluation, the trial's last."),
    ("example", _INT, "", "Place among the test puzzles; the evaluation's `correct` has the same order."),
    ("sigma", _FLOAT, "latent RMS", "0 is the clean run; else rollout 0 at the largest of the evaluation's sigmas."),
    ("question", _TEXT, "", "The puzzle, as a CSV holds it."),
    ("answer", _TEXT, "", "Its answer."),
    ("predicted", pa.list_(_TEXT), "", "What the model answers after each ACT step; ? is no cell of the task."),
    ("q_halt", pa.list_(_FLOAT), "logit", "Halting logit after each ACT step."),
)

TRIALS_SCHEMA = _table(
    ("sweep", _TEXT, "", "Name of the sweep."),
    ("arm", _TEXT, "", "Arm of the sweep."),
    ("point", _TEXT, "", "What it has of the grid: empty without one, or for an arm that ignores it."),
    ("points", pa.list_(_TEXT), "", "Grid points this trial stands for (an arm that ignores the grid has several)."),
    ("seed", _INT, "", "Seed of the trial; arms are paired by it."),
    ("trial_id", _TEXT, "", "Hash of the trial's config; names its folder."),
    ("model", _TEXT, "", "Architecture: hrm, trm or srm."),
    ("task", _TEXT, "", "sudoku or maze."),
    ("objective", _TEXT, "", "What is trained: clean, or a perturbed objective."),
    ("rollout", _TEXT, "", "What becomes of a batch: parallel_fixed, act_mask or serial_act."),
    ("rollouts", _INT, "trajectories", "Trajectories a puzzle in training, K."),
    (
        "train_sigma",
        _FLOAT,
        "as perturb.scale",
        "Its perturb.sigma, of an interval the geometric middle; null without.",
    ),
    (
        "status",
        _TEXT,
        "",
        "waiting, running (a process trains it), unfinished (interrupted), done, stopped or failed.",
    ),
    ("reason", _TEXT, "", "Why it failed, or the sweep's scheduler stopped it early; null otherwise."),
    ("started", _TIME, "UTC", "Start of its first attempt; null before it."),
    ("ended", _TIME, "UTC", "When it was done, stopped or failed; null until then."),
    ("step", _INT, "batches", "Step of its last evaluation; null before the first."),
    ("steps", _INT, "batches", "Steps asked for."),
    ("data_digest", _TEXT, "", "sha256 of its puzzles; null before the start."),
    ("test_digest", _TEXT, "", "sha256 of the test puzzles it is scored on; null before the start."),
    ("parameters", _INT, "weights", "Trained weights of the model; null before the start."),
    ("commit", _TEXT, "", "Commit of the code at its last attempt; null before the start."),
    ("device", _TEXT, "", "Processor or GPU of its last attempt; null before the start."),
    ("flops_per_act_step", _INT, "FLOP", "Matrix products of one trajectory's ACT step, forward and backward."),
    (
        "flops_per_step",
        _FLOAT,
        "FLOP",
        "The same for a step: all rows and rollouts; mean so far, null before the first.",
    ),
    ("train_seconds", _FLOAT, "s", "Time spent training, over all attempts; null until done."),
    ("evaluate_seconds", _FLOAT, "s", "Time spent evaluating, over all attempts; null until done."),
    ("evaluate_share", _FLOAT, "share", "evaluate_seconds of all its time; null until done."),
    ("device_hours", _FLOAT, "h", "All its time times its GPUs, or its cores where it has none. Null until done."),
    ("seconds_per_evaluation", _FLOAT, "s", "Mean time of one evaluation of both splits; null until done."),
    ("config", _TEXT, "JSON", "The whole TrialConfig."),
    ("provenance", _TEXT, "JSON", "Commit, versions, device and threads of each attempt."),
    ("source", _TEXT, "", "Digest of the files this row was read from; gathering reads a trial again if it changes."),
)

PUZZLES_SCHEMA = _table(
    ("test_digest", _TEXT, "", "sha256 of the test puzzles of which this is one: see trials."),
    ("example", _INT, "", "Its place among them; the evaluation's `correct` has the same order."),
    ("question", _TEXT, "", "The puzzle, as a CSV holds it."),
    ("answer", _TEXT, "", "Its answer."),
    ("rating", _FLOAT, "", "How hard it is, as its CSV says; null where that says nothing."),
    ("givens", _INT, "cells", "Sudoku: cells that are given; null for other tasks."),
    ("path_length", _INT, "cells", "Mazes: cells on the answer's path, start and goal counted; null for other tasks."),
)

LAST_K = 3

# metric -> (unit, what it is); all of exact correctness on test puzzles but the last two
METRICS = {
    "best": ("share", "Clean run at the step whose clean accuracy on validation is highest."),
    "final": ("share", "Clean run, last evaluation."),
    "last_k": ("share", f"Clean run, mean of the last {LAST_K} evaluations after training began."),
    "equal_compute": ("share", "Clean run, last evaluation within the FLOPs that both sides were trained for."),
    "perturbed": ("share", "Mean over perturbed rollouts, last evaluation."),
    "perturbed_all": ("share", "Solved by every perturbed rollout."),
    "perturbed_any": ("share", "Solved by some perturbed rollout (pass@K)."),
    "perturbed_best_q": ("share", "Solved by the perturbed rollout with the highest halting logit."),
    "perturbed_majority": ("share", "Solved by the answer that most perturbed rollouts give."),
    "positive_modes": ("modes", "Lyapunov vectors that grew by more than e, mean over diagnosed examples."),
    "lambda_1": ("nats/sub-update", "First Lyapunov exponent, median over diagnosed examples."),
}
MODES = "positive_modes"
# The metrics that are tested, each at every sigma, after as many ACT steps as were trained; all others are exploratory.
SIGNALS = ("best", "final", "equal_compute", "perturbed", MODES)
PRIMARY = ("best", 0.0)  # the metric, and its sigma, that a headline begins with where a sweep does not say
MARGIN = 0.02  # of clean accuracy: a difference whose interval lies within it counts as none

_OF_METRIC = "as the metric"
_COMPARED = (
    ("sweep", _TEXT, "", "Name of the sweep."),
    ("arm", _TEXT, "", "Arm that is compared."),
    ("baseline", _TEXT, "", "Arm it is compared with; sweep/arm if it is another sweep's."),
    ("point", _TEXT, "", "Grid point; empty without a grid."),
)
_ROLE = ("role", _TEXT, "", "signal: tested, and corrected for the others; exploratory: an interval, and no verdict.")

COMPARISON_SCHEMA = _table(
    *_COMPARED,
    ("model", _TEXT, "", "Architecture: hrm, trm or srm."),
    ("task", _TEXT, "", "sudoku or maze."),
    ("objective", _TEXT, "", "The arm's: clean, or a perturbed objective."),
    ("rollout", _TEXT, "", "The arm's: parallel_fixed, act_mask or serial_act."),
    ("rollouts", _INT, "trajectories", "The arm's trajectories a puzzle in training, K."),
    ("perturb", _TEXT, "JSON", "The arm's noise in training; null if there is none."),
    ("train_sigma", _FLOAT, "as perturb.scale", "Sigma drawn in training, mean over the arm's evaluations and seeds."),
    ("noise_rms_z_H", _FLOAT, "latent units", "RMS of the noise added to z_H, as rounded; mean likewise."),
    ("noise_rms_z_L", _FLOAT, "latent units", "RMS of the noise added to z_L, as rounded; mean likewise."),
    ("noise_fidelity", _FLOAT, "cosine", f"The arm's mean, of the change that noise makes to a latent, {_FIDELITY}"),
    ("metric", _TEXT, "", "What is compared: see METRICS."),
    ("unit", _TEXT, "", "Of the metric, its difference and their intervals: see METRICS."),
    ("sigma", _FLOAT, "latent RMS", "Noise of the evaluation; 0 is the clean run."),
    ("depth", _INT, "ACT steps", "Steps after which the arm's answers are read."),
    ("baseline_depth", _INT, "ACT steps", "Steps after which the baseline's are."),
    ("trained_depth", pa.bool_(), "", "Whether each is read after the steps it was trained with, or both deeper."),
    _ROLE,
    ("primary", pa.bool_(), "", "Whether a headline begins with this row: the sweep file's `primary`."),
    ("margin", _FLOAT, "share", "Difference of accuracies that counts as none: the sweep file's `margin`."),
    ("n_seeds", _INT, "seeds", "Pairs of runs that are done."),
    ("n_planned", _INT, "seeds", "Pairs that the sweep asks for."),
    ("n_failed", _INT, "seeds", "Pairs that ended with a run failed; they count at their worst."),
    ("n_stopped", _INT, "seeds", "Pairs of which the sweep's scheduler stopped a run early; the others are selected."),
    ("failed_seeds", pa.list_(_INT), "", "The seeds of n_failed."),
    ("unpaired_seeds", pa.list_(_INT), "", "Seeds that only one side has, where the baseline is another sweep's."),
    ("n_examples", _INT, "examples", "Test examples, the same in both arms."),
    ("baseline_mean", _FLOAT, _OF_METRIC, "The baseline's, mean over paired seeds."),
    ("arm_mean", _FLOAT, _OF_METRIC, "The arm's, mean over paired seeds."),
    ("baseline_sd", _FLOAT, _OF_METRIC, "Standard deviation between the baseline's seeds; null for one seed."),
    ("arm_sd", _FLOAT, _OF_METRIC, "Standard deviation between the arm's seeds; null for one seed."),
    ("baseline_iqm", _FLOAT, _OF_METRIC, "Interquartile mean over the baseline's seeds."),
    ("arm_iqm", _FLOAT, _OF_METRIC, "Interquartile mean over the arm's seeds."),
    ("difference", _FLOAT, _OF_METRIC, "arm_mean - baseline_mean."),
    ("difference_sd", _FLOAT, _OF_METRIC, "Standard deviation of the difference between seeds; null for one seed."),
    ("low", _FLOAT, _OF_METRIC, "Lower end of the 95 % interval of the difference, over what paired_by says."),
    ("high", _FLOAT, _OF_METRIC, "Upper end."),
    ("paired_by", _TEXT, "", "seed and puzzle: both are samples; puzzle: one pair of runs; seed: these puzzles only."),
    ("seeds_low", _FLOAT, _OF_METRIC, "Lower end of the 95 % t interval over seeds, for these puzzles only."),
    ("seeds_high", _FLOAT, _OF_METRIC, "Upper end."),
    ("p", _FLOAT, "probability", "Two-sided p of no difference by sign flips of seeds, of this row by itself."),
    ("p_adjusted", _FLOAT, "probability", "p for all signals of all arms and points; null until all pairs ended."),
    ("comparisons", _INT, "places", "Distinct arms and points that p_adjusted is corrected for."),
    (
        "looks",
        _INT,
        "looks",
        "Complete comparisons of these seeds before, with others: then p_adjusted is always valid.",
    ),
    ("worst_seed", _INT, "", "The seed that speaks most against the arm."),
    ("worst_difference", _FLOAT, _OF_METRIC, "Its difference."),
    ("bound", _FLOAT, _OF_METRIC, "The difference if failed pairs count at their worst; null if none failed."),
    ("probability_of_improvement", _FLOAT, "probability", "That a seed of the arm is above one of the baseline."),
    ("mcnemar_gained", pa.list_(_INT), "examples", "By seed, examples only the arm solves; null if not yes or no."),
    ("mcnemar_lost", pa.list_(_INT), "examples", "By seed, examples only the baseline solves; null likewise."),
    ("mcnemar_p", pa.list_(_FLOAT), "probability", "By seed, exact two-sided McNemar p; null likewise."),
    ("seeds_needed", _INT, "seeds", "Pairs below which p_adjusted cannot be below 0.05."),
    ("detectable", _FLOAT, _OF_METRIC, "Difference found with 80 % power by detectable_seeds; null below four seeds."),
    ("detectable_seeds", _INT, "seeds", "The seeds planned, or as many as a verdict on any signal needs if more."),
    ("regressed", _TEXT, "", "Clean metrics: yes, no (not by more than the margin) or cannot tell; null for others."),
    ("collapsed", _INT, "seeds", "Of the arm's: last accuracy below the best by more than 5 points."),
    ("baseline_collapsed", _INT, "seeds", "Of the baseline's: likewise."),
    ("optimizer_steps", _FLOAT, "steps", "The arm's, mean over paired seeds."),
    ("act_steps", _FLOAT, "trajectory-steps", "The arm's, mean over paired seeds."),
    ("flops", _FLOAT, "FLOP", "Trained by the arm, mean over paired seeds."),
    ("compute_ratio", _FLOAT, "ratio", "FLOPs trained, arm over baseline."),
    ("device_hours", _FLOAT, "h", "GPU-hours of the arm, core-hours where it ran on none; mean over paired seeds."),
    ("baseline_device_hours", _FLOAT, "h", "The baseline's, likewise."),
    ("minutes", _FLOAT, "min", "Training and evaluation of the arm, mean over paired seeds."),
    ("baseline_minutes", _FLOAT, "min", "Training and evaluation of the baseline, mean over paired seeds."),
    ("parameters", _INT, "weights", "Trained weights of the arm's model."),
    ("commit", _TEXT, "", "Commits of the code the arm ran with."),
    ("data_digest", _TEXT, "", "sha256 of the arm's puzzles."),
    ("verdict", _TEXT, "", "up, down, level (within the margin) or cannot tell; else why nothing is said."),
)

DIFFERENCES_SCHEMA = _table(
    *_COMPARED,
    ("metric", _TEXT, "", "What is compared: see METRICS."),
    ("unit", _TEXT, "", "Of the scores and their difference: see METRICS."),
    ("sigma", _FLOAT, "latent RMS", "Noise of the evaluation; 0 is the clean run."),
    ("depth", _INT, "ACT steps", "Steps after which the arm's answers are read."),
    _ROLE,
    ("seed", _INT, "", "Seed of both runs."),
    ("trial_id", _TEXT, "", "The arm's trial."),
    ("baseline_trial_id", _TEXT, "", "The baseline's."),
    ("baseline_score", _FLOAT, _OF_METRIC, "The baseline's, over the test examples."),
    ("score", _FLOAT, _OF_METRIC, "The arm's, likewise."),
    ("difference", _FLOAT, _OF_METRIC, "score - baseline_score."),
)

PARTITION = "sweep"
# The tables as `gather` and `load` give them: the partition is the first column, as in trials and comparison above.
TABLE_SCHEMAS = {
    "trials": TRIALS_SCHEMA,
    "evals": EVALS_SCHEMA.insert(0, TRIALS_SCHEMA.field(PARTITION)),
    "diagnostics": DIAGNOSTICS_SCHEMA.insert(0, TRIALS_SCHEMA.field(PARTITION)),
    "comparison": COMPARISON_SCHEMA,
    "differences": DIFFERENCES_SCHEMA,
    "puzzles": PUZZLES_SCHEMA.insert(0, TRIALS_SCHEMA.field(PARTITION)),
}


VERSION = {b"version": b"2"}  # of the tables' columns and their meaning: metadata of each of their files


class OldTableError(ValueError):
    """A table that an earlier version wrote, whose columns mean something else; the text names the mend."""


def check_version(schema: pa.Schema, path: str) -> None:
    """Raises OldTableError if the table in a file, of which this is the schema, is of another version."""
    found = (schema.metadata or {}).get(b"version", b"1")
    if found != VERSION[b"version"]:
        sweep = path.rpartition("/")[0].rpartition("=")[2]
        ours = VERSION[b"version"].decode()
        raise OldTableError(
            f"{path}: version {found.decode()} of the tables, and this reads version {ours}; gather {sweep} again: rrm "
            "results gather SWEEP"
        )


def file_schema(table: str) -> pa.Schema:
    """The columns of a table's files. The partition is none of them: its folder's name says it."""
    return TABLE_SCHEMAS[table].remove(0)


def table_file(storage: Location, table: str, sweep: str) -> Location:
    """The file of a table that holds the rows of one sweep."""
    return storage / TABLES / table / f"{PARTITION}={sweep}" / f"{table}.parquet"


@dataclass(frozen=True)
class TrialEnd:
    """How a trial stands: its status, and why it failed or was stopped, or how far it got, where that is known."""

    status: Status
    reason: str | None = None
    done: dict[str, Any] | None = None
    deterministic: bool = False
    ended: str | None = None  # a time in UTC; None where an older version did not say


def trial_end(folder: Location, steps: int) -> TrialEnd:
    """How the trial in `folder` stands when `steps` are asked for; a folder that is not there is waiting.

    running: a live process holds the trial's lock. Without one, a trial that has a saved state is unfinished.
    """
    done = read_json(folder / DONE)
    if done and done["step"] >= steps and (folder / EVALS).exists():
        return TrialEnd("done", done=done, ended=done.get("ended"))
    if failed := read_json(folder / FAILED):
        diverged = failed["kind"] == "diverged"
        return TrialEnd("failed", reason=failed["reason"], deterministic=diverged, ended=failed.get("ended"))
    if stopped := read_json(folder / STOPPED):
        return TrialEnd("stopped", reason=stopped["reason"], ended=stopped.get("ended"))
    if is_held(folder / LOCK):
        return TrialEnd("running")
    started = any((folder / name).exists() for name in (LATEST_STATE, PREVIOUS_STATE))
    return TrialEnd("unfinished" if started else "waiting")


class DamagedFileError(ValueError):
    """A file of a sweep's folder that cannot be read; the text names it and the mend."""


def read_json(path: Location) -> dict[str, Any] | None:
    """A JSON object from a file, as results.records says what one of its name holds; None if there is no such file.

    Raises DamagedFileError if it holds something else, with the field and its value; OSError.
    """
    try:
        text = path.read_bytes()
        content = json.loads(text)
        if b"\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()  # half a character, which no file and no terminal takes
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path}: cannot be read ({error}); move it away") from error
    if problem := problem_of(path.name, content):
        raise DamagedFileError(f"{path}: {problem}; move it away")
    return content


def read_table(path: Location, schema: pa.Schema) -> pa.Table:
    """A trial's table, empty if there is no such file. Raises DamagedFileError if it cannot be used; OSError."""
    try:
        # One open: given the path, pyarrow opens it twice, and a running trial may replace the file in between.
        content = path.read_bytes()
    except FileNotFoundError:
        return schema.empty_table()
    try:
        # A few dozen rows: threads and a data set's machinery would cost three times the reading.
        table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        table = table if table.schema.equals(schema) else table.cast(schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DamagedFileError(f"{path}: not a table of {path.stem} ({reason}); move it away") from error
    if problem := table_problem(path.stem, table):
        raise DamagedFileError(f"{path}: {problem}; move it away")
    return table

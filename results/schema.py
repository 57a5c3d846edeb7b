"""What stands in a storage: file names, the tables' columns with types and units.

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

import pyarrow as pa

from results.columns import BOOL, FIDELITY, FLOAT, HARD, INT, TEXT, TIME, schema_of
from results.compared import COMPARISON_SCHEMA, DIFFERENCES_SCHEMA
from results.diagnosis_schema import DIAGNOSIS_SCHEMAS
from results.storage import Location

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
UNROLLS = "unrolls.parquet"
LATEST_STATE = "latest_state.pt"
PREVIOUS_STATE = "previous_state.pt"
SAVED = "saved.json"  # the step of latest_state.pt
BEST, BEST_STATE = "best.pt", "best_state.pt"
FINAL, FINAL_STATE = "final.pt", "final_state.pt"

_NOISE = "since the evaluation before, mean over perturbed trajectories; null where there were none."
EVALS_SCHEMA = schema_of(
    ("trial_id", TEXT, "", "Hash of the trial's config; names its folder."),
    ("step", INT, "batches", "Batches trained before this evaluation."),
    ("optimizer_steps", INT, "steps", "Optimizer steps taken before this evaluation."),
    ("act_steps", INT, "trajectory-steps", "ACT steps trained, counted over all rows and rollouts."),
    ("train_flops", FLOAT, "FLOP", "Matrix products of these, races and looks ahead included; null in older tables."),
    ("train_loss", FLOAT, "nats", "Mean training loss since the evaluation before; null at the first."),
    ("train_sigma", FLOAT, "as perturb.scale", f"Sigma drawn in training {_NOISE}"),
    ("noise_rms_z_H", FLOAT, "latent units", f"RMS of the noise drawn for z_H, as rounded {_NOISE}"),
    ("noise_rms_z_L", FLOAT, "latent units", f"RMS of the noise drawn for z_L, as rounded {_NOISE}"),
    ("winner_changes", FLOAT, "share", "ACT steps after the first that another trajectory won than the one before."),
    ("winner_entropy", FLOAT, "nats", "Of which trajectory wins, by its number: ln K if all do alike, 0 if one does."),
    ("noise_fidelity", FLOAT, "cosine", f"Of the change that noise makes to the first latent, {FIDELITY}"),
    ("noise_fidelity_unroll", FLOAT, "cosine", "The same after halt_max_steps ACT steps."),
    ("noise_norm_ratio", FLOAT, "ratio", "Size of that change after one ACT step, over float32's."),
    ("noise_fidelity_largest", FLOAT, "cosine", "noise_fidelity at the largest sigma of training."),
    ("noise_fidelity_unroll_largest", FLOAT, "cosine", "noise_fidelity_unroll likewise."),
    ("noise_norm_ratio_largest", FLOAT, "ratio", "noise_norm_ratio likewise."),
    ("split", TEXT, "", "validation (chooses the best checkpoint) or test (scores it)."),
    (
        "when",
        TEXT,
        "",
        "Noise comes at the start, as each act_step begins, or on each update; start for the clean run.",
    ),
    ("sigma", FLOAT, "latent RMS", "Standard deviation of the noise on the latents; 0 is the clean run."),
    (
        "depth",
        INT,
        "ACT steps",
        "Steps after which answers are read: halt_max_steps of the training, or a deeper one.",
    ),
    ("rollouts", INT, "trajectories", "Trajectories an example."),
    ("n", INT, "examples", "Evaluation examples, the same for every trial of the task."),
    ("exact_accuracy", FLOAT, "share", "Puzzles solved in every cell: mean over examples and rollouts."),
    ("all_exact_accuracy", FLOAT, "share", "Examples that every rollout solves."),
    ("any_exact_accuracy", FLOAT, "share", "Examples that some rollout solves (pass@K)."),
    ("best_q_exact_accuracy", FLOAT, "share", "Examples solved by the rollout with the highest halting logit."),
    ("majority_exact_accuracy", FLOAT, "share", "Examples solved by the answer that most rollouts give."),
    (
        "most_settled_exact_accuracy",
        FLOAT,
        "share",
        "By the rollout whose logits change least in the last 3 ACT steps.",
    ),
    ("first_to_halt_exact_accuracy", FLOAT, "share", "By the rollout that wants to halt first; of equals the best_q."),
    ("pass_at_k", pa.list_(FLOAT), "share", "Examples that some of k rollouts solves, unbiased: k = 1, 2, 4, ..., K."),
    (
        "halting_exact_accuracy",
        FLOAT,
        "share",
        "Solved at the ACT step where each rollout wants to halt, else the last.",
    ),
    ("halting_steps", FLOAT, "ACT steps", "Mean number of steps taken so."),
    ("done_share", FLOAT, "share", "Answers whose rollout says that it is done: a halting logit above 0."),
    ("done_exact_accuracy", FLOAT, "share", "Puzzles solved, of those answers alone; null if there are none."),
    ("settled_share", FLOAT, "share", "Answers that stayed the same over the last 3 ACT steps."),
    ("settled_exact_accuracy", FLOAT, "share", "Puzzles solved, of those answers alone; null if there are none."),
    ("token_accuracy", FLOAT, "share", "Cells that are right, givens included."),
    ("valid_accuracy", FLOAT, "share", "Mazes: answers that are a path from start to goal; null for other tasks."),
    ("shortest_accuracy", FLOAT, "share", "Mazes: answers that are a shortest path, whichever; null for other tasks."),
    ("lm_loss", FLOAT, "nats", "Token loss a cell at the last ACT step."),
    ("correct", pa.binary(), "bits", "Exact correctness, bool [n, rollouts] packed row-major."),
    ("best_q_correct", pa.binary(), "bits", "Correctness of the answer chosen by halting logit, bool [n] packed."),
    ("majority_correct", pa.binary(), "bits", "Correctness of the answer chosen by majority, bool [n] packed."),
    ("most_settled_correct", pa.binary(), "bits", "Correctness of the most settled rollout's answer, bool [n] packed."),
    ("first_to_halt_correct", pa.binary(), "bits", "Correctness of the answer of the first to halt, bool [n] packed."),
    ("valid_correct", pa.binary(), "bits", "Mazes: answers that are a path, bool [n, rollouts] packed; else null."),
    ("shortest_correct", pa.binary(), "bits", "Mazes: answers that are a shortest path, likewise."),
    newer={"when": "start"}
    | dict.fromkeys(
        (
            *("train_flops", "noise_fidelity", "noise_fidelity_unroll", "noise_norm_ratio", "noise_fidelity_largest"),
            *("noise_fidelity_unroll_largest", "noise_norm_ratio_largest"),
            *("winner_changes", "winner_entropy", "pass_at_k", "most_settled_exact_accuracy"),
            *("first_to_halt_exact_accuracy", "halting_exact_accuracy", "halting_steps", "done_share"),
            *("done_exact_accuracy", "settled_share", "settled_exact_accuracy", "most_settled_correct"),
            *("first_to_halt_correct", "valid_correct", "shortest_correct"),
        )
    ),
)

UNROLLS_SCHEMA = schema_of(
    ("trial_id", TEXT, "", "Hash of the trial's config; names its folder."),
    ("step", INT, "batches", "Batches trained before this evaluation, the trial's last."),
    ("example", INT, "", "Place among the test puzzles; the evaluation's `correct` has the same order."),
    (
        "sigma",
        FLOAT,
        "latent RMS",
        "0 is the clean run; else rollout 0 at the evaluation's last level: update, act_step, start; the largest.",
    ),
    ("question", TEXT, "", "The puzzle, as a CSV holds it."),
    ("answer", TEXT, "", "Its answer."),
    ("predicted", pa.list_(TEXT), "", "What the model answers after each ACT step; ? is no cell of the task."),
    ("q_halt", pa.list_(FLOAT), "logit", "Halting logit after each ACT step."),
)

TRIALS_SCHEMA = schema_of(
    ("sweep", TEXT, "", "Name of the sweep."),
    ("arm", TEXT, "", "Arm of the sweep."),
    ("point", TEXT, "", "What it has of the grid: empty without one, or for an arm that ignores it."),
    ("points", pa.list_(TEXT), "", "Grid points this trial stands for (an arm that ignores the grid has several)."),
    ("seed", INT, "", "Seed of the trial; arms are paired by it."),
    ("trial_id", TEXT, "", "Hash of the trial's config; names its folder."),
    ("model", TEXT, "", "Architecture: hrm, trm or srm."),
    ("task", TEXT, "", "sudoku or maze."),
    ("objective", TEXT, "", "What is trained: clean, or a perturbed objective."),
    ("rollout", TEXT, "", "What becomes of a batch: parallel_fixed, act_mask or serial_act."),
    ("rollouts", INT, "trajectories", "Trajectories a puzzle in training, K."),
    (
        "train_sigma",
        FLOAT,
        "as perturb.scale",
        "Its perturb.sigma, of an interval the geometric middle; null without.",
    ),
    (
        "status",
        TEXT,
        "",
        "waiting, running (a process trains it), unfinished (interrupted), done, stopped, failed, or unreadable.",
    ),
    ("reason", TEXT, "", "Why it failed, cannot be read, or was stopped early by the sweep's scheduler; else null."),
    ("started", TIME, "UTC", "Start of its first attempt; null before it."),
    ("ended", TIME, "UTC", "When it was done, stopped or failed; null until then."),
    ("step", INT, "batches", "Step of its last evaluation; null before the first."),
    ("steps", INT, "batches", "Steps asked for."),
    ("peak_depth", INT, "ACT steps", "The first depth of the highest clean accuracy on test, at that step."),
    ("decays", BOOL, "", "Whether a deeper reading than that is lower by more than 2 points; null for one depth."),
    ("data_digest", TEXT, "", "sha256 of its puzzles; null before the start."),
    ("test_digest", TEXT, "", "sha256 of the test puzzles it is scored on; null before the start."),
    ("parameters", INT, "weights", "Trained weights of the model; null before the start."),
    ("commit", TEXT, "", "Commit of the code at its last attempt; null before the start."),
    ("device", TEXT, "", "Processor or GPU of its last attempt; null before the start."),
    ("flops_per_act_step", INT, "FLOP", "Of one trajectory's ACT step in training, after a warm-up: matrix products."),
    (
        "flops_per_step",
        FLOAT,
        "FLOP",
        "The same for a step: all rows and rollouts; mean so far, null before the first.",
    ),
    ("train_seconds", FLOAT, "s", "Time spent training, over all attempts; null until done."),
    ("evaluate_seconds", FLOAT, "s", "Time spent evaluating, over all attempts; null until done."),
    ("evaluate_share", FLOAT, "share", "evaluate_seconds of all its time; null until done."),
    ("device_hours", FLOAT, "h", "All its time times its GPUs, or its cores where it has none. Null until done."),
    ("seconds_per_evaluation", FLOAT, "s", "Mean time of one evaluation of both splits; null until done."),
    ("config", TEXT, "JSON", "The whole TrialConfig."),
    ("provenance", TEXT, "JSON", "Commit, versions, device and threads of each attempt."),
    ("source", TEXT, "", "Digest of the files this row was read from; gathering reads a trial again if it changes."),
)

PUZZLES_SCHEMA = schema_of(
    ("test_digest", TEXT, "", "sha256 of the test puzzles of which this is one: see trials."),
    ("example", INT, "", "Its place among them; the evaluation's `correct` has the same order."),
    ("question", TEXT, "", "The puzzle, as a CSV holds it."),
    ("answer", TEXT, "", "Its answer."),
    *HARD,
)

PARTITION = "sweep"
# The tables as `gather` and `load` give them: the partition is the first column, as in trials and comparison above.
TABLE_SCHEMAS = {
    "trials": TRIALS_SCHEMA,
    "evals": EVALS_SCHEMA.insert(0, TRIALS_SCHEMA.field(PARTITION)),
    **{name: schema.insert(0, TRIALS_SCHEMA.field(PARTITION)) for name, schema in DIAGNOSIS_SCHEMAS.items()},
    "comparison": COMPARISON_SCHEMA,
    "differences": DIFFERENCES_SCHEMA,
    "puzzles": PUZZLES_SCHEMA.insert(0, TRIALS_SCHEMA.field(PARTITION)),
}


VERSION = {b"version": b"4"}  # of the tables' columns and their meaning: metadata of each of their files


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

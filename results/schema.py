"""What stands in a sweep's folder: file names, the tables' columns with types and units, how a trial ended.

<storage>/<sweep>/sweep.json          which arms, grid points and seeds stand for which trial
<storage>/<sweep>/trials/<trial id>/  one folder a trial
<storage>/<sweep>/tables/             the tables that `gather` makes of them
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

MANIFEST = "sweep.json"
SPEC = "spec.yaml"
TRIALS = "trials"
TABLES = "tables"
ATTEMPTS = "attempts"

TRIAL = "trial.json"
DONE = "done.json"
FAILED = "failed.json"
EVALS = "evals.parquet"
LATEST_STATE = "latest_state.pt"
PREVIOUS_STATE = "previous_state.pt"

Status = Literal["waiting", "unfinished", "done", "failed"]


def _table(*columns: tuple[str, pa.DataType, str, str]) -> pa.Schema:
    return pa.schema(
        [
            pa.field(name, kind, metadata={"unit": unit, "description": description})
            for name, kind, unit, description in columns
        ]
    )


_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()

EVALS_SCHEMA = _table(
    ("trial_id", _TEXT, "", "Hash of the trial's config; names its folder."),
    ("step", _INT, "batches", "Batches trained before this evaluation."),
    ("optimizer_steps", _INT, "steps", "Optimizer steps taken before this evaluation."),
    ("act_steps", _INT, "trajectory-steps", "ACT steps trained, counted over all rows and rollouts."),
    ("train_loss", _FLOAT, "nats", "Mean training loss since the evaluation before; null at the first."),
    ("split", _TEXT, "", "validation (chooses the best checkpoint) or test (scores it)."),
    ("sigma", _FLOAT, "latent RMS", "Standard deviation of the noise on the initial latents; 0 is the clean run."),
    ("rollouts", _INT, "trajectories", "Trajectories an example."),
    ("n", _INT, "examples", "Evaluation examples, the same for every trial of the task."),
    ("exact_accuracy", _FLOAT, "share", "Puzzles solved in every cell: mean over examples and rollouts."),
    ("all_exact_accuracy", _FLOAT, "share", "Examples that every rollout solves."),
    ("token_accuracy", _FLOAT, "share", "Cells that are right, givens included."),
    ("lm_loss", _FLOAT, "nats", "Token loss a cell at the last ACT step."),
    ("correct", pa.binary(), "bits", "Exact correctness, bool [n, rollouts] packed row-major."),
)

TRIALS_SCHEMA = _table(
    ("sweep", _TEXT, "", "Name of the sweep."),
    ("arm", _TEXT, "", "Arm of the sweep."),
    ("points", pa.list_(_TEXT), "", "Grid points this trial stands for (an arm that ignores the grid has several)."),
    ("seed", _INT, "", "Seed of the trial; arms are paired by it."),
    ("trial_id", _TEXT, "", "Hash of the trial's config; names its folder."),
    ("status", _TEXT, "", "waiting, unfinished, done or failed."),
    ("reason", _TEXT, "", "Why it failed; null otherwise."),
    ("step", _INT, "batches", "Step of its last evaluation; null before the first."),
    ("steps", _INT, "batches", "Steps asked for."),
    ("data_digest", _TEXT, "", "sha256 of its puzzles; null before the start."),
    ("test_digest", _TEXT, "", "sha256 of the test puzzles it is scored on; null before the start."),
    ("train_seconds", _FLOAT, "s", "Time spent training, over all attempts; null until done."),
    ("evaluate_seconds", _FLOAT, "s", "Time spent evaluating, over all attempts; null until done."),
    ("config", _TEXT, "JSON", "The whole TrialConfig."),
    ("provenance", _TEXT, "JSON", "Commit, versions, device and threads of each attempt."),
)

COMPARISON_SCHEMA = _table(
    ("sweep", _TEXT, "", "Name of the sweep."),
    ("arm", _TEXT, "", "Arm that is compared."),
    ("baseline", _TEXT, "", "Arm it is compared with."),
    ("point", _TEXT, "", "Grid point; empty without a grid."),
    ("metric", _TEXT, "", "final, best (chosen on validation), perturbed (mean) or perturbed_all (every rollout)."),
    ("sigma", _FLOAT, "latent RMS", "Noise of the evaluation; 0 is the clean run."),
    ("n_seeds", _INT, "seeds", "Seeds that both arms finished."),
    ("n_examples", _INT, "examples", "Test examples, the same in both arms."),
    ("baseline_mean", _FLOAT, "share", "Exact accuracy of the baseline on test, mean over paired seeds."),
    ("arm_mean", _FLOAT, "share", "Exact accuracy of the arm on test, mean over paired seeds."),
    ("difference", _FLOAT, "share", "arm_mean - baseline_mean."),
    ("low", _FLOAT, "share", "Lower end of the 95 % interval of the difference."),
    ("high", _FLOAT, "share", "Upper end of the 95 % interval of the difference."),
    ("p", _FLOAT, "probability", "Two-sided p-value of no difference."),
    ("paired_by", _TEXT, "", "seed: interval over training runs; example: over test examples, for these runs only."),
    ("compute_ratio", _FLOAT, "ratio", "ACT steps trained, arm over baseline."),
    ("verdict", _TEXT, "", "What the numbers allow to say."),
)


@dataclass(frozen=True)
class TrialEnd:
    """How a trial stands: its status, and why it failed or how far it got where that is known."""

    status: Status
    reason: str | None = None
    done: dict[str, Any] | None = None
    deterministic: bool = False


def trial_end(folder: Path, steps: int) -> TrialEnd:
    """How the trial in `folder` stands when `steps` are asked for; a folder that is not there is waiting."""
    done = read_json(folder / DONE, step=int, seconds=dict)
    if done and done["step"] >= steps and (folder / EVALS).exists():
        return TrialEnd("done", done=done)
    if failed := read_json(folder / FAILED, reason=str, kind=str):
        return TrialEnd("failed", reason=failed["reason"], deterministic=failed["kind"] == "diverged")
    started = any((folder / name).exists() for name in (LATEST_STATE, PREVIOUS_STATE))
    return TrialEnd("unfinished" if started else "waiting")


class DamagedFileError(ValueError):
    """A file of a sweep's folder that cannot be read; the text names it and the mend."""


def read_json(path: Path, **fields: type) -> dict[str, Any] | None:
    """A JSON object from a file, None if there is no such file.

    Raises DamagedFileError if it holds something else, or lacks one of `fields` in the type given.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise DamagedFileError(f"{path}: cannot be read ({error}); move it away") from error
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path}: holds no JSON object; move it away")
    for name, kind in fields.items():
        if not isinstance(content.get(name), kind):
            raise DamagedFileError(f"{path}: its field {name} is {content.get(name)!r}; move it away")
    return content


def read_evals(path: Path) -> pa.Table:
    """A trial's evals.parquet, empty if there is no such file. Raises DamagedFileError if it cannot be used."""
    if not path.exists():
        return EVALS_SCHEMA.empty_table()
    try:
        # One open: given the path, pyarrow opens it twice, and a running trial may replace the file in between.
        return pq.read_table(pa.BufferReader(path.read_bytes())).cast(EVALS_SCHEMA)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DamagedFileError(f"{path}: not a table of evaluations ({reason}); move it away") from error

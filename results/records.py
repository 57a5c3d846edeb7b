"""What the files of a storage hold, field by field and row by row. Others may write there: nothing is read unchecked.

Fields of a JSON file that are not named here are its writer's own, and may be anything.
"""

import math
from functools import lru_cache, reduce
from typing import Annotated, Any, Literal, NotRequired

import pyarrow as pa
import pyarrow.compute
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

pc: Any = pyarrow.compute  # makes its functions as it is imported: types are not known
_pair = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)  # JSON has no tuples
_interval = BeforeValidator(lambda value: value if isinstance(value, list) else [value])
Count = Annotated[int, Field(ge=0, lt=2**63)]  # what a column of whole numbers holds
Spent = Annotated[float, Field(ge=0, le=1e12)]  # seconds
Sigma = Annotated[float, Field(ge=0, le=1e12)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Status = Literal["waiting", "running", "unfinished", "done", "stopped", "failed", "unreadable"]
Name = Annotated[str, Field(pattern=r"^\w[\w-]*$")]  # of a file or folder: it leads nowhere else


class Seconds(TypedDict):
    """Time spent, over all attempts."""

    train: Spent
    evaluate: Spent


class Done(TypedDict):
    """done.json: how far a trial came, and the sizes of its files."""

    step: Count
    seconds: Seconds
    files: NotRequired[dict[str, Count]]


class Failed(TypedDict):
    """failed.json: why a trial failed."""

    kind: Literal["diverged", "out_of_memory", "error"]
    reason: str


class Stopped(TypedDict):
    """stopped.json: why the sweep's scheduler stopped a trial."""

    step: Count
    reason: str


class Asked(TypedDict):
    """asked.json: the last evaluation that a scheduler was asked about."""

    step: Count


class Saved(TypedDict):
    """saved.json: the step of the last save."""

    step: Count


class Standing(TypedDict):
    """A trial in progress.json: how it stands, and what its run's driver has heard of it."""

    status: Status
    steps: Count
    step: NotRequired[Count]
    accuracy: NotRequired[Number]
    heard: NotRequired[Spent]
    longest_silence: NotRequired[Spent | None]
    rate: NotRequired[Number]
    reason: NotRequired[str]


class Told(TypedDict):
    """progress.json: when a run's driver last said how its trials stand, and how."""

    written: Spent
    ended: bool
    left: Number | None
    trials: dict[Name, Standing]


class Claim(TypedDict):
    """run.json: who runs the sweep."""

    pid: int
    host: str
    since: str
    nonce: NotRequired[str]


class Attempt(TypedDict):
    """One attempt at a trial, of trial.json."""

    commit: NotRequired[str | None]
    device: NotRequired[str | None]
    on_gpu: NotRequired[bool]
    threads: NotRequired[Count]
    workers: NotRequired[list[Any] | None]
    host: NotRequired[str]
    pid: NotRequired[int]


class Trial(TypedDict):
    """trial.json: a trial's config and provenance."""

    data_digest: NotRequired[str | None]
    test_digest: NotRequired[Name | None]
    parameters: NotRequired[Count | None]
    flops_per_act_step: NotRequired[Count | None]
    wandb_run: NotRequired[Name | None]
    config: dict[str, Any]
    attempts: NotRequired[list[Attempt]]


class _Model(TypedDict):
    arch: str


class _Task(TypedDict):
    name: str


class _Train(TypedDict):
    steps: Count


class _Perturb(TypedDict):
    rollouts: NotRequired[Count]
    sigma: NotRequired[Annotated[list[Sigma], _interval]]


class _Diagnose(TypedDict):
    k: NotRequired[Count]


class _Config(TypedDict):
    model: _Model
    task: _Task
    objective: str
    rollout: str
    perturb: _Perturb | None
    diagnose: NotRequired[_Diagnose | None]
    train: _Train


class Cell(TypedDict):
    """A place of a sweep, of sweep.json."""

    arm: str
    point: str
    seed: Count
    trial_id: Name
    config: _Config


class Manifest(TypedDict):
    """sweep.json: what belongs to a sweep."""

    baseline: str
    cells: list[Cell]
    primary: NotRequired[Annotated[tuple[str, Spent], _pair]]
    margin: NotRequired[Spent]


class Look(TypedDict):
    """A complete comparison that was made, of looks.json."""

    arm: str
    point: str
    pairs: list[Annotated[tuple[str, str], _pair]]
    margin: Spent
    planned: Count
    needed: NotRequired[Count]


class Looks(TypedDict):
    """looks.json: those of a sweep."""

    looks: list[Look]


_KINDS: dict[str, Any] = {
    "sweep.json": Manifest,
    "looks.json": Looks,
    "run.json": Claim,
    "progress.json": Told,
    "trial.json": Trial,
    "done.json": Done,
    "failed.json": Failed,
    "saved.json": Saved,
    "stopped.json": Stopped,
    "asked.json": Asked,
}


@lru_cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_KINDS[name])


def problem_of(name: str, content: Any) -> str | None:
    """What is wrong with the content of a file of this name: the field and its value. None if nothing is."""
    if name not in _KINDS:
        return None if isinstance(content, dict) else "holds no JSON object"
    try:
        _adapter(name).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        if not field:
            return "holds no JSON object"
        return (
            f"its field {field} is missing"
            if first["type"] == "missing"
            else f"its field {field} is {_shown(first['input'])}"
        )
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."


_NEVER_NULL = {  # what is read of every row
    "evals": (
        *("trial_id", "step", "optimizer_steps", "act_steps", "split", "sigma", "depth", "rollouts", "n"),
        *("exact_accuracy", "token_accuracy", "correct", "best_q_correct", "majority_correct"),
    ),
    "diagnostics": (
        *("trial_id", "step", "example", "solved", "n_pos", "lambda_1", "late_drift", "settled", "exponents", "q_halt"),
        "late_exponents",
    ),
    "windows": ("trial_id", "step", "example", "window", "lambda_1"),
    "depths": ("trial_id", "step", "example", "depth", "solved", "drift"),
    "restarts": ("trial_id", "step", "example", "sigma", "restart", "solved"),
    "robustness": ("trial_id", "step", "example", "variation", "lambda_1", "usual_lambda_1"),
    "unrolls": ("trial_id", "step", "example", "sigma", "question", "answer", "predicted", "q_halt"),
}
_SPLITS = ("validation", "test")
_BITS = {
    **dict.fromkeys(("correct", "valid_correct", "shortest_correct"), ("n", "rollouts")),
    **dict.fromkeys(("best_q_correct", "majority_correct"), ("n",)),
}
_COUNTS = ("step", "n", "rollouts", "depth", "example", "act_steps", "optimizer_steps")


def table_problem(name: str, table: pa.Table) -> str | None:
    """What is wrong with the rows of a trial's table, `name`.parquet; None if nothing is."""
    known = table.column_names
    for column in _NEVER_NULL.get(name, ()):
        if missing := table[column].null_count:
            return f"its column {column} is null in {missing} of {len(table)} rows"
    for column in (column for column in _COUNTS if column in known and len(table)):
        if (least := pc.min(table[column]).as_py() or 0) < 0:
            return f"its column {column} holds {least}"
    if name == "evals":
        return _problem_of_evals(table)
    if name == "diagnostics" and 0 in pc.unique(pc.list_value_length(table["exponents"])).to_pylist():
        return "its column exponents holds a row of none"
    if name == "diagnostics" and 0 in pc.unique(pc.list_value_length(table["late_exponents"])).to_pylist():
        return "its column late_exponents holds a row of none"
    if name == "unrolls" and not _are_grids(table):
        return "its columns question, answer and predicted are no grids of one size"
    return None


def _problem_of_evals(table: pa.Table) -> str | None:
    for column, counts in _BITS.items():
        needed = reduce(pc.multiply, (table[name] for name in counts))
        if pc.any(pc.less(pc.multiply(pc.binary_length(table[column]), 8), needed)).as_py():
            return f"its column {column} is shorter than {' x '.join(counts)} bits"
    for column in ("sigma", "exact_accuracy"):
        if not pc.all(pc.greater_equal(table[column], 0)).as_py() and len(table):
            return f"its column {column} holds what is no number from 0"
    # Each evaluation is of both splits: one chooses the step, the other scores it.
    clean = table.filter(pc.equal(table["sigma"], 0))
    at = {split: set(clean.filter(pc.equal(clean["split"], split))["step"].to_pylist()) for split in _SPLITS}
    if set(table["split"].to_pylist()) - set(_SPLITS):
        return f"its column split holds what is none of {', '.join(_SPLITS)}"
    if alone := at["validation"] ^ at["test"] or set(table["step"].to_pylist()) - at["test"]:
        return f"of step {min(alone)} a clean evaluation is missing"
    return None


def _are_grids(table: pa.Table) -> bool:
    rows = table.select(["question", "answer", "predicted", "q_halt"]).to_pylist()
    return all(
        {len(row["answer"]), *map(len, row["predicted"])} == {len(row["question"])}
        and math.isqrt(len(row["question"])) ** 2 == len(row["question"]) > 0
        and len(row["q_halt"]) == len(row["predicted"]) > 0
        for row in rows
        if None not in row["predicted"]
    ) and all(None not in row["predicted"] for row in rows)

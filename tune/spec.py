"""A sweep file: base + arms x grid x seeds -> trials. Everything is checked here, before anything starts."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from results.compared import MARGIN
from results.names import sweep_name_problem
from results.places import S3, filled_in
from results.storage import Location, back_from
from rrm.checkpoint import CheckpointError
from rrm.config import MAX_SEED, TrialConfig
from rrm.models.published import check_fit
from rrm.puzzles.dataset import load_task
from rrm.puzzles.formats import DataError
from rrm.settings import Settings
from rrm.torch_setup import CompilerError, check_compiler
from tune import sweep_file
from tune.expand import Cell, Told, expand
from tune.fields import explain, field_names
from tune.loggers import WandbConfig, logger_problems
from tune.primary import Primary, primary_problems
from tune.secrets import SecretsError, secrets_in, set_secrets
from tune.sweep_file import SpecError as SpecError


class Resources(Settings):
    """A trial's `workers`, and cores and GPUs of each; fractions of a GPU let trials of one worker share one."""

    cpu: float = Field(default=1, ge=0.01)
    gpu: float = Field(default=0, ge=0)
    workers: int = Field(default=1, ge=1)

    @field_validator("gpu")
    @classmethod
    def _at_most_one(cls, value: float) -> float:
        if value > 1:
            workers = 1 << (math.ceil(value) - 1).bit_length()
            raise ValueError(f"{value:g} is more than the one that a process uses; give gpu: 1 and workers: {workers}")
        return value

    @field_validator("workers")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"{value} is no power of two, into which shards are handed out; give 1, 2 or 4, say")
        return value

    @model_validator(mode="after")
    def _a_gpu_each(self) -> "Resources":
        if self.workers > 1 and 0 < self.gpu < 1:
            raise ValueError(f"gpu: {self.gpu:g} with {self.workers} workers, each of which needs a whole one; give 1")
        return self

    @property
    def threads(self) -> int:
        """Threads that each worker computes with: its whole cores. The bits of a trial depend on it."""
        return max(1, int(self.cpu))


class Scheduler(Settings):
    """Which trials are stopped early, by their clean accuracy on validation (ray.tune.schedulers).

    asha: at `grace_steps`, and at `reduction_factor` times as many again and again, a trial goes on if it is among the
    best 1 / reduction_factor of those that came so far. median: from `grace_steps` on, a trial goes on if its best
    accuracy is not below the median of the others' means. `grace_steps` is a tenth of the longest trial's by default.
    """

    name: Literal["asha", "median"]
    grace_steps: int | None = Field(default=None, ge=1)
    reduction_factor: float = Field(default=4, gt=1)

    def grace_steps_of(self, most_steps: int) -> int:
        """`grace_steps`, or its default where the longest trial has so many steps."""
        return self.grace_steps or max(1, most_steps // 10)

    @model_validator(mode="after")
    def _is_for_asha(self) -> "Scheduler":
        if self.name != "asha" and "reduction_factor" in self.model_fields_set:
            raise ValueError(
                f"reduction_factor: {self.reduction_factor:g} with {self.name}, which has none; use asha, or remove it"
            )
        return self


class SweepSpec(Settings):
    """A sweep file's own fields.

    `grid` crosses values with every arm; `search` draws `num_samples` points, the same for all arms and seeds.
    `scheduler` stops trials early. `resources: auto` (None here) is a GPU a trial where there are any, else a core. A
    trial's state is saved at every evaluation and every `save_seconds`; `keep_evaluations` keeps the weights of each. A
    trial whose worker fails goes on from its last save, `max_failures` times at most without getting further. `secrets`
    is a file of credentials that every node has (tune.secrets). `wandb` and `tensorboard` log each trial's evaluations
    there too. `presets` are variants of the whole file: what each lays over it. `primary` is the metric that the
    results begin with, `margin` the share of accuracy below which a difference counts as none.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    base: dict[str, Any]
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    baseline: str
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    search: dict[str, Any] = Field(default_factory=dict)
    num_samples: int = Field(default=0, ge=0)
    scheduler: Scheduler | None = None
    seeds: list[Annotated[int, Field(ge=0, le=MAX_SEED)]] = Field(min_length=1)
    primary: Primary = Field(default_factory=Primary)
    margin: float = Field(default=MARGIN, gt=0, lt=1)
    resources: Resources | None = None
    storage: str = Field(default="runs", min_length=1)
    secrets: str | None = None
    max_failures: int = Field(default=3, ge=0)
    save_seconds: float = Field(default=60, gt=0)
    keep_evaluations: bool = False
    wandb: WandbConfig | None = None
    tensorboard: bool = False
    presets: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("name", mode="before")
    @classmethod
    def _is_text_to_all_readers(cls, value: Any) -> Any:
        # YAML, too, takes 001 and 2024-01-15 for other things.
        if not isinstance(value, dict | list) and (problem := sweep_name_problem(str(value))):
            raise ValueError(problem)
        return value

    @field_validator("storage", "secrets")
    @classmethod
    def _is_a_place(cls, value: str | None) -> str | None:
        if value is not None:
            filled_in(value)
        return value

    @field_validator("secrets")
    @classmethod
    def _is_absolute(cls, value: str | None) -> str | None:
        if value is not None and not Path(filled_in(value)).is_absolute():
            raise ValueError(f"{value!r} is no absolute path; give the one that the file has on every node")
        return value

    @model_validator(mode="after")
    def _logs_have_a_folder(self) -> "SweepSpec":
        offline = self.wandb is not None and self.wandb.mode == "offline"
        if self.storage.startswith(S3) and (self.tensorboard or offline):
            kind = "tensorboard: true" if self.tensorboard else "wandb.mode: offline"
            raise ValueError(f"{kind} writes files, and {self.storage} is no folder; give a folder, or leave it out")
        return self

    @field_validator("primary", mode="before")
    @classmethod
    def _metric_is_enough(cls, value: Any) -> Any:
        return {"metric": value} if isinstance(value, str) else value

    @field_validator("scheduler", mode="before")
    @classmethod
    def _name_is_enough(cls, value: Any) -> Any:
        if isinstance(value, str):
            return None if value == "none" else {"name": value}
        return value

    @field_validator("resources", mode="before")
    @classmethod
    def _auto_is_none(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "auto":
            raise ValueError(f"{value!r} is neither auto nor a mapping; give auto or {{cpu: ..., gpu: ...}}")
        return None if value == "auto" else value


@dataclass(frozen=True)
class Sweep:
    """A checked sweep file, as it is with what `--set` laid over it, and its cells in the order arm, point, seed."""

    path: str
    raw: dict[str, Any]
    spec: SweepSpec
    cells: list[Cell]

    @property
    def text(self) -> bytes:
        """The file as it is, with what was laid over it."""
        return sweep_file.written(self.raw)

    @property
    def folder(self) -> Location:
        """<storage>/<sweep>, absolute."""
        return back_from(self.spec.storage) / self.spec.name

    @property
    def trials(self) -> dict[str, Cell]:
        """The first cell of each trial, by trial id, in the order of the cells."""
        first: dict[str, Cell] = {}
        for cell in self.cells:
            first.setdefault(cell.trial_id, cell)
        return first

    def check_data(self) -> None:
        """Read every puzzle file and checkpoint once, and look for the compiler that a trial may need.

        Raises SpecError if one is wrong, does not fit its trials or is missing.
        """
        problems = []
        for cell in self.trials.values():
            if cell.config.task.generate is not None:
                continue
            try:
                load_task(cell.config.task, cell.config.eval.n, cell.config.train.batch_size)
            except DataError as error:
                problems.append(str(error))
        configs = [cell.config for cell in self.trials.values()]
        starts = dict.fromkeys((config.init_from, config.model, config.task) for config in configs if config.init_from)
        for init_from, model, task in starts:
            try:
                size = {"seq_len": task.seq_len, "vocab_size": task.vocab_size}
                check_fit(init_from.path, model, **size, key=init_from.key)
            except CheckpointError as error:
                problems.append(f"init_from: {str(error).replace(str(init_from.path), init_from.place)}")
        if any(config.train.compile for config in configs):
            try:
                check_compiler()
            except CompilerError as error:
                problems.append(str(error))
        if problems:
            raise SpecError(self.path, problems)

    def check_storage(self) -> None:
        """Raises SpecError if the storage is relative: a job's own folder on a cluster is gone when it ends."""
        if not Path(self.spec.storage).is_absolute() and "://" not in self.spec.storage:
            problem = f"storage: {self.spec.storage!r} is relative, and a job's own folder on a cluster does not last"
            mend = "give an absolute path that every node sees (--set storage=...)"
            raise SpecError(self.path, [f"{problem}; {mend}"])

    def check_logs(self) -> None:
        """Raises SpecError if a log that is asked for cannot be written here."""
        if problems := logger_problems(self.spec.wandb, self.spec.tensorboard):
            raise SpecError(self.path, problems)


def load_sweep(
    path: str, overrides: list[str] | None = None, preset: str | None = None, told: Told = lambda trials: None
) -> Sweep:
    """Read and check a sweep file; `told` is told how many trials it has, at most, before they are made.

    `preset` and `overrides` are laid over it (tune.sweep_file). Raises SpecError with every problem found.
    """
    raw, problems = sweep_file.read(path, overrides, preset)
    if leaked := secrets_in(raw, field_names(SweepSpec) | field_names(TrialConfig)):
        raise SpecError(path, leaked)  # and nothing else: other messages show values
    spec = None
    try:
        spec = SweepSpec.model_validate(raw)
        set_secrets(spec.secrets)  # puzzles in a bucket may need them
    except ValidationError as error:
        problems += [explain(problem, SweepSpec, "") for problem in error.errors()]
    except SecretsError as error:
        problems.append(str(error))
    cells, found = expand(raw, told)
    problems += found
    if spec is not None and spec.scheduler is not None and cells:
        longest = max(cell.config.train.steps for cell in cells)
        if spec.scheduler.grace_steps_of(longest) >= longest:
            problems.append(
                f"scheduler.grace_steps: {spec.scheduler.grace_steps_of(longest)} is no less than the {longest} "
                "steps of the longest trial, so that nothing would be stopped; give fewer"
            )
    if spec is not None:
        problems += primary_problems(spec.primary, (cell.config for cell in cells))
    if spec is not None and spec.resources is not None:
        workers = spec.resources.workers
        for shards in sorted({cell.config.train.shards for cell in cells}):
            if shards % workers:
                problems.append(
                    f"resources.workers: {workers} with train.shards {shards}, and each computes whole shards; give "
                    f"train.shards: {workers}, which is another trial, or {shards} workers at most"
                )
    if problems or spec is None:
        raise SpecError(path, problems)
    return Sweep(path, raw, spec, cells)

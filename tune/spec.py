"""A sweep file: base + arms x grid x seeds -> trials. Everything is checked here, before anything starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from rrm.config import MAX_SEED
from rrm.presets import merge
from rrm.puzzles.dataset import load_task
from rrm.puzzles.formats import DataError
from rrm.settings import Settings
from tune.expand import Cell, expand
from tune.fields import explain, nested, shown


class SpecError(ValueError):
    """Everything that is wrong with a sweep file: one line a problem, each with field, value and mend."""

    def __init__(self, path: str, problems: list[str]):
        self.problems = list(dict.fromkeys(problems))
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{path}: {count}, nothing was started", *(f"  {p}" for p in self.problems)]))


class Resources(Settings):
    """Cores and GPUs a trial; fractions of a GPU let trials share one."""

    cpu: float = Field(default=1, ge=0.01)
    gpu: float = Field(default=0, ge=0)

    @property
    def threads(self) -> int:
        """Threads that a trial computes with: its whole cores. The bits of a trial depend on it."""
        return max(1, int(self.cpu))


class SweepSpec(Settings):
    """A sweep file's own fields.

    `resources: auto` (None here) is a GPU a trial where there are any, else a core. A trial's state is saved at every
    evaluation and every `save_seconds`; a crashed worker is restarted `max_failures` times.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    base: dict[str, Any]
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    baseline: str
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    seeds: list[Annotated[int, Field(ge=0, le=MAX_SEED)]] = Field(min_length=1)
    resources: Resources | None = None
    storage: str = Field(default="runs", min_length=1)
    max_failures: int = Field(default=3, ge=0)
    save_seconds: float = Field(default=60, gt=0)

    @field_validator("storage")
    @classmethod
    def _is_a_folder(cls, value: str) -> str:
        if "://" in value:
            raise ValueError(f"{value!r} is no folder; give one that every node sees")
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
    def folder(self) -> Path:
        """<storage>/<sweep>, absolute."""
        return Path(self.spec.storage).expanduser().absolute() / self.spec.name

    @property
    def trials(self) -> dict[str, Cell]:
        """The first cell of each trial, by trial id, in the order of the cells."""
        first: dict[str, Cell] = {}
        for cell in self.cells:
            first.setdefault(cell.trial_id, cell)
        return first

    def check_data(self) -> None:
        """Read every puzzle file once. Raises SpecError if one is wrong or holds too few puzzles."""
        problems = []
        for cell in self.trials.values():
            if not cell.config.task.files:
                continue
            try:
                load_task(cell.config.task, cell.config.eval.n)
            except DataError as error:
                problems.append(str(error))
        if problems:
            raise SpecError(self.path, problems)


def load_sweep(path: str, overrides: list[str] | None = None) -> Sweep:
    """Read and check a sweep file; `overrides` are `dotted.field=value` laid over it.

    Raises SpecError with every problem found.
    """
    text = _read_text(path)
    raw = _parse_yaml(path, text)
    for override in overrides or []:
        key, equals, value = override.partition("=")
        if not equals:
            raise SpecError(path, [f"--set {override}: give FIELD=VALUE"])
        raw = merge(raw, nested(key, _parse_yaml(f"--set {key}", value)))
    problems: list[str] = []
    spec = None
    try:
        spec = SweepSpec.model_validate(raw)
    except ValidationError as error:
        problems += [explain(problem, SweepSpec, "") for problem in error.errors()]
    cells, found = expand(raw)
    problems += found
    if problems or spec is None:
        raise SpecError(path, problems)
    return Sweep(path, raw, spec, cells)


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(path, [f"{error.strerror}; give the path of a sweep file"]) from error
    except UnicodeDecodeError as error:
        raise SpecError(path, [f"not a text file in UTF-8 ({error.reason}); give the path of a sweep file"]) from error


def _parse_yaml(path: str, text: str) -> Any:
    """YAML 1.2, plain data only: no tags that build objects; a key that stands twice is an error."""
    yaml = YAML(typ="safe", pure=True)
    try:
        value = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = str(error.problem).splitlines()[0]
        raise SpecError(path, [f"{place}not valid YAML: {reason}; mend the syntax there"]) from error
    except RecursionError as error:
        raise SpecError(path, ["not valid YAML: nested too deep; flatten it"]) from error
    except (YAMLError, ValueError) as error:
        raise SpecError(path, [f"not valid YAML: {str(error).splitlines()[0]}"]) from error
    if not path.startswith("--set") and not isinstance(value, dict):
        raise SpecError(path, [f"holds {shown(value)}; give a mapping with name, base, arms, baseline and seeds"])
    return value

"""A sweep file: base + arms x grid x seeds -> trials. Everything is checked here, before anything starts."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from rrm.config import TrialConfig
from rrm.presets import PRESETS, merge
from rrm.puzzles.dataset import load_task
from rrm.puzzles.formats import DataError
from rrm.settings import Settings
from tune.fields import ABSENT, did_you_mean, explain, field_of, fields_at, lookup, nested, shown

Point = dict[str, Any]  # a grid point: dotted field -> value


class SpecError(ValueError):
    """Everything that is wrong with a sweep file: one line a problem, each with field, value and mend."""

    def __init__(self, path: str, problems: list[str]):
        self.problems = list(dict.fromkeys(problems))
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{path}: {count}, nothing was started", *(f"  {p}" for p in self.problems)]))


class Resources(Settings):
    """Cores and GPUs a trial; fractions of a GPU let trials share one."""

    cpu: float = Field(default=1, gt=0)
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
    seeds: list[int] = Field(min_length=1)
    resources: Resources | None = None
    storage: str = "runs"
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
class Cell:
    """One place of the sweep: an arm at a grid point with a seed. Cells with the same config share a trial."""

    arm: str
    point: Point
    seed: int
    config: TrialConfig
    trial_id: str

    @property
    def point_name(self) -> str:
        """The grid point as text, `field=value` by `field=value`; empty without a grid."""
        return " ".join(f"{key}={value}" for key, value in self.point.items())

    @property
    def name(self) -> str:
        """The trial as people call it."""
        return " ".join(filter(None, (self.arm, self.point_name, f"seed={self.seed}")))


@dataclass(frozen=True)
class Sweep:
    """A checked sweep file and its cells, in the order arm, grid point, seed."""

    path: str
    text: str
    spec: SweepSpec
    cells: list[Cell]

    @property
    def folder(self) -> Path:
        """<storage>/<sweep>, absolute."""
        return Path(self.spec.storage).absolute() / self.spec.name

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
    problems += _own_problems(raw)
    cells = _expand(raw, problems)
    if problems or spec is None:
        raise SpecError(path, problems)
    return Sweep(path, text, spec, cells)


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
    except (YAMLError, ValueError) as error:
        raise SpecError(path, [f"not valid YAML: {str(error).splitlines()[0]}"]) from error
    if not path.startswith("--set") and not isinstance(value, dict):
        raise SpecError(path, [f"holds {shown(value)}; give a mapping with name, base, arms, baseline and seeds"])
    return value


def _own_problems(raw: dict[str, Any]) -> list[str]:
    """What pydantic does not see: relations between a sweep's own fields."""
    problems = []
    arms, seeds, grid, base = (raw.get(key) for key in ("arms", "seeds", "grid", "base"))
    baseline = raw.get("baseline")
    if isinstance(arms, dict) and isinstance(baseline, str) and arms and baseline not in arms:
        problems.append(f"baseline: {baseline!r} is not an arm{did_you_mean(baseline, arms)}; arms: {', '.join(arms)}")
    if isinstance(seeds, list):
        twice = dict.fromkeys(str(seed) for seed in seeds if seeds.count(seed) > 1)
        if twice:
            problems.append(f"seeds: {', '.join(twice)} stands more than once; give each seed once")
        problems += [f"seeds: {seed} is below 0; give 0 or more" for seed in seeds if type(seed) is int and seed < 0]
    for name in arms if isinstance(arms, dict) else ():
        if not isinstance(name, str) or not name or not all(c.isalnum() or c in "_.-" for c in name):
            problems.append(f"arms: {name!r} is no name for an arm; use letters, digits, _, - and .")
    for key, values in grid.items() if isinstance(grid, dict) else ():
        if values == []:
            problems.append(f"grid.{key}: [] is empty; give values to cross with the arms, or remove it")
        elif isinstance(values, list) and any(values.count(value) > 1 for value in values):
            problems.append(f"grid.{key}: {values} holds a value more than once; give each once")
    for place, mapping in (
        ("base", base),
        *((f"arms.{k}", v) for k, v in (arms if isinstance(arms, dict) else {}).items()),
    ):
        if isinstance(mapping, dict) and "seed" in mapping:
            problems.append(f"{place}.seed: {mapping['seed']} is set here; seeds stand in the list `seeds`")
    return problems


def _expand(raw: dict[str, Any], problems: list[str]) -> list[Cell]:
    """Every cell of the sweep; appends what is wrong with any of them to `problems`."""
    base, arms, grid, seeds = raw.get("base"), raw.get("arms"), raw.get("grid", {}), raw.get("seeds")
    if not isinstance(base, dict) or not isinstance(arms, dict) or not isinstance(grid, dict):
        return []
    grid = {key: values for key, values in grid.items() if isinstance(values, list) and values}
    for key in list(grid):
        if problem := _unsweepable(key):
            problems.append(problem)
            del grid[key]
    good_seeds = [seed for seed in seeds if type(seed) is int and seed >= 0] if isinstance(seeds, list) else []
    cells: list[Cell] = []
    for arm, changes in arms.items():
        if not isinstance(changes, dict):
            continue
        problems += [
            f"grid.{key}: {grid[key]} is crossed with every arm, but arms.{arm} sets {key} too; remove one of the two"
            for key in grid
            if lookup(changes, key) is not ABSENT
        ]
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            layers = [(f"arms.{arm}", changes), ("grid", _grid_layer(point)), ("base", base)]
            config = _trial_config(layers, arm, problems)
            if config is None:
                continue
            try:
                for seed in good_seeds or [0]:
                    seeded = config.model_copy(update={"seed": seed})
                    cells.append(Cell(str(arm), point, seed, seeded, seeded.trial_id()))
            except DataError as error:
                problems.append(f"base.task: {error}")
    problems += _same_trials(cells)
    return cells


def _trial_config(layers: list[tuple[str, dict]], arm: str, problems: list[str]) -> TrialConfig | None:
    merged: dict[str, Any] = {}
    presets = [(place, layer["preset"]) for place, layer in layers if "preset" in layer]
    if presets:
        place, preset = presets[0]
        if not isinstance(preset, str) or preset not in PRESETS:
            problems.append(
                f"{place}.preset: {shown(preset)} is no preset{did_you_mean(preset, PRESETS)}; "
                f"presets: {', '.join(PRESETS)}"
            )
            return None
        merged = PRESETS[preset]
    for _, layer in reversed(layers):
        merged = merge(merged, {key: value for key, value in layer.items() if key != "preset"})
    if merged.get("objective") == "clean" and "perturb" in layers[0][1]:
        problems.append(
            f"arms.{arm}.perturb: {layers[0][1]['perturb']} with the objective clean, which adds no noise; "
            "remove it or choose single_perturbed_ce or multi_perturbed_ce"
        )
    merged.pop("seed", None)
    try:
        return TrialConfig.model_validate(_with_absolute_paths(merged) | {"seed": 0})
    except ValidationError as error:
        for problem in error.errors():
            field = field_of(problem, TrialConfig)
            place = next((place for place, layer in layers if lookup(layer, field) is not ABSENT), None)
            if place is None:  # a field that is missing, or a preset's own
                parent = field.rpartition(".")[0]
                place = next((p for p, layer in layers if parent and lookup(layer, parent) is not ABSENT), "base")
            problems.append(explain(problem, TrialConfig, f"{place}."))
        return None


def _with_absolute_paths(merged: dict[str, Any]) -> dict[str, Any]:
    """Puzzle files are given relative to the folder the command runs in; workers run elsewhere."""
    task = merged.get("task")
    if not isinstance(task, dict):
        return merged
    absolute = {
        key: str(Path(task[key]).absolute())
        for key in ("train", "validation", "test")
        if isinstance(task.get(key), str)
    }
    return merge(merged, {"task": absolute})


def _same_trials(cells: list[Cell]) -> list[str]:
    """Two arms that are the same trial cannot be compared."""
    arms_of: dict[str, dict[str, None]] = {}
    for cell in cells:
        arms_of.setdefault(cell.trial_id, {})[cell.arm] = None
    return [
        f"arms.{second}: the same trial as arms.{first} in every field; change a field or remove one of the two"
        for first, second in {tuple(arms)[:2] for arms in arms_of.values() if len(arms) > 1}
    ]


def _grid_layer(point: Point) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for key, value in point.items():
        layer = merge(layer, nested(key, value))
    return layer


def _unsweepable(key: Any) -> str | None:
    if key == "seed":
        return "grid.seed: seeds stand in the list `seeds`; remove it from the grid"
    *parents, last = str(key).split(".")
    siblings = fields_at(TrialConfig, parents) + ([] if parents else ["preset"])
    if last in siblings:
        return None
    if not siblings:
        siblings = [*TrialConfig.model_fields, "preset"]
        last = parents[0]
        parents = []
    where = f"fields of {'.'.join(parents)}" if parents else "fields"
    return f"grid.{key}: no such field{did_you_mean(last, siblings)}; {where}: {', '.join(siblings)}"

"""From the layers of a sweep file (preset, base, grid point, arm) to its cells, and what is wrong on the way."""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rrm.config import MAX_SEED, TrialConfig
from rrm.perturb import PerturbConfig
from rrm.presets import PRESETS, merge
from tune.fields import ABSENT, UNION_TAGS, did_you_mean, explain, field_of, fields_at, fitting, lookup, nested, shown
from tune.files import Layers, init_from_problems, task_file_problems, with_absolute_paths
from tune.search import samples, space_problem

MAX_TRIALS = 20_000  # read, planned and compared in seconds
Told = Callable[[int], None]
Point = dict[str, Any]  # a grid point: dotted field -> value


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


def expand(raw: dict[str, Any], told: Told = lambda trials: None) -> tuple[list[Cell], list[str]]:
    """Every cell of a sweep as its file holds it, in the order arm, grid point, seed; and every problem found.

    Thousands take seconds: `told` is first told how many there are, at most.
    """
    problems = list(_own_problems(raw))
    base, arms, seeds = raw.get("base"), raw.get("arms"), raw.get("seeds")
    grid, search = raw.get("grid", {}), raw.get("search", {})
    if not (isinstance(base, dict) and isinstance(arms, dict) and isinstance(grid, dict) and isinstance(search, dict)):
        return [], problems
    arms = {name: changes for name, changes in arms.items() if isinstance(changes, dict)}
    grid = {key: values for key, values in grid.items() if isinstance(values, list) and not _unsweepable("grid", key)}
    good_seeds = [s for s in seeds if type(s) is int and 0 <= s <= MAX_SEED] if isinstance(seeds, list) else []
    trials, problem = _size(arms, grid, search, raw.get("num_samples"), good_seeds)
    if problem:
        return [], [*problems, problem]
    told(trials)
    crossed = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    points = list(itertools.product(crossed, _drawn(search, raw.get("num_samples"))))
    cells: list[Cell] = []
    for (arm, changes), (on_grid, sample) in itertools.product(arms.items(), points):
        point = on_grid | sample
        layers = [(f"arms.{arm}", changes), ("grid", _layer(on_grid)), ("search", _layer(sample)), ("base", base)]
        config, found = _trial_config(layers)
        problems += found
        if config is not None:
            for seed in good_seeds or [0]:
                seeded = config.model_copy(update={"seed": seed})
                cells.append(Cell(str(arm), point, seed, seeded, seeded.trial_id()))
    return cells, problems + list(_confusable(cells))


def _drawn(search: dict[str, Any], count: Any) -> list[Point]:
    """The points drawn from the fields of `search` that have a good space, each once; the empty one if none has."""
    spaces = {key: space for key, space in search.items() if not (_unsweepable("search", key) or space_problem(space))}
    drawn = samples(spaces, count) if spaces and type(count) is int and count > 0 else [{}]
    return list({json.dumps(point, sort_keys=True, default=str): point for point in drawn}.values())


def _size(
    arms: dict[str, Any], grid: dict[str, Any], search: dict[str, Any], count: Any, seeds: list[int]
) -> tuple[int, str]:
    """A sweep's trials, and why they are too many to be made, let alone trained; empty if they are not."""
    factors = {"arms": len(arms)} | {f"values of {key}": len(values) for key, values in grid.items()}
    if search and type(count) is int:
        factors["samples"] = count
    factors["seeds"] = len(seeds)
    trials = math.prod(size for size in factors.values() if size > 0)
    if trials <= MAX_TRIALS:
        return trials, ""
    place = next(
        (p for p, what in (("num_samples", "samples"), ("seeds", "seeds")) if factors.get(what, 0) > 100), "grid"
    )
    product = " x ".join(f"{size} {what}" for what, size in factors.items() if size > 1)
    return trials, f"{place}: {product} are {trials} trials; a sweep has {MAX_TRIALS} at most: ask for fewer"


def _own_problems(raw: dict[str, Any]) -> Iterator[str]:
    """What is wrong between a sweep's own fields, whatever its trials are."""
    base, arms, seeds, baseline = (raw.get(key) for key in ("base", "arms", "seeds", "baseline"))
    arms = arms if isinstance(arms, dict) else {}
    if isinstance(baseline, str) and arms and baseline not in arms:
        known = ", ".join(map(str, arms))
        yield f"baseline: {baseline!r} is not an arm{did_you_mean(baseline, arms)}; arms: {known}"
    if isinstance(seeds, list) and (twice := dict.fromkeys(str(seed) for seed in seeds if seeds.count(seed) > 1)):
        yield f"seeds: {', '.join(twice)} stands more than once; give each seed once"
    for name, changes in arms.items():
        if not isinstance(name, str) or not name or not all(c.isalnum() or c in "_.-" for c in name):
            yield f"arms: {name!r} is no name for an arm; use letters, digits, _, - and ."
        if isinstance(changes, dict) and "eval" in changes:
            yield (
                f"arms.{name}.eval: {shown(changes['eval'])} is set for one arm; arms are compared on the same "
                "evaluation: set it in base or grid"
            )
    yield from _swept_problems(raw, arms)
    for place, mapping in (("base", base), *((f"arms.{name}", changes) for name, changes in arms.items())):
        if isinstance(mapping, dict) and "seed" in mapping:
            yield f"{place}.seed: {mapping['seed']} is set here; seeds stand in the list `seeds`"


def _swept_problems(raw: dict[str, Any], arms: dict[Any, Any]) -> Iterator[str]:
    """What is wrong with the fields of `grid` and `search`, which are crossed with every arm."""
    grid, search = ({} if not isinstance(raw.get(place), dict) else raw[place] for place in ("grid", "search"))
    swept = [("grid", key) for key in grid] + [("search", key) for key in search]
    for place, key in swept:
        if problem := _unsweepable(place, key):
            yield problem
        for name, changes in arms.items():
            if isinstance(changes, dict) and lookup(changes, str(key)) is not ABSENT:
                yield (
                    f"{place}.{key}: {shown(raw[place][key])} is crossed with every arm, but arms.{name} sets {key} "
                    "too; remove one of the two"
                )
        for other_place, other in swept:
            if other == key and place < other_place:
                yield f"{other_place}.{other}: set by {place}.{key} too; remove one of the two"
            if str(other).startswith(f"{key}."):
                yield f"{other_place}.{other}: part of {key}, which the {place} sets too; remove one of the two"
    for key, values in grid.items():
        if values == []:
            yield f"grid.{key}: [] is empty; give values to cross with the arms, or remove it"
        elif isinstance(values, list) and any(values.count(value) > 1 for value in values):
            yield f"grid.{key}: {values} holds a value more than once; give each once"
    for key, space in search.items():
        if problem := space_problem(space):
            yield f"search.{key}: {problem}"
    count = raw.get("num_samples", 0)
    if search and not count:
        yield "num_samples: missing; say how many points to draw from `search`"
    if count and not search:
        yield f"num_samples: {shown(count)} without `search`, which says what to draw from; remove it or give one"


def _unsweepable(place: str, key: Any) -> str | None:
    if key == "seed":
        return f"{place}.seed: seeds stand in the list `seeds`; remove it from {place}"
    *parents, last = str(key).split(".")
    siblings = fields_at(TrialConfig, parents) + ([] if parents else ["preset"])
    if last in siblings:
        return None
    if not siblings:
        siblings = [*TrialConfig.model_fields, "preset"]
        last = parents[0]
        parents = []
    where = f"fields of {'.'.join(parents)}" if parents else "fields"
    return f"{place}.{key}: no such field{did_you_mean(last, siblings)}; {where}: {', '.join(siblings)}"


def _layer(point: Point) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for key, value in point.items():
        layer = merge(layer, nested(key, value))
    return layer


def _trial_config(layers: Layers) -> tuple[TrialConfig | None, list[str]]:
    """The trial that the layers make, its seed 0; or None and what is wrong with it."""
    problems: list[str] = []
    merged, preset_problem = _merged(layers)
    if preset_problem:
        problems.append(preset_problem)
    (arm, changes), *_ = layers
    if merged.get("objective") == "clean" and changes.get("perturb") is not None:
        problems.append(
            f"{arm}.perturb: {shown(changes['perturb'])} with the objective clean, which adds no noise; remove it or "
            "choose single_perturbed_ce or multi_perturbed_ce"
        )
    if merged.get("objective") == "clean" and isinstance(merged.get("perturb"), dict):
        # A clean trial drops it, but a wrong word in it would be a wrong word in every other arm.
        problems += _problems_of(layers, PerturbConfig, merged["perturb"], "perturb", skip_missing=True)
    problems += task_file_problems(layers, merged.get("task"))
    problems += init_from_problems(layers, merged.get("init_from"))
    config = merged | {"seed": 0}
    problems += _problems_of(layers, TrialConfig, config, "", skip_missing=preset_problem is not None)
    return (None, problems) if problems else (TrialConfig.model_validate(config), [])


def _merged(layers: Layers) -> tuple[dict[str, Any], str | None]:
    merged: dict[str, Any] = {}
    problem = None
    place, preset = next(((place, layer["preset"]) for place, layer in layers if "preset" in layer), ("", None))
    if isinstance(preset, str) and preset in PRESETS:
        merged = PRESETS[preset]
    elif place:
        hint = did_you_mean(preset, PRESETS)
        problem = f"{place}.preset: {shown(preset)} is no preset{hint}; presets: {', '.join(PRESETS)}"
    for part, tag in UNION_TAGS.items():  # of a preset for another model or task, what this one has, too
        chosen = next((word for _, layer in layers if (word := lookup(layer, f"{part}.{tag}")) is not ABSENT), None)
        if isinstance(chosen, str) and fields_at(TrialConfig, [part, chosen]) and part in merged:
            merged = merged | {part: fitting(merged[part], TrialConfig, [part, chosen])}
    for _, layer in reversed(layers):
        merged = merge(merged, {key: value for key, value in layer.items() if key not in ("preset", "seed")})
    return with_absolute_paths(_without_removed(merged)), problem


def _without_removed(mapping: dict[str, Any]) -> dict[str, Any]:
    """The mapping without the fields that a layer set to null: they are at their defaults."""
    return {
        key: _without_removed(value) if isinstance(value, dict) else value
        for key, value in mapping.items()
        if value is not None
    }


def _problems_of(layers: Layers, root: Any, value: Any, under: str, *, skip_missing: bool) -> list[str]:
    """Pydantic's problems with a value, each at the place where a user finds it."""
    try:
        root.model_validate(value)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            if skip_missing and problem["type"] == "missing":
                continue
            for single in _one_by_one(problem):
                field = ".".join(filter(None, (under, field_of(single, root))))
                place = next((place for place, layer in layers if lookup(layer, field) is not ABSENT), None)
                if place is None:  # a field that is missing, or a preset's own
                    parent = field.rpartition(".")[0]
                    place = next((p for p, layer in layers if parent and lookup(layer, parent) is not ABSENT), "base")
                problems.append(explain(single, root, ".".join(filter(None, (place, under))) + "."))
        return problems
    return []


def _one_by_one(problem: Any) -> Iterator[Any]:
    """Our own validators name all that is wrong in one error, a line each."""
    if problem["type"] != "value_error":
        yield problem
        return
    for line in problem["msg"].removeprefix("Value error, ").splitlines():
        yield problem | {"msg": line}


def _confusable(cells: list[Cell]) -> Iterator[str]:
    """Cells that a comparison would tell apart and that are one trial."""
    by_trial: dict[str, list[Cell]] = {}
    for cell in cells:
        by_trial.setdefault(cell.trial_id, []).append(cell)
    for same in by_trial.values():
        steps = dict.fromkeys(str(cell.config.train.steps) for cell in same)
        arms = list(dict.fromkeys(cell.arm for cell in same))
        if len(steps) > 1:
            place = f"arms.{arms[1]}.train.steps" if len(arms) > 1 else "grid.train.steps"
            yield (
                f"{place}: {', '.join(steps)} are one trial, trained less or longer; give the longest in base and read "
                "the evaluations before its end, or let the schedule depend on the total (optim.min_lr_ratio below 1)"
            )
        elif len({cell.config.train.cuda_graphs for cell in same}) > 1:
            place = f"arms.{arms[1]}" if len(arms) > 1 else "grid"
            yield f"{place}.train.cuda_graphs: true and false are one trial, to the same bits; set it in base"
        elif len(arms) > 1:
            yield (
                f"arms.{arms[1]}: the same trial as arms.{arms[0]} in every field; change a field or remove one of the "
                "two"
            )

"""Sampled spaces: values of fields, drawn from Tune's own distributions, the same for every arm and seed."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from rrm.streams import stream_key

DISTRIBUTIONS = (
    *("choice", "uniform", "quniform", "loguniform", "qloguniform", "randn", "qrandn"),
    *("randint", "qrandint", "lograndint", "qlograndint"),
)
DIGITS = 4  # significant digits of a drawn number: a point is called by its values


def space_problem(space: Any) -> str | None:
    """What is wrong with a field's space, and what would be right; None if it is one."""
    known = f"give one of {', '.join(DISTRIBUTIONS)}, such as {{loguniform: [1e-4, 1e-2]}}"
    if not isinstance(space, dict) or len(space) != 1:
        return f"{space!r} is no search space; {known}"
    ((name, values),) = space.items()
    if name not in DISTRIBUTIONS:
        return f"{name!r} is no distribution; {known}"
    if not isinstance(values, list) or not values:
        return f"{values!r} is no list; give what ray.tune.{name} takes, as a list"
    if "randn" not in name and name != "choice" and len(values) > 1 and not _rises(values):
        return f"{name} of {values} is empty; give [low, high], and the step after them where it takes one"
    try:
        _draw(space, 0)
    except (TypeError, ValueError, ArithmeticError) as error:
        return f"{name} does not take {values} ({str(error).partition(chr(10))[0]}); see ray.tune.{name}"
    return None


def samples(spaces: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """`count` points, a value of each field's space: a function of the field, its space and the sample's number.

    More samples leave the first ones as they are, and so do further fields.
    """
    for index in range(count):
        yield {field: _draw(space, stream_key(0, f"search.{field}", index)) for field, space in spaces.items()}


def _rises(values: list[Any]) -> bool:
    low, high = values[:2]
    return all(type(value) in (int, float) for value in (low, high)) and low < high


def _draw(space: dict[str, list[Any]], key: int) -> Any:
    from ray.tune.search import sample  # takes a second to import, and few sweeps draw

    ((name, values),) = space.items()
    distribution = getattr(sample, name)
    domain = distribution(values) if name == "choice" else distribution(*values)
    value = domain.sample(random_state=np.random.RandomState(key % 2**32))
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, float) or name == "choice":
        return value
    rounded = float(f"{value:.{DIGITS}g}")
    return rounded if "randn" in name or values[0] <= rounded <= values[1] else value

"""Grid points as the tables hold them, `field=value field=value`: their fields, and their order by value."""

import math
import re
from collections.abc import Iterable
from typing import Any

_FIELD = re.compile(r"(?:^| )([A-Za-z_]\w*(?:\.\w+)*)=")


def point_fields(point: str) -> dict[str, str]:
    """field -> value as text, in the order of the grid; empty without a grid."""
    _, *parts = _FIELD.split(point)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def in_order(points: Iterable[str]) -> list[str]:
    """Each point once, ordered by their values: numbers as numbers (1e-05 before 0.001), before all else."""
    return sorted(set(points), key=lambda point: [(field, _value(text)) for field, text in point_fields(point).items()])


def _value(text: str) -> tuple[int, float, str]:
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text


def common_point(points: list[str]) -> str:
    """What several points of one trial agree in: the part of the grid that the trial depends on."""
    first, *others = [point_fields(point) for point in points]
    kept = {field: value for field, value in first.items() if all(other.get(field) == value for other in others)}
    return " ".join(f"{field}={value}" for field, value in kept.items())


def train_sigma(config: dict[str, Any]) -> float | None:
    """The sigma that a trial's config trains with: of an interval the geometric middle; None without noise."""
    sigma = (config.get("perturb") or {}).get("sigma")
    if isinstance(sigma, list):
        return math.prod(sigma) ** (1 / len(sigma)) if sigma else None
    return None if sigma is None else float(sigma)

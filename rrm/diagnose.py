"""A diagnosis of a model's dynamics on fixed puzzles: what is asked, and the parts that it is computed in."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from pydantic import Field, field_validator

from rrm.dynamics import Found, Subject, deepen, examine, restart, vary
from rrm.lyapunov import chunk_size
from rrm.settings import Settings

ROBUSTNESS_EXAMPLES = 16


class DiagnosisConfig(Settings):
    """The spectrum of `k` vectors on the first `n` test puzzles; `batch_size` bounds memory to that of as many rows.

    `depth`: unroll for so many ACT steps, far past training, and see what becomes of the failed. `restarts`: for each
    failed puzzle, so many noisy starts at each of `sigma`. `robustness`: the first exponent estimated otherwise, too.
    """

    n: int = Field(default=64, ge=1)
    k: int = Field(default=8, ge=1)
    batch_size: int = Field(default=256, ge=1)
    depth: int | None = Field(default=None, ge=1)
    restarts: int = Field(default=0, ge=0)
    sigma: tuple[float, ...] = Field(default=(0.01, 0.1, 1.0), strict=False)
    robustness: bool = False

    @field_validator("sigma")
    @classmethod
    def _positive_and_distinct(cls, sigma: tuple[float, ...]) -> tuple[float, ...]:
        if any(one <= 0 for one in sigma) or len(set(sigma)) != len(sigma) or not sigma:
            raise ValueError(f"{list(sigma)} must be above 0, each once, and one at least")
        return tuple(sorted(sigma))

    @property
    def deep(self) -> bool:
        """Whether more is asked than the spectra."""
        return self.depth is not None or self.restarts > 0 or self.robustness


class DiagnoseConfig(DiagnosisConfig):
    """A diagnosis every `every` training steps; what is more than spectra (depth, restarts, robustness) at the end."""

    every: int = Field(ge=1)


class Kind(NamedTuple):
    """A kind of part of a diagnosis, which is found range by range of the puzzles.

    is_asked; rows: how many puzzles a part has; needs: the fields it depends on beside batch_size; find: what there is
    to find about a range of puzzles, given what "examples" found about them.
    """

    is_asked: Callable[[DiagnosisConfig], bool]
    rows: Callable[[DiagnosisConfig], int]
    needs: tuple[str, ...]
    find: Callable[[Subject, DiagnosisConfig, range, Found], Found]


KINDS: dict[str, Kind] = {
    "examples": Kind(
        lambda config: True,
        lambda config: chunk_size(config.batch_size, config.k),
        ("k",),
        lambda subject, config, rows, _: examine(subject, rows, config.k),
    ),
    "depths": Kind(
        lambda config: config.depth is not None,
        lambda config: config.batch_size,
        ("depth",),
        lambda subject, config, rows, _: deepen(subject, rows, config.depth or 0),
    ),
    "restarts": Kind(
        lambda config: config.restarts > 0,
        lambda config: max(1, config.batch_size // config.restarts),
        ("k", "restarts", "sigma"),  # k: which puzzles failed is known of the examples, in parts by k
        lambda subject, config, rows, examples: restart(
            subject, rows, ~examples["solved"], config.restarts, config.sigma, config.batch_size
        ),
    ),
    "robustness": Kind(
        lambda config: config.robustness,
        lambda config: chunk_size(config.batch_size, 2 * config.k),
        ("k",),
        lambda subject, config, rows, _: vary(subject, rows, config.k),
    ),
}

# Computes the parts of a kind, a range of puzzles each, by `find`, in any process; returns them in order. Is given what
# is known of the examples.
ShareOut = Callable[[str, Sequence[range], Found], list[Found]]


def diagnose_parts(config: DiagnosisConfig, n: int, kinds: Sequence[str], share_out: ShareOut) -> dict[str, Found]:
    """What each of `kinds` finds about n puzzles: a tensor a column, a row an example in each."""
    found: dict[str, Found] = {}
    for kind in kinds:
        parts = share_out(kind, part_ranges(kind, config, n), found.get("examples", {}))
        found[kind] = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return found


def part_ranges(kind: str, config: DiagnosisConfig, n: int) -> list[range]:
    """The puzzles of each part of a kind, of n in all."""
    n = min(n, ROBUSTNESS_EXAMPLES) if kind == "robustness" else n
    size = KINDS[kind].rows(config)
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


@torch.no_grad()
def find(subject: Subject, config: DiagnosisConfig, kind: str, rows: range, examples: Found) -> Found:
    """A part of a diagnosis: what there is to find about some rows; `examples`: what is known of all of them.

    Raises ValueError if k is more than the size of the state.
    """
    known = {name: x[rows.start : rows.stop] for name, x in examples.items()}
    with subject.model.constant_weights():
        return KINDS[kind].find(subject, config, rows, known)


def asked_kinds(config: DiagnosisConfig) -> list[str]:
    """The kinds of parts that are asked for, in the order in which they can be found."""
    return [name for name, kind in KINDS.items() if kind.is_asked(config)]


def depends_on(config: DiagnosisConfig, kind: str) -> dict[str, Any]:
    """The fields that the numbers of a kind depend on: of all others they are the same, bit for bit."""
    plain = config.model_dump(mode="json")
    return {name: plain[name] for name in ("batch_size", *KINDS[kind].needs)}

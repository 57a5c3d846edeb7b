"""What `rrm evaluate` prints: the rows of an evaluation, and what noise is worth beside as much compute without it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from results.stats import Effect, over_one_sample

_SHOWN = {  # the share solved, by the mean rollout or by the answer that a rule chooses
    "exact": "exact_accuracy",
    "any": "any_exact_accuracy",
    "best q": "best_q_exact_accuracy",
    "majority": "majority_exact_accuracy",
    "settled": "most_settled_exact_accuracy",
    "first": "first_to_halt_exact_accuracy",
    "halting": "halting_exact_accuracy",
    "valid": "valid_accuracy",
    "shortest": "shortest_accuracy",
}
LEGEND = (
    "share of puzzles solved: exact, by the mean rollout; any, by one of K; by the one with the highest halting logit, "
    "by the majority, by the most settled, by the first that wants to halt; halting, where each wants to halt"
)
CONTROL_LEGEND = (
    "over clean: best q less the clean run of as many ACT steps, or of the most there are, in points; ±: 95 % interval "
    "over these puzzles, of each row alone: of twenty rows without an effect one leaves out 0"
)


class Control(NamedTuple):
    """A row under noise beside the clean run of depth `depth`: the difference in the share solved, over puzzles."""

    row: dict[str, Any]
    depth: int
    clean: float
    effect: Effect


def all_rows(rows: list[dict[str, Any]]) -> Table:
    """A line for each row of results.schema.EVALS_SCHEMA."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = {heading: name for heading, name in _SHOWN.items() if rows[0][name] is not None}
    for heading in ("noise", "K", "depth", *columns, "steps"):
        table.add_column(heading, justify="left" if heading == "noise" else "right")
    for row in rows:
        values = (f"{row[name]:.4f}" for name in columns.values())
        table.add_row(_noise(row), str(row["rollouts"]), str(row["depth"]), *values, f"{row['halting_steps']:.1f}")
    return table


def against_clean(rows: list[dict[str, Any]]) -> Table:
    """A line for each row under noise, beside its control."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("noise", "K", "depth", "best q", "clean at", "clean", "over clean"):
        table.add_column(heading, justify="left" if heading == "noise" else "right")
    for row, depth, clean, effect in controls(rows):
        half = effect.high - effect.mean
        over = f"{100 * effect.mean:+.1f} ±{100 * half:.1f}" if np.isfinite(half) else f"{100 * effect.mean:+.1f}"
        best_q = f"{row['best_q_exact_accuracy']:.4f}"
        table.add_row(_noise(row), str(row["rollouts"]), str(row["depth"]), best_q, str(depth), f"{clean:.4f}", over)
    return table


def controls(rows: list[dict[str, Any]]) -> Iterator[Control]:
    """For each row under noise the clean run that takes no more ACT steps than all its rollouts: the deepest such.

    The difference is that of the answer of the highest halting logit, puzzle by puzzle.
    """
    clean = {row["depth"]: row for row in rows if row["sigma"] == 0}
    for row in rows:
        if row["sigma"] == 0:
            continue
        depth = max(at for at in clean if at <= row["depth"] * row["rollouts"])
        chosen, alone = (_bits(row, "best_q_correct"), _bits(clean[depth], "correct"))
        effect = over_one_sample(chosen.astype(float) - alone.astype(float))
        yield Control(row, depth, clean[depth]["exact_accuracy"], effect)


def _bits(row: dict[str, Any], column: str) -> np.ndarray:
    return np.unpackbits(np.frombuffer(row[column], np.uint8))[: row["n"]]


def _noise(row: dict[str, Any]) -> str:
    return f"{row['when']} {row['sigma']:g}" if row["sigma"] else "clean"

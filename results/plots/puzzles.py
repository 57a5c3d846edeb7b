"""A Sudoku or a maze as the model thinks."""

import math
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from results.plots.style import COLOURS, finish, tips, values
from results.rows import rows_of

STEPS = 6  # ACT steps of a figure; the page's slider has all
PANEL = 120
WRONG, RIGHT = COLOURS[1], COLOURS[0]
_KINDS = {
    "given": ("currentColor", 0.12),
    "right": (RIGHT, 0.0),
    "wrong": (WRONG, 0.35),
    "wall": ("currentColor", 0.55),
    "path, right": (RIGHT, 0.8),
    "path, missing": (RIGHT, 0.25),
    "no path, marked": (WRONG, 0.8),
    "other cell wrong": (WRONG, 0.35),
    "free": ("currentColor", 0.0),
}


def solving(unrolls: pd.DataFrame, example: int = 0, name: str = "") -> alt.FacetChart:
    """A puzzle as the model thinks: its answers after up to STEPS ACT steps, the clean run above the perturbed one.

    Each panel says how many of its cells are wrong, and the halting logit q. Wrong cells are orange.

    unrolls: of `results.unroll`. name: whose it is, for the title. Raises ValueError if it has no such example.
    """
    runs = rows_of(unrolls.loc[unrolls.example == example].sort_values("sigma"))
    if not runs:
        raise ValueError(f"example: {example} is not unrolled here; give one of {sorted(set(unrolls.example))}")
    cells, order = [], []
    for run in runs:
        for step in np.unique(np.linspace(1, len(run.predicted), STEPS).round().astype(int)):
            shown = run.predicted[step - 1]
            kinds = cell_kinds(run.question, run.answer, shown)
            wrong = sum(cell != true for cell, true in zip(shown, run.answer, strict=True))
            whose = f"sigma {run.sigma:g}" if run.sigma else "clean"
            says = f"{wrong} wrong" if wrong else "solved"
            panel = f"{whose}, ACT step {step}: {says}, q {run.q_halt[step - 1]:+.1f}"
            order.append(panel)
            cells += _cells(panel, run.question, shown, kinds)
    side = math.isqrt(len(runs[0].question))
    held = [kind for kind in _KINDS if any(cell["kind"] == kind for cell in cells)]
    scale = alt.Scale(domain=held, range=[_KINDS[kind][0] for kind in held])
    base = alt.Chart().encode(
        alt.X("column:O", axis=None), alt.Y("row:O", axis=None), tooltip=tips("kind:N", "row:O", "column:O", "text:N")
    )
    colour = alt.Color("kind:N", title=None, scale=scale, legend=alt.Legend(orient="bottom", columns=4))
    shades = [
        base.transform_filter(alt.FieldOneOfPredicate("kind", [kind for kind in held if _KINDS[kind][1] == opacity]))
        .mark_rect(stroke="currentColor", strokeOpacity=0.25, strokeWidth=0.5, fillOpacity=opacity)
        .encode(colour)
        for opacity in sorted({_KINDS[kind][1] for kind in held})
    ]
    size = min(13, PANEL * 0.6 / side)
    given = "datum.kind == 'given'"
    chart = alt.layer(
        *shades,
        base.transform_filter(given).mark_text(fontSize=size, fontWeight="bold").encode(text="text:N"),
        base.transform_filter(f"!({given})").mark_text(fontSize=size).encode(text="text:N"),
    ).properties(width=PANEL, height=PANEL)
    steps = len(order) // len(runs)
    facet = alt.Facet("panel:N", title=None, sort=order, header=alt.Header(labelFontSize=10, labelLimit=PANEL + 20))
    title = f"test puzzle {example} after {runs[0].step} batches"
    whole = chart.facet(facet, data=values(cells), columns=steps)
    return finish(whole, f"{name}: {title}" if name else title.capitalize())


def cell_kinds(question: str, answer: str, shown: str) -> list[str]:
    """What each cell of a shown answer is: a Sudoku's given, right or wrong; a maze's wall, path or mistake."""
    maze = "S" in question  # no Sudoku has that many digits
    kind = _maze_kind if maze else _sudoku_kind
    return [kind(*cell) for cell in zip(question, answer, shown, strict=True)]


def _sudoku_kind(question: str, answer: str, shown: str) -> str:
    if shown != answer:
        return "wrong"
    return "given" if question not in ".0" else "right"


def _maze_kind(question: str, answer: str, shown: str) -> str:
    if shown == answer:
        return {"#": "wall", "o": "path, right"}.get(answer, "free")
    if answer == "o":
        return "path, missing"
    return "no path, marked" if shown == "o" and question not in "SG" else "other cell wrong"


def _cells(panel: str, question: str, shown: str, kinds: list[str]) -> list[dict[str, Any]]:
    side, maze = math.isqrt(len(question)), "S" in question
    return [
        {
            "panel": panel,
            "row": place // side,
            "column": place % side,
            "kind": kind,
            "text": (asked if asked in "SG" else "") if maze else cell.replace(".", ""),
        }
        for place, (asked, cell, kind) in enumerate(zip(question, shown, kinds, strict=True))
    ]

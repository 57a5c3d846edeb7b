"""A Sudoku or a maze on matplotlib axes: what is given, what is answered right, and what wrong."""

import math
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from matplotlib.lines import Line2D

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C8C8C",
)  # Okabe and Ito, colour-blind safe
INK = "#010203"  # stands for the page's text colour: `plots.svg` puts currentColor in its place
BLUE_INK = "#0072B3"  # stands for the page's blue likewise
PANEL = 1.45  # inches that a grid has
PIXELS = 360  # of a grid's side at least, drawn as a raster: a path for every cell of a maze would be megabytes
RIGHT, WRONG, WALL = COLOURS[0], COLOURS[1], (0.5, 0.5, 0.5, 0.55)  # the grey is seen on white and on black
TINT = (*to_rgba_array(WRONG)[0, :3], 0.45)


def draw_sudoku(axes: Axes, question: str, answer: str, shown: str) -> list[Artist]:
    """The grid `shown`: givens in bold, what is right in blue, what is wrong on orange. Returns the legend's signs.

    question, answer, shown: cells row by row, "." for a blank one.
    """
    question_cells, answer_cells, cells = (_grid(text) for text in (question, answer, shown))
    side, wrong, given = len(cells), cells != answer_cells, question_cells != "."
    _raster(axes, [(wrong, TINT, "full")])
    edges = np.arange(side + 1) - 0.5
    for at, width in ((edges, 0.4), (edges[:: math.isqrt(side)], 1.2)):
        lines = {"color": INK, "linewidth": width, "clip_on": False}
        axes.hlines(at, -0.5, side - 0.5, **lines)
        axes.vlines(at, -0.5, side - 0.5, **lines)
    size = 0.56 * PANEL * 72 / side
    for kind, where in (("given", given & ~wrong), ("right", ~given & ~wrong), ("wrong", wrong)):
        for digit in sorted(set(cells[where]) - {"."}):
            y, x = np.nonzero(where & (cells == digit))
            axes.plot(x, y, **_digit(digit, kind), markersize=size, label=f"{kind} {digit}")
    return [
        _sign("given", **_digit("7", "given")),
        _sign("right", **_digit("7", "right")),
        _sign("wrong", marker="s", markersize=9, color=TINT, markeredgewidth=0),
    ]


def draw_maze(axes: Axes, question: str, answer: str, shown: str) -> list[Artist]:
    """The maze with the path `shown`: what is right, missing, marked wrongly. Returns the legend's signs.

    A start or goal that is answered wrong is hollow. question, answer, shown: cells row by row, as "# SGo".
    """
    question_cells, answer_cells, cells = (_grid(text) for text in (question, answer, shown))
    path, wrong, ends = answer_cells == "o", cells != answer_cells, np.isin(question_cells, ["S", "G"])
    marked = cells == "o"
    layers = [
        (question_cells == "#", WALL, "full"),
        (path & ~wrong, RIGHT, "full"),
        (path & wrong, RIGHT, "ring"),
        (wrong & marked & ~ends, WRONG, "cross"),
        (wrong & ~path & ~marked & ~ends, WRONG, "dot"),
    ]
    _raster(axes, layers)
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4)
    size = max(0.6 * PANEL * 72 / len(cells), 5)
    for symbol, marker, larger in (("S", "o", 1.0), ("G", "*", 1.5)):
        y, x = np.nonzero(question_cells == symbol)
        filled = {"color": INK, "markeredgewidth": 0}
        hollow = {"color": WRONG, "markeredgewidth": 1.5, "fillstyle": "none"}
        axes.plot(x, y, marker, markersize=larger * size, label=symbol, **(hollow if wrong[y, x].any() else filled))
    return [
        _sign("start", marker="o", color=INK),
        _sign("goal", marker="*", color=INK, markersize=9),
        _sign("wall", marker="s", color=WALL, markeredgewidth=0),
        _sign("path, right", marker="s", color=RIGHT),
        _sign("path, missing", marker="s", color=RIGHT, fillstyle="none", markeredgewidth=1.5),
        _sign("no path, marked", marker="x", color=WRONG, markeredgewidth=2),
        _sign("other cell wrong", marker="s", color=WRONG, markersize=2.5),
    ]


def _grid(text: str) -> np.ndarray:
    side = math.isqrt(len(text))
    return np.array(list(text)).reshape(side, side)


def _raster(axes: Axes, layers: list[tuple[np.ndarray, Any, str]]) -> None:
    """Cells bool [side, side] in a colour and a shape, layer over layer, as one picture."""
    side = len(layers[0][0])
    each = math.ceil(PIXELS / side)
    y, x = np.abs(np.mgrid[:each, :each] * 2 + 1 - each) / each  # from a cell's middle, 0, to its edge, 1
    out = np.maximum(x, y)
    shapes = {"full": out >= 0, "dot": out < 0.35, "ring": (out > 0.4) & (out < 0.9), "cross": abs(x - y) < 0.4}
    picture = np.zeros((side * each, side * each, 4))
    for cells, colour, shape in layers:
        picture[np.kron(cells, shapes[shape])] = to_rgba_array(colour)[0]
    axes.imshow(picture, extent=(-0.5, side - 0.5, side - 0.5, -0.5), interpolation="none")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _digit(digit: str, kind: str) -> dict[str, Any]:
    # As a marker its outline stands in the SVG once; as text each cell would take half a kilobyte.
    font, colour = {"given": ("mathbf", INK), "right": ("mathdefault", BLUE_INK), "wrong": ("mathdefault", INK)}[kind]
    return {"marker": rf"$\{font}{{{digit}}}$", "color": colour, "linestyle": "none", "markeredgewidth": 0}


def _sign(label: str, **style: Any) -> Line2D:
    return Line2D([], [], label=label, **({"linestyle": "none", "markersize": 6} | style))

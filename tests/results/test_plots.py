"""Puzzles drawn as the model thinks: which cells are shown as what."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from results.comparison import compare
from results.grids import RIGHT, TINT, WRONG
from results.plots import solving, svg, training_sigma

from .test_comparison import evals_of, trials_of

SUDOKU = {"question": "1..33.1..1.4432.", "answer": "1243341221344321"}
MAZE = {"question": "S    # #G    # #", "answer": "S   o# #G    # #"}


def unrolls_of(puzzle: dict[str, str], *runs: list[str]) -> pd.DataFrame:
    """The table of one example: the clean run, then perturbed ones."""
    row = {"trial_id": "x", "step": 50, "example": 0} | puzzle
    return pd.DataFrame(
        [
            row | {"sigma": 0.3 * at, "predicted": texts, "q_halt": np.linspace(-1, 2, len(texts))}
            for at, texts in enumerate(runs)
        ]
    )


def panels(figure, says: str) -> list[Axes]:
    """The grids whose title starts so."""
    return [axes for axes in figure.axes if axes.get_title().startswith(says)]


def pixel(axes: Axes, cell: int, x: float = 0.0, y: float = 0.0) -> str | None:
    """The colour in a cell of a 4x4 grid, x and y from its middle 0 to its edges -1 and 1; None if there is none."""
    picture = np.asarray(axes.images[0].get_array())
    each = len(picture) // 4
    row, column = divmod(cell, 4)
    colour = picture[int((row + (y + 1) / 2) * each), int((column + (x + 1) / 2) * each)]
    return to_hex(colour[:3]).upper() if colour[3] else None


def coloured(axes: Axes, colour: str) -> list[int]:
    return [cell for cell in range(16) if pixel(axes, cell) == colour]


def digits(axes: Axes, kind: str) -> dict[int, str]:
    """The digits of a kind by their cell."""
    found = {}
    for line in axes.lines:
        says, digit = line.get_label().split(" ")
        if says == kind:
            assert f"{{{digit}}}" in line.get_marker()
            found |= {int(y) * 4 + int(x): digit for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}
    return found


def test_a_sudokus_wrong_cells_are_tinted_and_counted():
    wrong = "1" + "3" + SUDOKU["answer"][2:-1] + "?"
    figure = solving(unrolls_of(SUDOKU, [wrong, SUDOKU["answer"]], [SUDOKU["question"], "3" * 16]), name="a")
    assert figure.get_suptitle() == "a: test puzzle 0 after 50 batches"
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "puzzle",
        "ACT step 1\n2 wrong, q \N{MINUS SIGN}1.0",
        "ACT step 2\nsolved, q +2.0",
        "ACT step 1\n7 wrong, q \N{MINUS SIGN}1.0",
        "ACT step 2\n12 wrong, q +2.0",
        "true answer",
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == ["", "clean", "", "sigma 0.3", "", ""]
    puzzle, first, solved, blank, threes, answer = figure.axes
    tint = to_hex(TINT[:3]).upper()
    given = {cell: digit for cell, digit in enumerate(SUDOKU["question"]) if digit != "."}
    filled = {cell: digit for cell, digit in enumerate(SUDOKU["answer"]) if cell not in given}
    assert digits(puzzle, "given") == given
    assert digits(puzzle, "right") == digits(puzzle, "wrong") == {}
    for axes in (solved, answer):
        assert (digits(axes, "given"), digits(axes, "right"), digits(axes, "wrong")) == (given, filled, {})
    assert [coloured(axes, tint) for axes in (puzzle, first, solved, answer)] == [[], [1, 15], [], []]
    assert digits(first, "wrong") == {1: "3", 15: "?"}
    assert coloured(blank, tint) == sorted(filled)
    assert digits(blank, "wrong") == {}  # tinted, and nothing in it
    assert set(digits(threes, "given")) == {cell for cell, digit in given.items() if digit == "3"}
    assert set(digits(threes, "wrong").values()) == {"3"}


def test_a_mazes_cells_are_right_missing_marked_or_else_wrong():
    """The path found; then left out, with two cells marked elsewhere and one taken for another start."""
    detour = "Soo  # #G   S# #"
    figure = solving(unrolls_of(MAZE, [MAZE["answer"], detour]))
    assert figure.get_suptitle() == "Test puzzle 0 after 50 batches"
    (right,), (lost,) = panels(figure, "ACT step 1"), panels(figure, "ACT step 2")
    assert right.get_title() == "ACT step 1\nsolved, q \N{MINUS SIGN}1.0"
    assert lost.get_title() == "ACT step 2\n4 wrong, q +2.0"
    assert (pixel(right, 4), pixel(right, 4, 0.9, 0.9)) == (RIGHT, RIGHT)
    assert coloured(right, RIGHT) == [4]
    assert coloured(right, WRONG) == coloured(lost, RIGHT) == []
    assert (pixel(lost, 4), pixel(lost, 4, 0.6)) == (None, RIGHT)  # missing: hollow
    assert coloured(lost, WRONG) == [1, 2, 12]
    assert [pixel(lost, cell, 0.8, 0.8) for cell in (1, 2, 12)] == [WRONG, WRONG, None]  # crosses and a dot
    assert [pixel(lost, cell) for cell in (5, 7, 13, 15)] == ["#808080"] * 4
    assert [line.get_fillstyle() for line in lost.lines] == ["full", "full"]
    moved = solving(unrolls_of(MAZE, [" " + MAZE["answer"][1:]]))
    start, goal = panels(moved, "ACT step 1")[0].lines
    assert (start.get_label(), start.get_fillstyle(), start.get_color()) == ("S", "none", WRONG)
    assert (goal.get_label(), goal.get_fillstyle()) == ("G", "full")


@pytest.mark.parametrize(("steps", "shown"), [(1, [1]), (4, [1, 2, 3, 4]), (16, [1, 4, 7, 10, 13, 16])])
def test_the_first_the_last_and_those_between(steps, shown):
    figure = solving(unrolls_of(SUDOKU, [SUDOKU["answer"]] * steps))
    assert [axes.get_title().partition("\n")[0] for axes in figure.axes] == [
        "puzzle",
        *(f"ACT step {step}" for step in shown),
        "true answer",
    ]


def test_an_example_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"example: 3 is not unrolled here; give one of \[0\]"):
        solving(unrolls_of(SUDOKU, [SUDOKU["answer"]]), example=3)


@pytest.mark.parametrize("kind", ["sudoku", "maze"])
def test_the_largest_puzzles_are_small_files(kind):
    """Every cell wrong in a 9x9 Sudoku, and a 30x30 maze of noise: below 300 KB, and nothing is fetched."""
    rng = np.random.default_rng(0)
    cells, n = (np.array(list("123456789")), 81) if kind == "sudoku" else (np.array(list("# o")), 900)
    texts = ["".join(rng.choice(cells, n)) for _ in range(18)]
    question = texts[0].replace("o", " ") if kind == "sudoku" else "SG" + texts[0][2:].replace("o", " ")
    figure = solving(unrolls_of({"question": question, "answer": texts[1]}, texts[2:], texts[2:]))
    drawn = svg(figure, "x")
    assert len(drawn) < 300_000
    assert drawn.count("<image") == 14
    assert 'href="http' not in drawn
    assert "currentColor" in drawn


def test_the_sigma_of_training_beside_an_arm_that_has_none():
    trials = trials_of([0], arms=("baseline", "clean", "zero", "fixed", "interval"))
    noise = {
        "zero": '{"perturb": {"sigma": 0}}',
        "fixed": '{"perturb": {"sigma": 0.3}}',
        "interval": '{"perturb": {"sigma": [0.01, 1.0]}}',
    }
    trials["config"] = trials.arm.map(lambda arm: noise.get(arm, "{}"))
    evals = pd.DataFrame([row for trial_id in trials.trial_id for row in evals_of(trial_id, [0.0, 0.5])])
    comparison = compare(trials, evals, baseline="baseline")
    found = training_sigma(comparison).groupby(comparison.arm).unique().map(list).to_dict()
    assert found["fixed"] == pytest.approx([0.3])
    assert found["interval"] == pytest.approx([0.1])
    assert np.isnan(found["clean"] + found["zero"]).all()

"""Solver, generator and augmentation."""

import numpy as np
import pytest

from rrm.puzzles.puzzle import split_of
from rrm.puzzles.sudoku import are_solutions, draw_augmentation, generate, solutions, solve

HARD = "6....3.1...3.8.9.....4....2.3......41...9..8...8..76..3..6..7...5...2.....1.3..5."
HARD_ANSWER = "642973815573281946819456372735168294126394587498527631384615729957842163261739458"


def grid(text: str, side: int = 9) -> np.ndarray:
    return np.array([0 if c == "." else int(c) for c in text], dtype=np.int8).reshape(side, side)


def test_solves_a_sudoku_extreme_puzzle():
    assert np.array_equal(solve(grid(HARD), 3), grid(HARD_ANSWER))


def test_counts_every_4x4_grid_once():
    every = [s.tobytes() for s in solutions(np.zeros((4, 4), dtype=np.int8), 2)]
    assert len(every) == len(set(every)) == 288
    assert all(are_solutions(np.frombuffer(s, dtype=np.int8).reshape(4, 4)[None], 2).all() for s in every)


def test_no_answer_for_many_solutions_or_none():
    assert solve(np.zeros((4, 4), dtype=np.int8), 2) is None
    repeated = np.zeros((4, 4), dtype=np.int8)
    repeated[0, 0] = repeated[0, 1] = 1
    assert solve(repeated, 2) is None
    stuck = grid("123.......4.....", 4)  # the blank of the first row needs a 4 that its column holds
    stuck[2, 3] = 4
    assert solve(stuck, 2) is None


@pytest.mark.parametrize("wrong", [(0, 0, 4), (3, 3, 9)])
def test_a_changed_digit_is_no_solution(wrong):
    row, col, digit = wrong
    answer = grid(HARD_ANSWER)
    assert are_solutions(answer[None], 3).all()
    answer[row, col] = digit
    assert not are_solutions(answer[None], 3).all()


@pytest.mark.parametrize(("box", "blanks"), [(2, 8), (3, 40)])
def test_generated_puzzles_have_one_solution(box, blanks):
    for index in range(4):
        question, answer = generate(box, blanks, "train", seed=1, index=index)
        assert np.array_equal(solve(question, box), answer)
        assert (question == 0).sum() == blanks
        again = generate(box, blanks, "train", seed=1, index=index)
        assert np.array_equal(again.question, question)
    assert not np.array_equal(generate(box, blanks, "train", 1, 0).answer, generate(box, blanks, "train", 2, 0).answer)


def test_16x16_works_too():
    question, answer = generate(4, 40, "test", seed=0, index=0)
    assert are_solutions(answer[None], 4).all()
    assert (question == 0).sum() == 40


def test_splits_never_share_a_solution_grid():
    grids = {
        split: {generate(2, 6, split, 0, index).answer.tobytes() for index in range(60)}
        for split in ("train", "validation", "test")
    }
    assert not grids["train"] & grids["validation"]
    assert not grids["train"] & grids["test"]
    assert not grids["validation"] & grids["test"]


def test_every_4x4_grid_has_a_split_and_most_train():
    splits = [split_of(s.tobytes()) for s in solutions(np.zeros((4, 4), dtype=np.int8), 2)]
    assert {split: splits.count(split) for split in set(splits)} == {"train": 196, "validation": 43, "test": 49}


@pytest.mark.parametrize("box", [2, 3])
def test_augmentation_keeps_puzzle_and_answer_together(box):
    puzzles = [generate(box, 6, "train", 0, index) for index in range(8)]
    questions, answers = (np.stack(grids) for grids in zip(*puzzles, strict=True))
    drawn = draw_augmentation(box, seed=3, stream="augment.0", step=5, rows=range(8))
    new_questions, new_answers = drawn.apply(questions), drawn.apply(answers)
    assert not np.array_equal(new_answers, answers)
    for question, answer, old in zip(new_questions, new_answers, questions, strict=True):
        assert are_solutions(answer[None], box).all()
        assert np.array_equal(solve(question, box), answer)
        assert (question == 0).sum() == (old == 0).sum()


def test_augmentation_reaches_every_symmetry():
    drawn = draw_augmentation(2, seed=0, stream="augment.0", step=0, rows=range(4000))
    rows = {tuple(perm) for perm in drawn.row_perm}
    assert len(rows) == 8  # 2 orders of the bands, 2 of the rows in each
    assert {tuple(perm) for perm in drawn.col_perm} == rows
    assert len({tuple(digits) for digits in drawn.digit_map}) == 24
    assert 0.45 < drawn.transpose.mean() < 0.55

"""Sudoku with n x n boxes: solver, generator of puzzles with one solution, and the published augmentation.

A grid is an int8 array [side, side] with side = n * n, digits 1..side and 0 for a blank.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rrm.puzzles.puzzle import Puzzle, Split, split_of
from rrm.streams import numpy_generator, uniforms


def are_solutions(grids: np.ndarray, box: int) -> np.ndarray:
    """For grids [n, side, side]: bool [n], whether every row, column and box holds each digit once."""
    side = box * box
    boxes = grids.reshape(-1, box, box, box, box).swapaxes(2, 3).reshape(-1, side, side)
    digits = np.arange(1, side + 1)
    return np.all(
        [(np.sort(lines, axis=2) == digits).all(axis=(1, 2)) for lines in (grids, grids.swapaxes(1, 2), boxes)], axis=0
    )


def solutions(grid: np.ndarray, box: int, rng: np.random.Generator | None = None) -> Iterator[np.ndarray]:
    """Every solution of grid [side, side], each once; none if a digit already repeats.

    Depth-first, at the cell with the fewest candidates, or where a digit has one place only. With `rng` (which skips
    the latter) candidates are tried in random order.
    """
    side = box * box
    cells = [int(x) for x in grid.flat]
    rows, cols, boxes = [0] * side, [0] * side, [0] * side
    where = [(i // side, i % side, i // side // box * box + i % side // box) for i in range(side * side)]
    for i, digit in enumerate(cells):
        if digit:
            r, c, b = where[i]
            bit = 1 << digit
            if (rows[r] | cols[c] | boxes[b]) & bit:
                return
            rows[r] |= bit
            cols[c] |= bit
            boxes[b] |= bit
    everything = (1 << (side + 1)) - 2
    blanks = [i for i, digit in enumerate(cells) if not digit]

    def only_place(free_of: list[int]) -> tuple[int, int] | None:
        """A blank and the digit that no other blank of its row, column or box can hold."""
        once, twice = [0] * (3 * side), [0] * (3 * side)
        lines = [(r, side + c, 2 * side + b) for r, c, b in (where[i] for i in blanks)]
        for free, units in zip(free_of, lines, strict=True):
            for unit in units:
                twice[unit] |= once[unit] & free
                once[unit] |= free
        for place, (free, (r, c, b)) in enumerate(zip(free_of, lines, strict=True)):
            alone = free & (once[r] & ~twice[r] | once[c] & ~twice[c] | once[b] & ~twice[b])
            if alone:
                return place, alone & -alone
        return None

    def search() -> Iterator[np.ndarray]:
        if not blanks:
            yield np.array(cells, dtype=np.int8).reshape(side, side)
            return
        free_of = []
        best, best_free, fewest = 0, 0, side + 1
        for place, i in enumerate(blanks):
            r, c, b = where[i]
            free = everything & ~(rows[r] | cols[c] | boxes[b])
            free_of.append(free)
            count = free.bit_count()
            if count < fewest:
                best, best_free, fewest = place, free, count
                if count < 2:
                    break
        if fewest > 1 and rng is None:
            best, best_free = only_place(free_of) or (best, best_free)
        i = blanks[best]
        blanks[best] = blanks[-1]
        blanks.pop()
        r, c, b = where[i]
        candidates = [d for d in range(1, side + 1) if best_free >> d & 1]
        if rng is not None:
            rng.shuffle(candidates)
        for digit in candidates:
            bit = 1 << digit
            cells[i] = digit
            rows[r] |= bit
            cols[c] |= bit
            boxes[b] |= bit
            yield from search()
            rows[r] ^= bit
            cols[c] ^= bit
            boxes[b] ^= bit
        cells[i] = 0
        blanks.append(i)
        blanks[best], blanks[-1] = blanks[-1], blanks[best]

    yield from search()


def solve(grid: np.ndarray, box: int) -> np.ndarray | None:
    """The solution of grid [side, side] if there is exactly one, else None."""
    found = solutions(grid, box)
    first = next(found, None)
    return first if next(found, None) is None else None


def solution_keys(answers: np.ndarray) -> list[bytes]:
    """For answers [n, side, side]: the solution grid, which no two splits may share."""
    return [answer.tobytes() for answer in answers.astype(np.int8)]


def generate(box: int, blanks: int, split: Split, seed: int, index: int) -> Puzzle:
    """Puzzle number `index` of a split: a function of its arguments alone.

    A random solution grid of that split, whose cells are blanked in random order, each only while the solution stays
    the only one, until `blanks` are blank or every cell was tried (so a puzzle can have fewer).
    """
    side = box * box
    rng = numpy_generator(seed, f"sudoku.{split}", box, index)
    while True:
        answer = next(solutions(np.zeros((side, side), dtype=np.int8), box, rng))
        if split_of(answer.tobytes()) == split:
            break
    question = answer.copy()
    for cell in rng.permutation(side * side):
        if np.count_nonzero(question == 0) == blanks:
            break
        question.flat[cell] = 0
        if solve(question, box) is None:
            question.flat[cell] = answer.flat[cell]
    return Puzzle(question, answer)


class Augmentation(NamedTuple):
    """The published Sudoku augmentation of B grids: transpose first, then rows and columns, then digits.

    transpose bool [B]; row_perm, col_perm [B, side] with new[i, j] = old[row_perm[i], col_perm[j]]; digit_map
    [B, side + 1] with 0 (blank) kept.
    """

    transpose: np.ndarray
    row_perm: np.ndarray
    col_perm: np.ndarray
    digit_map: np.ndarray

    def apply(self, grids: np.ndarray) -> np.ndarray:
        """The same map for question and answer: grids [B, side, side] -> [B, side, side]."""
        turned = np.where(self.transpose[:, None, None], grids.swapaxes(1, 2), grids)
        B = np.arange(len(grids))[:, None, None]
        moved = turned[B, self.row_perm[:, :, None], self.col_perm[:, None, :]]
        return self.digit_map[B, moved].astype(grids.dtype)


def draw_augmentation(box: int, seed: int, stream: str, step: int, rows: range) -> Augmentation:
    """A uniformly random augmentation for each row of a step's batch: a function of (seed, stream, step, row).

    Bands are permuted, and the rows within each; stacks, and the columns within each; digits; a transpose with p 1/2.
    """
    side = box * box
    widths = (1, box, side, box, side, side)
    u = uniforms(seed, stream, step, rows, -(-sum(widths) // 4) * 4)
    flip, bands, rows_in, stacks, cols_in, digits = np.split(u, np.cumsum(widths), axis=1)[:6]

    def lines(groups: np.ndarray, within: np.ndarray) -> np.ndarray:
        order = groups.argsort(axis=1)
        inner = within.reshape(-1, box, box).argsort(axis=2)
        return (order[:, :, None] * box + inner).reshape(-1, side)

    digit_map = np.concatenate((np.zeros((len(u), 1), dtype=np.int64), digits.argsort(axis=1) + 1), axis=1)
    return Augmentation(flip[:, 0] < 0.5, lines(bands, rows_in), lines(stacks, cols_in), digit_map)

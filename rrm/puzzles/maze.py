"""Mazes on a square grid: the label rule of Maze-Hard, dihedral images, and a judge of answers.

A grid is an int8 array [side, side] of cells: 0 wall, 1 free, 2 start, 3 goal, 4 free and marked as part of the path.
A step goes to one of four neighbours. The length of a path counts its cells, start and goal included.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CELLS = "# SGo"
WALL, FREE, START, GOAL, PATH = range(5)
MAX_SIDE = 63  # a row is a word of 64 bits
WALK_STEPS = 10_000
# Quarter turns are counter-clockwise; the identifiers are the published ones.
DIHEDRAL = (
    lambda x: x,
    lambda x: np.rot90(x, 1, axes=(-2, -1)),
    lambda x: np.rot90(x, 2, axes=(-2, -1)),
    lambda x: np.rot90(x, 3, axes=(-2, -1)),
    lambda x: np.flip(x, -1),
    lambda x: np.flip(x, -2),
    lambda x: np.swapaxes(x, -2, -1),
    lambda x: np.flip(np.rot90(x, 1, axes=(-2, -1)), -1),
)


def dihedral(grids: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Each of grids [n, side, side] turned by its identifier 0..7 in ids [n]: 0 as it is, 1-3 quarter turns
    counter-clockwise, 4 left-right flip, 5 up-down flip, 6 transpose, 7 left-right flip of one quarter turn.
    """
    turned = np.empty_like(grids)
    for identifier, turn in enumerate(DIHEDRAL):
        chosen = ids == identifier
        turned[chosen] = turn(grids[chosen])
    return turned


def maze_keys(questions: np.ndarray) -> list[bytes]:
    """For grids [n, side, side]: keys that a maze shares with its eight images and with no other.

    What no two splits may share: dihedral augmentation never leads from one key to another.
    """
    images = [np.ascontiguousarray(turn(questions)).reshape(len(questions), -1) for turn in DIHEDRAL]
    return [min(row.tobytes() for row in rows) for rows in zip(*images, strict=True)]


def neighbours(cell: int, side: int) -> Iterator[int]:
    """The cells beside one, by their numbers row-major: down, left, right, up."""
    row, column = divmod(cell, side)
    if row + 1 < side:
        yield cell + side
    if column:
        yield cell - 1
    if column + 1 < side:
        yield cell + 1
    if row:
        yield cell - side


def shortest_path(question: np.ndarray) -> np.ndarray | None:
    """The answer [side, side] of a maze: one of its shortest paths marked; None if goal cannot be reached.

    Which one is the rule that all 2000 official Maze-Hard labels follow: breadth first from the start, neighbours in
    the order down, left, right, up; a cell's parent is the first that finds it.
    """
    side = len(question)
    cells = question.ravel().tolist()
    start, goal = cells.index(START), cells.index(GOAL)
    parent = {start: start}
    queue = deque([start])
    while queue and goal not in parent:
        cell = queue.popleft()
        for neighbour in neighbours(cell, side):
            if cells[neighbour] != WALL and neighbour not in parent:
                parent[neighbour] = cell
                queue.append(neighbour)
    if goal not in parent:
        return None
    answer = question.copy()
    cell = parent[goal]
    while cell != start:
        answer.flat[cell] = PATH
        cell = parent[cell]
    return answer


def path_lengths(questions: np.ndarray) -> np.ndarray:
    """For grids [n, side, side]: int64 [n], cells of a shortest path, start and goal counted; 0 where there is none."""
    lengths = np.zeros(len(questions), dtype=np.int64)
    free, reached, goal = (_row_bits(mask) for mask in (questions != WALL, questions == START, questions == GOAL))
    alive = np.arange(len(questions))
    length = 1
    while len(alive):
        length += 1
        spread = reached | reached << np.uint64(1) | reached >> np.uint64(1)
        spread[:, 1:] |= reached[:, :-1]
        spread[:, :-1] |= reached[:, 1:]
        spread &= free
        arrived = (spread & goal).any(axis=1)
        lengths[alive[arrived]] = length
        going_on = ~arrived & (spread != reached).any(axis=1)
        alive, reached, free, goal = alive[going_on], spread[going_on], free[going_on], goal[going_on]
    return lengths


def _row_bits(mask: np.ndarray) -> np.ndarray:
    """Booleans [n, side, side] as words uint64 [n, side], a bit a column."""
    wide = np.zeros((*mask.shape[:2], 64), dtype=bool)
    wide[..., : mask.shape[2]] = mask
    return np.packbits(wide, axis=-1, bitorder="little").view(np.uint64)[..., 0]


class Judgement(NamedTuple):
    """Of n answers, bool [n] each: a path from start to goal; a shortest one."""

    valid: np.ndarray
    shortest: np.ndarray


def judge(questions: np.ndarray, answers: np.ndarray) -> Judgement:
    """Whether answers [n, side, side] to questions [n, side, side] are paths, whichever way they take.

    A valid answer leaves walls, start and goal as they are and marks free cells that can be walked from start to goal,
    each once: no gap, no dead end, no mark beside the way. Marks so thick that WALK_STEPS steps find no way are none.
    """
    marked = answers == PATH
    kept = np.where(marked, questions == FREE, answers == questions).all(axis=(1, 2))
    way = marked | (questions == START) | (questions == GOAL)
    cells = way.sum(axis=(1, 2))
    # A way that takes no detour inside the marks is as long as they are many; only the others have to be searched.
    valid = kept & (path_lengths(np.where(way, questions, WALL)) == cells)
    for i in np.flatnonzero(kept & ~valid):
        valid[i] = _can_be_walked(way[i], questions[i])
    return Judgement(valid, valid & (cells == path_lengths(questions)))


def _can_be_walked(way: np.ndarray, question: np.ndarray) -> bool:
    """Whether a walk from start to goal takes every cell of `way` [side, side] once: depth first, narrow ends first."""
    side = len(way)
    start, goal = (int(np.flatnonzero(question == end)[0]) for end in (START, GOAL))
    unvisited = set(np.flatnonzero(way).tolist())
    near = {cell: [n for n in neighbours(cell, side) if n in unvisited] for cell in unvisited}
    if any(len(near[cell]) < (1 if cell in (start, goal) else 2) for cell in unvisited):
        return False
    unvisited.remove(start)

    def onward(cell: int) -> Iterator[int]:
        ways = {n: sum(m in unvisited for m in near[n]) for n in near[cell] if n in unvisited}
        dead_ends = [n for n, count in ways.items() if count == 0 and n != goal]
        if len(dead_ends) > 1:
            return iter(())
        open_to = [n for n in ways if n != goal or len(unvisited) == 1]
        return iter(sorted(open_to, key=ways.__getitem__))

    trail = [(start, onward(start))]
    for _ in range(WALK_STEPS):
        cell, ahead = trail[-1]
        following = next(ahead, None)
        if following is None:
            trail.pop()
            if not trail:
                return False
            unvisited.add(cell)
        elif following == goal:
            return True
        else:
            unvisited.remove(following)
            trail.append((following, onward(following)))
    return False

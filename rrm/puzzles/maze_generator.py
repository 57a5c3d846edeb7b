"""Making mazes: random walls or a perfect maze, with a path of a length asked for, and only one answer if asked."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from rrm.puzzles.maze import FREE, GOAL, PATH, START, WALL, maze_keys, neighbours, path_lengths, shortest_path
from rrm.puzzles.puzzle import Puzzle, Split, split_of
from rrm.streams import numpy_generator

Kind = Literal["random", "perfect"]
WALL_SHARE = (0.3, 0.5)
LAYOUTS_PER_MAZE = 4_000_000
PERFECT_PER_MAZE = 4_000
CELLS_TRIED = 32
REPEATING_SIDE = 12  # from here on two random mazes are the same with a probability below 1e-30


def generate(
    side: int, min_path: int, split: Split, seed: int, index: int, kind: Kind = "random", unique: bool = False
) -> Puzzle | None:
    """Maze number `index` of a split: a function of its arguments alone; None if millions of layouts hold none.

    random, the procedure that fits Maze-Hard: each cell is a wall with a probability p, drawn from U(0.3, 0.5) for the
    maze; start and goal are two random free cells; kept if a shortest path has `min_path` cells or more (Maze-Hard:
    110). `unique`: the free cells of all other shortest paths become walls, so that the answer is the only shortest
    path. perfect: a spanning tree of the cells with two even coordinates, by depth-first search in random order; only
    one path leads from one cell to another. The goal is drawn of the cells that are far enough from the start.
    """
    rng = numpy_generator(seed, f"maze.{split}" if kind == "random" else f"maze.perfect.{split}", side, index)
    candidates = _random(rng, side, min_path, split) if kind == "random" else _perfect(rng, side, min_path)
    for question in candidates:
        answer = shortest_path(question)
        if answer is None:
            continue
        if unique:
            question, answer = without_other_paths(question, answer)
        if side < REPEATING_SIDE and split_of(maze_keys(question[None])[0]) != split:
            continue
        return Puzzle(question, answer)
    return None


def without_other_paths(question: np.ndarray, answer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Question and answer with walls in place of the free cells that lie on other shortest paths.

    Then the answer is the only shortest path: at each distance from the start its cell is the only one on any of them.
    """
    elsewhere = _on_shortest_paths(question) & (question == FREE) & (answer != PATH)
    return np.where(elsewhere, WALL, question).astype(np.int8), np.where(elsewhere, WALL, answer).astype(np.int8)


def shortest_paths(question: np.ndarray) -> int:
    """How many shortest paths lead from start to goal."""
    ways = {int(np.flatnonzero(question == START)[0]): 1}
    for cell, nearer in _by_distance(question):
        ways[cell] = sum(ways[before] for before in nearer)
    return ways.get(int(np.flatnonzero(question == GOAL)[0]), 0)


def _by_distance(question: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """The cells that can be reached, the nearest first without the start, and those a step nearer to it beside each."""
    side, cells = len(question), question.ravel().tolist()
    distance = {cells.index(START): 0}
    layer = list(distance)
    while layer:
        following: dict[int, list[int]] = {}
        for cell in layer:
            for near in neighbours(cell, side):
                if cells[near] != WALL and near not in distance:
                    following.setdefault(near, []).append(cell)
        distance |= dict.fromkeys(following, distance[layer[0]] + 1)
        yield from following.items()
        layer = list(following)


def _on_shortest_paths(question: np.ndarray) -> np.ndarray:
    """The cells of all shortest paths: bool [side, side]."""
    nearer = dict(_by_distance(question))
    goal = int(np.flatnonzero(question == GOAL)[0])
    found, layer = {goal}, [goal]
    while layer:
        layer = list({before for cell in layer for before in nearer.get(cell, ())})
        found.update(layer)
    on_path = np.zeros(question.size, dtype=bool)
    on_path[list(found)] = True
    return on_path.reshape(question.shape)


def _random(rng: np.random.Generator, side: int, min_path: int, split: Split) -> Iterator[np.ndarray]:
    n = 64 if side < REPEATING_SIDE else 1024
    for _ in range(LAYOUTS_PER_MAZE // n):
        layouts = _layouts(rng, n, side)
        yield from layouts[path_lengths(layouts) >= min_path]


def _layouts(rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    """n random grids [.., side, side], less those without two free cells among the first that were tried for them."""
    cells = side * side
    p = rng.uniform(*WALL_SHARE, size=(n, 1))
    free = rng.integers(0, 2**16, size=(n, cells), dtype=np.uint16) >= p * 2**16
    tried = rng.integers(0, cells, size=(n, CELLS_TRIED))
    fits = np.take_along_axis(free, tried, axis=1)
    rows = np.arange(n)
    start = tried[rows, fits.argmax(axis=1)]
    fits &= tried != start[:, None]
    goal = tried[rows, fits.argmax(axis=1)]
    grids = free.astype(np.int8)
    grids[rows, start], grids[rows, goal] = START, GOAL
    return grids[fits.any(axis=1)].reshape(-1, side, side)


def _perfect(rng: np.random.Generator, side: int, min_path: int) -> Iterator[np.ndarray]:
    for _ in range(PERFECT_PER_MAZE):
        question = _spanning_tree(rng, side)
        start = rng.choice(np.flatnonzero(question == FREE))
        question.flat[start] = START
        distance = {int(start): 1}
        for cell, nearer in _by_distance(question):
            distance[cell] = distance[nearer[0]] + 1
        far = [cell for cell, length in distance.items() if length >= max(2, min_path)]
        if far:
            question.flat[rng.choice(far)] = GOAL
            yield question


def _spanning_tree(rng: np.random.Generator, side: int) -> np.ndarray:
    """A grid [side, side] of walls and free cells; where the side is even, walls fill one edge of each direction."""
    question = np.full((side, side), WALL, dtype=np.int8)
    shift = rng.integers(0, 2, size=2) if side % 2 == 0 else np.zeros(2, dtype=np.int64)
    nodes = (side + 1) // 2 if side % 2 else side // 2
    inside = question[shift[0] : shift[0] + 2 * nodes - 1, shift[1] : shift[1] + 2 * nodes - 1]
    first = rng.integers(0, nodes, size=2)
    trail = [(int(first[0]), int(first[1]))]
    inside[2 * trail[0][0], 2 * trail[0][1]] = FREE
    while trail:
        row, column = trail[-1]
        ways = [
            (row + down, column + right)
            for down, right in ((1, 0), (0, -1), (0, 1), (-1, 0))
            if 0 <= row + down < nodes and 0 <= column + right < nodes
            if inside[2 * (row + down), 2 * (column + right)] == WALL
        ]
        if not ways:
            trail.pop()
            continue
        following = ways[rng.integers(len(ways))]
        inside[2 * following[0], 2 * following[1]] = FREE
        inside[row + following[0], column + following[1]] = FREE
        trail.append(following)
    return question

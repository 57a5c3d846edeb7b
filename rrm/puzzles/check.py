"""Checking a data set: are its answers right, the only ones, the shortest; do its splits share anything?"""

from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rrm.puzzles import maze, maze_generator
from rrm.puzzles.dataset import shared_keys
from rrm.puzzles.puzzle import Puzzles
from rrm.puzzles.sudoku import solve
from rrm.puzzles.tasks import BaseTask, MazeTask, SudokuTask, task_of


class CheckedSplit(NamedTuple):
    """A split that could be read; `counts` of its puzzles by what was found, `problems` as a user reads them.

    `remarks` are about what is not wrong, and may not be meant.
    """

    path: str
    task: BaseTask
    puzzles: Puzzles
    counts: dict[str, int]
    problems: list[str]
    remarks: list[str]


def check_split(path: str) -> CheckedSplit:
    """Read one split and check every puzzle of it. Raises DataError, with the first bad row, if it cannot be used.

    Wrong answers and broken paths are not read at all; counted are unique solutions and shortest paths.
    """
    task = task_of({"train": path})
    puzzles = task.read(path)
    counts: dict[str, int] = {}
    problems: list[str] = []
    first_row = 0 if Path(path).is_dir() else 1

    def count(what: str, good: np.ndarray, otherwise: str | None = None) -> None:
        counts[what] = int(good.sum())
        bad = np.flatnonzero(~good)
        if len(bad) and otherwise:
            more = f"; {len(bad)} rows in all" if len(bad) > 1 else ""
            problems.append(f"{path}: row {bad[0] + first_row}: {otherwise}{more}")

    everything = np.ones(len(puzzles), dtype=bool)
    if isinstance(task, SudokuTask):
        count("solved", everything)
        unique = [solve(question, task.box) is not None for question in puzzles.questions]
        count("with one solution", np.array(unique), "the question has several solutions")
    if isinstance(task, MazeTask):
        count("paths", everything)
        count("shortest", maze.judge(puzzles.questions, puzzles.answers).shortest, "the answer is no shortest path")
        paths = [maze_generator.shortest_paths(question) for question in puzzles.questions]
        count("with one shortest path", np.array(paths) == 1)
        labels = [maze.shortest_path(question) for question in puzzles.questions]
        count(
            "by Maze-Hard's rule",
            np.array(
                [
                    label is not None and np.array_equal(label, answer)
                    for label, answer in zip(labels, puzzles.answers, strict=True)
                ]
            ),
        )
    return CheckedSplit(path, task, puzzles, counts, problems, _repeated(path, puzzles, first_row))


def _repeated(path: str, puzzles: Puzzles, first_row: int) -> list[str]:
    """A line if puzzles stand there more than once, question and answer: each then counts as often."""
    cells = np.concatenate([puzzles.questions, puzzles.answers], axis=1).reshape(len(puzzles), -1)
    _, first, which = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[which.reshape(-1)] != np.arange(len(puzzles)))
    if not len(again):
        return []
    row, same = again[0] + first_row, first[which.reshape(-1)[again[0]]] + first_row
    more = f"; {len(again)} rows in all repeat an earlier one" if len(again) > 1 else ""
    return [f"{path}: row {row}: the same puzzle as row {same}{more}"]


def check_disjoint(splits: list[CheckedSplit]) -> tuple[int, list[str]]:
    """How many pairs of splits of one kind and size there are, and a line for each pair that shares puzzles."""
    pairs, problems = 0, []
    for first, second in combinations(splits, 2):
        if (first.task.name, first.task.seq_len) != (second.task.name, second.task.seq_len):
            continue
        pairs += 1
        for *_, common in shared_keys({split.path: split.task.keys(split.puzzles) for split in (first, second)}):
            problems.append(f"{first.path} and {second.path} share {len(common)} {first.task.key_name}")
    return pairs, problems

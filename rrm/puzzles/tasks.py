"""The tasks: what a user configures of a kind of puzzle, and what the trainer needs to know of it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from rrm.puzzles import maze, maze_generator, sudoku
from rrm.puzzles.formats import DataError, data_digest, read_csv, read_metadata, read_processed, read_rows
from rrm.puzzles.puzzle import Puzzle, Puzzles, Split
from rrm.puzzles.sources import on_this_node, splits_in
from rrm.settings import Settings
from rrm.streams import uniforms

AUGMENTATION_TRIES = 64
DIGITS = "123456789ABCDEFGHIJKLMNOP"


class PublishedOrder(Settings):
    """The order of the published loader, whose passes take `epochs_per_iter` epochs each and drop what fills no batch.

    In its scripts that is the number of epochs between two evaluations.
    """

    epochs_per_iter: int = Field(default=1, ge=1)


class Generate(Settings):
    """`puzzles` for training are made here, and as many for validation and test as are evaluated.

    `seed` is the data's own: trials of every seed train and evaluate on the same puzzles, in an order of their own.
    """

    puzzles: int = Field(ge=1)
    seed: int = 0


class BaseTask(Settings, ABC):
    """Where the puzzles come from: `generate`, or `data` (a folder or a Hugging Face name), or a file for each split.

    A split is a CSV file or a folder of processed arrays; each may be an s3:// URL. Without `validation`, the puzzles
    of `test` are halved between the two. `augment` draws a new augmentation at every visit. The order of training is
    our own, a function of (seed, step, row), unless `published_order` asks for the published loader's.
    """

    name: Any  # each kind of puzzle narrows these two
    generate: Any = None
    data: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    augment: bool = True
    published_order: PublishedOrder | None = None

    key_name: ClassVar[str]

    @property
    @abstractmethod
    def grid_side(self) -> int:
        """Cells in a row and in a column."""

    @property
    @abstractmethod
    def symbols(self) -> str:
        """The characters of a CSV; a cell's value is its symbol's place, its token that place + 1."""

    @abstractmethod
    def make(self, split: Split, index: int) -> Puzzle | None:
        """Generated puzzle number `index` of a split; None if it cannot be found. Splits share no key."""

    @abstractmethod
    def keys(self, puzzles: Puzzles) -> list[bytes]:
        """What no puzzle may share with one of another split."""

    @abstractmethod
    def wrong(self, puzzles: Puzzles) -> Iterator[tuple[np.ndarray, str]]:
        """Reasons to refuse puzzles: which bool [n], and why."""

    @abstractmethod
    def augmented(
        self, puzzles: Puzzles, seed: int, step: int, rows: range, is_held_out: Callable[[bytes], bool]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Questions and answers of a step's rows under a random symmetry each; never one that is held out."""

    def judge(self, questions: np.ndarray, answers: np.ndarray) -> dict[str, np.ndarray]:
        """What else there is to say of answers [n, side, side] than right or wrong: bool [n] by name."""
        return {}

    @property
    def aliases(self) -> dict[str, str]:
        """Other characters that stand for a symbol."""
        return {}

    @property
    def seq_len(self) -> int:
        """Tokens of a puzzle."""
        return self.grid_side**2

    @property
    def vocab_size(self) -> int:
        """Padding 0, then the symbols: the published encoding."""
        return len(self.symbols) + 1

    @cached_property
    def files(self) -> dict[str, str]:
        """The files by field name. Raises DataError if `data` leads to none."""
        fields = {"train": self.train, "validation": self.validation, "test": self.test}
        given = {name: on_this_node(path) for name, path in fields.items() if path is not None}
        return splits_in(self.data) if self.data is not None else given

    def identity(self) -> dict[str, Any]:
        """What the task is, whatever its files are called: a file stands as the digest of its content."""
        plain = self.model_dump(mode="json", exclude_defaults=True, exclude={"data"})
        return plain | {name: data_digest(path) for name, path in self.files.items()}

    def read(self, path: str) -> Puzzles:
        """The puzzles of a split. Raises DataError that names the file and the first bad row."""
        if Path(path).is_dir():
            puzzles, first = read_processed(path, self.grid_side, self.vocab_size), 0
        else:
            puzzles, first = read_csv(path, self.grid_side, self.symbols, self.aliases), 1
        for wrong, why in self.wrong(puzzles):
            rows = np.flatnonzero(wrong)
            if len(rows):
                count = f"; {len(rows)} rows in all" if len(rows) > 1 else ""
                shown = ",".join(self.text(grids[rows[0]]) for grids in puzzles[:2])
                raise DataError(f"{path}: row {rows[0] + first}: {why}: {shown}{count}")
        return puzzles

    def text(self, grid: np.ndarray) -> str:
        """A grid, cells of any shape, as a CSV holds it; "?" stands for what is no cell, such as padding (-1)."""
        symbols = self.symbols
        return "".join(symbols[cell] if 0 <= cell < len(symbols) else "?" for cell in grid.ravel())

    @model_validator(mode="after")
    def _one_source(self) -> "BaseTask":
        sources = [name for name in ("generate", "data", "train", "validation", "test") if getattr(self, name, None)]
        if sources and sources[0] in ("generate", "data") and len(sources) > 1:
            raise ValueError(
                f"{sources[0]}: given beside {', '.join(sources[1:])}; generate puzzles, or name a data set, or give a "
                "file for each split"
            )
        if sources[:1] not in (["generate"], ["data"]) and not (self.train and self.test):
            raise ValueError("train: give train and test, or data (a folder with both), or generate: {puzzles: ...}")
        return self


class GenerateSudoku(Generate):
    """Puzzles with up to `blanks` blank cells and one solution."""

    blanks: int = Field(ge=1)


class SudokuTask(BaseTask):
    """Sudoku with box x box boxes. Augmented by digits, bands, rows, stacks, columns and transposition."""

    name: Literal["sudoku"] = "sudoku"
    box: int = Field(ge=2, le=5)
    generate: GenerateSudoku | None = None

    key_name = "solution grids"

    @property
    def grid_side(self) -> int:
        return self.box**2

    @property
    def symbols(self) -> str:
        return "." + DIGITS[: self.grid_side]

    @property
    def aliases(self) -> dict[str, str]:
        return {"0": "."}

    @model_validator(mode="after")
    def _can_be_generated(self) -> "SudokuTask":
        if self.generate is not None and self.box > 4:
            raise ValueError(f"box: {self.box} takes too long to generate; use 2, 3 or 4, or read files")
        if self.generate is not None and self.generate.blanks > self.seq_len:
            raise ValueError(f"generate.blanks: {self.generate.blanks} is more than the {self.seq_len} cells")
        return self

    def make(self, split: Split, index: int) -> Puzzle | None:
        assert self.generate is not None
        return sudoku.generate(self.box, self.generate.blanks, split, self.generate.seed, index)

    def keys(self, puzzles: Puzzles) -> list[bytes]:
        return sudoku.solution_keys(puzzles.answers)

    def wrong(self, puzzles: Puzzles) -> Iterator[tuple[np.ndarray, str]]:
        questions, answers = puzzles.questions, puzzles.answers
        yield ~sudoku.are_solutions(answers, self.box), "the answer is not a solved Sudoku"
        yield (
            ((questions != 0) & (questions != answers)).any(axis=(1, 2)),
            "the answer does not continue the question",
        )

    def augmented(
        self, puzzles: Puzzles, seed: int, step: int, rows: range, is_held_out: Callable[[bytes], bool]
    ) -> tuple[np.ndarray, np.ndarray]:
        questions, answers = puzzles.questions.copy(), puzzles.answers.copy()
        waiting = np.arange(len(rows))
        for attempt in range(AUGMENTATION_TRIES):
            drawn = sudoku.draw_augmentation(self.box, seed, f"augment.{attempt}", step, rows)
            moved = drawn.apply(puzzles.answers)
            keys = sudoku.solution_keys(moved)
            settled = np.array([row for row in waiting if not is_held_out(keys[row])], dtype=np.int64)
            answers[settled] = moved[settled]
            questions[settled] = drawn.apply(puzzles.questions)[settled]
            waiting = np.setdiff1d(waiting, settled)
            if not len(waiting):
                break
        return questions, answers


class GenerateMaze(Generate):
    """Mazes whose shortest paths have `min_path` cells or more, start and goal counted.

    `kind`: random, each cell is a wall with a probability drawn for the maze from U(0.3, 0.5); perfect, walls between
    cells on a lattice, where only one path leads from one cell to another. `unique`: the answer is the only shortest
    path, as it is in every perfect maze; in a random one the other shortest paths are walled off.
    """

    min_path: int = Field(ge=2)
    kind: maze_generator.Kind = "random"
    unique: bool = False


class MazeTask(BaseTask):
    """Mazes of side x side cells: mark a shortest path from S to G. Augmented by turns and flips."""

    name: Literal["maze"]
    side: int = Field(ge=3, le=maze.MAX_SIDE)
    generate: GenerateMaze | None = None

    key_name = "mazes"

    @property
    def grid_side(self) -> int:
        return self.side

    @property
    def symbols(self) -> str:
        return maze.CELLS

    @model_validator(mode="after")
    def _can_be_generated(self) -> "MazeTask":
        if self.generate is None:
            return self
        nodes = ((self.side + 1) // 2) ** 2  # of a perfect maze: every other cell, and those between
        most = self.seq_len // 3 if self.generate.kind == "random" else 2 * nodes - 1
        if self.generate.min_path > most:
            raise ValueError(
                f"generate.min_path: {self.generate.min_path} is more than {most} of the {self.seq_len} cells; "
                f"{self.generate.kind} mazes hold no such path"
            )
        return self

    def make(self, split: Split, index: int) -> Puzzle | None:
        assert self.generate is not None
        asked = self.generate
        return maze_generator.generate(
            self.side, asked.min_path, split, asked.seed, index, asked.kind, asked.unique and asked.kind == "random"
        )

    def keys(self, puzzles: Puzzles) -> list[bytes]:
        return maze.maze_keys(puzzles.questions)

    def wrong(self, puzzles: Puzzles) -> Iterator[tuple[np.ndarray, str]]:
        questions = puzzles.questions
        for cell, name in ((maze.START, "S"), (maze.GOAL, "G")):
            yield (questions == cell).sum(axis=(1, 2)) != 1, f"the question has not one {name}"
        yield (questions == maze.PATH).any(axis=(1, 2)), "the question holds an o, which only answers do"
        yield ~maze.judge(questions, puzzles.answers).valid, "the answer is no path from S to G"

    def augmented(
        self, puzzles: Puzzles, seed: int, step: int, rows: range, is_held_out: Callable[[bytes], bool]
    ) -> tuple[np.ndarray, np.ndarray]:
        # All images of a maze share its key: none can reach a held-out one.
        ids = (uniforms(seed, "augment.dihedral", step, rows, 4)[:, 0] * len(maze.DIHEDRAL)).astype(np.int64)
        return maze.dihedral(puzzles.questions, ids), maze.dihedral(puzzles.answers, ids)

    def judge(self, questions: np.ndarray, answers: np.ndarray) -> dict[str, np.ndarray]:
        return maze.judge(questions, answers)._asdict()


def _name(value: Any) -> Any:
    return value.get("name", "sudoku") if isinstance(value, dict) else getattr(value, "name", None)


TaskConfig = Annotated[
    Annotated[SudokuTask, Tag("sudoku")] | Annotated[MazeTask, Tag("maze")],
    Discriminator(_name),
]


def task_of(files: dict[str, str]) -> BaseTask:
    """The task that a data set's files hold, told from the first one: its characters or vocabulary, and its size.

    `files` are paths by split name. Raises DataError if they hold neither Sudoku nor mazes.
    """
    path = next(iter(files.values()))
    if Path(path).is_dir():
        metadata = read_metadata(Path(path))
        cells = metadata["seq_len"]
        is_maze = metadata["vocab_size"] == len(maze.CELLS) + 1 and cells != 16  # a 4x4 Sudoku has as many tokens
    else:
        question = read_rows(path)[0]["question"]
        cells, is_maze = len(question), set(question) <= set(maze.CELLS)
    side = math.isqrt(cells)
    box = math.isqrt(side)
    splits: dict[str, Any] = {"train": path, "test": path} | files
    if is_maze and side**2 == cells and 3 <= side <= maze.MAX_SIDE:
        return MazeTask(name="maze", side=side, **splits)
    if not is_maze and box**4 == cells and 2 <= box <= 5:
        return SudokuTask(box=box, **splits)
    raise DataError(f"{path}: neither Sudoku nor square mazes: its first puzzle has {cells} cells")

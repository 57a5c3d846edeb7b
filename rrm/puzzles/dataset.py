"""A task as the trainer sees it: tokens, splits without a common solution grid, stateless order and augmentation."""

import hashlib
import json
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator

from rrm.models.act import Batch
from rrm.puzzles.formats import DataError, file_digest, read_sudoku_csv
from rrm.puzzles.sudoku import Puzzle, Split, draw_augmentation, generate, grid_digest, split_of
from rrm.settings import Settings
from rrm.streams import numpy_generator

AUGMENTATION_TRIES = 64


class GenerateConfig(Settings):
    """Puzzles made here: `puzzles` for training, each with up to `blanks` blank cells and one solution.

    `seed` is the data's own: trials of every seed train and evaluate on the same puzzles, in an order of their own.
    """

    puzzles: int = Field(ge=1)
    blanks: int = Field(ge=1)
    seed: int = 0


class SudokuTask(Settings):
    """Sudoku with box x box boxes, generated here or read from CSV files.

    Without `validation`, the puzzles of `test` are halved between validation and test by their solution grid.
    """

    name: Literal["sudoku"] = "sudoku"
    box: int = Field(ge=2, le=5)
    generate: GenerateConfig | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    augment: bool = True

    @property
    def seq_len(self) -> int:
        """Tokens of a puzzle."""
        return self.box**4

    @property
    def vocab_size(self) -> int:
        """Padding 0, blank 1, digits from 2: the published encoding."""
        return self.box**2 + 2

    @property
    def files(self) -> dict[str, str]:
        """The CSV files by field name."""
        fields = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: path for name, path in fields.items() if path is not None}

    def identity(self) -> dict:
        """What the task is, whatever its files are called: a file stands as the digest of its content."""
        return self.model_dump(mode="json", exclude_defaults=True) | {
            name: file_digest(path) for name, path in self.files.items()
        }

    @model_validator(mode="after")
    def _one_source(self) -> "SudokuTask":
        if self.generate is not None and self.files:
            raise ValueError(
                f"generate: given beside {', '.join(self.files)}; generate puzzles or read files, not both"
            )
        if self.generate is None and not (self.train and self.test):
            raise ValueError("train: give train and test (CSV files), or generate: {puzzles: ..., blanks: ...}")
        if self.generate is not None and self.box > 4:
            raise ValueError(f"box: {self.box} takes too long to generate; use 2, 3 or 4, or read files")
        if self.generate is not None and self.generate.blanks > self.seq_len:
            raise ValueError(f"generate.blanks: {self.generate.blanks} is more than the {self.seq_len} cells")
        return self


class Puzzles(NamedTuple):
    """Questions and answers of a split, int8 [n, side, side] each."""

    questions: np.ndarray
    answers: np.ndarray

    def __len__(self) -> int:
        return len(self.questions)


def as_batch(questions: np.ndarray, answers: np.ndarray) -> Batch:
    """Tokens (digit + 1, blank 1) of grids [B, side, side]; every cell is labelled, givens too."""
    inputs, labels = (torch.from_numpy(x.reshape(len(x), -1).astype(np.int64) + 1) for x in (questions, answers))
    return Batch(inputs, labels, torch.zeros(len(inputs), dtype=torch.int64))


class TaskData:
    """The puzzles of a task and the training order over them. Immutable: it may be shared by trials."""

    def __init__(self, task: SudokuTask, splits: dict[Split, Puzzles]):
        self.task = task
        self.splits = splits
        self.num_puzzles = 1
        held_out = {answer.tobytes() for name in ("validation", "test") for answer in splits[name].answers}
        self._held_out = held_out if task.generate is None else None
        arrays = (array.tobytes() for name in ("train", "validation", "test") for array in splits[name])
        self.digest = hashlib.sha256(b"".join(arrays)).hexdigest()

    def _is_held_out(self, answer: np.ndarray) -> bool:
        return split_of(answer) != "train" if self._held_out is None else answer.tobytes() in self._held_out

    def train_batch(self, seed: int, step: int, batch_size: int, rows: range | None = None) -> Batch:
        """The batch of a training step, or only some rows of it, as one of several data-parallel workers takes them.

        Each pass over the puzzles is a permutation of its own; a batch may span two passes. An augmented answer that
        equals a held-out solution grid is drawn again, so augmentation never leaks one.
        """
        rows = range(batch_size) if rows is None else rows
        train = self.splits["train"]
        first = step * batch_size
        place = [divmod(first + row, len(train)) for row in rows]
        index = np.array([_permutation(seed, epoch, len(train))[i] for epoch, i in place])
        questions, answers = train.questions[index], train.answers[index]
        if self.task.augment:
            questions, answers = self._augmented(questions, answers, seed, step, rows)
        return as_batch(questions, answers)

    def _augmented(
        self, questions: np.ndarray, answers: np.ndarray, seed: int, step: int, rows: range
    ) -> tuple[np.ndarray, np.ndarray]:
        new_questions, new_answers = questions.copy(), answers.copy()
        waiting = np.arange(len(rows))
        for attempt in range(AUGMENTATION_TRIES):
            drawn = draw_augmentation(self.task.box, seed, f"augment.{attempt}", step, rows)
            moved = drawn.apply(answers)
            settled = np.array([row for row in waiting if not self._is_held_out(moved[row])], dtype=np.int64)
            new_answers[settled] = moved[settled]
            new_questions[settled] = drawn.apply(questions)[settled]
            waiting = np.setdiff1d(waiting, settled)
            if not len(waiting):
                break
        return new_questions, new_answers

    def eval_batch(self, split: Split, n: int) -> Batch:
        """The first n puzzles of a split, in an order fixed by the puzzles themselves."""
        puzzles = self.splits[split]
        return as_batch(puzzles.questions[:n], puzzles.answers[:n])


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return numpy_generator(seed, "order", epoch).permutation(n)


def load_task(task: SudokuTask, eval_n: int) -> TaskData:
    """The data of a task, with at least `eval_n` puzzles for validation and for test.

    Read once a process, for all its trials, unless a file's content changes. Raises DataError for unreadable or wrong
    files, splits that share a solution grid, and too few puzzles.
    """
    return _load(task.model_dump_json(), json.dumps(task.identity()), eval_n)


@lru_cache(maxsize=4)
def _load(task_json: str, identity: str, eval_n: int) -> TaskData:
    task = SudokuTask.model_validate_json(task_json)
    splits = _generated(task, task.generate, eval_n) if task.generate is not None else _from_files(task)
    for name in ("validation", "test"):
        if len(splits[name]) < eval_n:
            where = task.files.get(name, task.test)
            raise DataError(
                f"eval.n: {eval_n} is more than the {len(splits[name])} {name} puzzles of {where}; ask for fewer"
            )
    return TaskData(task, splits)


def _generated(task: SudokuTask, config: GenerateConfig, eval_n: int) -> dict[Split, Puzzles]:
    def some(split: Split, n: int) -> Puzzles:
        puzzles: list[Puzzle] = [generate(task.box, config.blanks, split, config.seed, index) for index in range(n)]
        return Puzzles(*(np.stack(grids) for grids in zip(*puzzles, strict=True)))

    return {
        "train": some("train", config.puzzles),
        "validation": some("validation", eval_n),
        "test": some("test", eval_n),
    }


def _from_files(task: SudokuTask) -> dict[Split, Puzzles]:
    read = {name: Puzzles(*read_sudoku_csv(path, task.box)) for name, path in task.files.items()}
    _refuse_common_grids(task, read)
    if "validation" not in read:
        to_validation = np.array([grid_digest(answer) % 2 == 0 for answer in read["test"].answers])
        test = read["test"]
        read["validation"] = Puzzles(*(array[to_validation] for array in test))
        read["test"] = Puzzles(*(array[~to_validation] for array in test))
    for name in ("validation", "test"):  # files are sorted by source: the first n of them would be no fair sample
        order = np.argsort([grid_digest(question) for question in read[name].questions])
        read[name] = Puzzles(*(array[order] for array in read[name]))
    return {"train": read["train"], "validation": read["validation"], "test": read["test"]}


def _refuse_common_grids(task: SudokuTask, read: dict[str, Puzzles]) -> None:
    names = list(read)
    for i, first in enumerate(names):
        rows = {answer.tobytes(): row for row, answer in enumerate(read[first].answers, start=1)}
        for second in names[i + 1 :]:
            common = [
                (rows[answer.tobytes()], row)
                for row, answer in enumerate(read[second].answers, start=1)
                if answer.tobytes() in rows
            ]
            if common:
                raise DataError(
                    f"{task.files[first]} and {task.files[second]} share {len(common)} solution grids "
                    f"(the first: row {common[0][0]} and row {common[0][1]}); remove them from one of the two"
                )

"""A task's puzzles as the trainer sees them: tokens, splits that share nothing, stateless order and augmentation."""

import hashlib
import json
from functools import lru_cache

import numpy as np
import torch
from pydantic import TypeAdapter

from rrm.models.act import Batch
from rrm.puzzles.formats import DataError
from rrm.puzzles.order import published_rows, stateless_rows
from rrm.puzzles.puzzle import Puzzles, Split, key_digest, split_of, ungrouped
from rrm.puzzles.tasks import BaseTask, TaskConfig

_TASK: TypeAdapter[BaseTask] = TypeAdapter(TaskConfig)


def as_batch(questions: np.ndarray, answers: np.ndarray) -> Batch:
    """Tokens (cell + 1) of grids [B, side, side]; every cell is labelled, givens too."""
    inputs, labels = (torch.from_numpy(x.reshape(len(x), -1).astype(np.int64) + 1) for x in (questions, answers))
    return Batch(inputs, labels, torch.zeros(len(inputs), dtype=torch.int64))


class TaskData:
    """The puzzles of a task and the training order over them. Immutable: it may be shared by trials."""

    def __init__(self, task: BaseTask, splits: dict[Split, Puzzles]):
        self.task = task
        self.splits = splits
        self.num_puzzles = 1
        self._held_out = {key for name in ("validation", "test") for key in task.keys(splits[name])}
        arrays = (array.tobytes() for name in ("train", "validation", "test") for array in splits[name][:2])
        self.digest = hashlib.sha256(b"".join(arrays)).hexdigest()

    def _is_held_out(self, key: bytes) -> bool:
        # Generated splits own all keys of their hash, also those of puzzles that were not made.
        return key in self._held_out if self.task.generate is None else split_of(key) != "train"

    def train_batch(self, seed: int, step: int, batch_size: int, rows: range | None = None) -> Batch:
        """The batch of a training step, or only some rows of it, as one of several data-parallel workers takes them.

        See rrm.puzzles.order for which puzzles. An augmentation that would reach a held-out one is drawn again.
        """
        rows = range(batch_size) if rows is None else rows
        train, order = self.splits["train"], self.task.published_order
        if order is None:
            index = stateless_rows(train.groups, seed, step, batch_size, rows)
        else:
            index = published_rows(train.groups, seed, step, batch_size, order.epochs_per_iter)[rows.start : rows.stop]
        puzzles = train.take(index)
        if self.task.augment:
            return as_batch(*self.task.augmented(puzzles, seed, step, rows, self._is_held_out))
        return as_batch(puzzles.questions, puzzles.answers)

    def eval_batch(self, split: Split, n: int) -> Batch:
        """The first n puzzles of a split, in an order fixed by the puzzles themselves."""
        puzzles = self.splits[split]
        return as_batch(puzzles.questions[:n], puzzles.answers[:n])


def load_task(task: BaseTask, eval_n: int, batch_size: int = 1) -> TaskData:
    """The data of a task, with at least `eval_n` puzzles for validation and for test.

    Read once a process, for all its trials, unless a file's content changes. Raises DataError for unreadable or wrong
    files, splits that share a puzzle, too few puzzles, and a published order whose passes fill no batch.
    """
    data = _load(task.model_dump_json(), json.dumps(task.identity()), eval_n)
    if task.published_order is not None:
        epochs, groups = task.published_order.epochs_per_iter, len(data.splits["train"].groups) - 1
        if epochs * groups < batch_size:
            raise DataError(
                f"task.published_order.epochs_per_iter: {epochs} epochs of {groups} groups fill no batch of "
                f"{batch_size}; give {-(-batch_size // groups)} or more"
            )
    return data


@lru_cache(maxsize=4)
def _load(task_json: str, identity: str, eval_n: int) -> TaskData:
    task = _TASK.validate_json(task_json)
    splits = _from_files(task) if task.generate is None else _generated(task, task.generate.puzzles, eval_n)
    for name in ("validation", "test"):
        if len(splits[name]) < eval_n:
            where = task.files.get(name, task.files["test"])
            raise DataError(
                f"eval.n: {eval_n} is more than the {len(splits[name])} {name} puzzles of {where}; ask for fewer"
            )
    return TaskData(task, splits)


def _generated(task: BaseTask, puzzles: int, eval_n: int) -> dict[Split, Puzzles]:
    return {
        "train": make_puzzles(task, "train", puzzles),
        "validation": make_puzzles(task, "validation", eval_n),
        "test": make_puzzles(task, "test", eval_n),
    }


def make_puzzles(task: BaseTask, split: Split, n: int) -> Puzzles:
    """The first n generated puzzles of a split. Raises DataError if one cannot be found."""
    made = []
    for index in range(n):
        puzzle = task.make(split, index)
        if puzzle is None:
            raise DataError(f"task.generate: no {split} puzzle {index} in millions of tries; ask for easier ones")
        made.append(puzzle)
    return ungrouped(*(np.stack(grids) for grids in zip(*made, strict=True)))


def _from_files(task: BaseTask) -> dict[Split, Puzzles]:
    read = {name: task.read(path) for name, path in task.files.items()}
    for first, second, common in shared_keys({name: task.keys(puzzles) for name, puzzles in read.items()}):
        raise DataError(
            f"{task.files[first]} and {task.files[second]} share {len(common)} {task.key_name} "
            f"(the first: row {common[0][0] + 1} and row {common[0][1] + 1}); remove them from one of the two"
        )
    if "validation" not in read:
        test = read["test"]
        to_validation = np.array([key_digest(key) % 2 == 0 for key in task.keys(test)])
        read["validation"], read["test"] = test.take(to_validation), test.take(~to_validation)
    for name in ("validation", "test"):  # files are sorted by source: the first n of them would be no fair sample
        order = np.argsort([key_digest(question.tobytes()) for question in read[name].questions])
        read[name] = read[name].take(order)
    return {"train": read["train"], "validation": read["validation"], "test": read["test"]}


def shared_keys(keys: dict[str, list[bytes]]) -> list[tuple[str, str, list[tuple[int, int]]]]:
    """For each two data sets that share keys: their names, and the places of the first and of the second, from 0."""
    found = []
    names = list(keys)
    for i, first in enumerate(names):
        places = {key: place for place, key in reversed(list(enumerate(keys[first])))}
        for second in names[i + 1 :]:
            common = [(places[key], place) for place, key in enumerate(keys[second]) if key in places]
            if common:
                found.append((first, second, common))
    return found

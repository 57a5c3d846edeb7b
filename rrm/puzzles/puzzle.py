"""Puzzles of any kind as grids, and the split that each belongs to."""

import hashlib
from typing import Literal, NamedTuple

import numpy as np

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
# What a split's file or folder may be called.
CALLED: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
SPLIT_SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


class Puzzle(NamedTuple):
    """A question and its answer, int8 [side, side] each; a cell's token is its value + 1, 0 is padding."""

    question: np.ndarray
    answer: np.ndarray


class Puzzles(NamedTuple):
    """Questions and answers int8 [n, side, side], and the groups they come in.

    Group g is puzzles groups[g] to groups[g + 1] (int64 [g + 1]): an original and its augmentations. An epoch takes one
    of each group.
    """

    questions: np.ndarray
    answers: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.questions)

    def take(self, index: np.ndarray) -> "Puzzles":
        """The puzzles that an index or a mask selects, each a group of its own."""
        return ungrouped(self.questions[index], self.answers[index])


def ungrouped(questions: np.ndarray, answers: np.ndarray) -> Puzzles:
    """Puzzles that are each a group of their own."""
    return Puzzles(questions, answers, np.arange(len(questions) + 1))


def key_digest(key: bytes) -> int:
    """A 64-bit digest, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def split_of(key: bytes) -> Split:
    """The one split that a generated puzzle with this key belongs to, so that no two splits share a key."""
    place = key_digest(key) / 2**64
    if place < SPLIT_SHARES["train"]:
        return "train"
    return "validation" if place < SPLIT_SHARES["train"] + SPLIT_SHARES["validation"] else "test"

"""Reading puzzle files: the CSV of Sudoku-Extreme (source,question,answer,rating)."""

import csv
import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from rrm.puzzles.sudoku import are_solutions

DIGITS = "123456789ABCDEFGHIJKLMNOP"
BLANKS = ".0"


class DataError(ValueError):
    """A puzzle file that cannot be read or used; the text names the file, the row and the mend."""


def file_digest(path: str) -> str:
    """sha256 of a file's content; raises DataError if it cannot be read."""
    try:
        stat = Path(path).stat()
        return _digest_of_version(path, stat.st_size, stat.st_mtime_ns)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: {reason}; give the path of a puzzle file that exists") from error


@lru_cache
def _digest_of_version(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_sudoku_csv(path: str, box: int) -> tuple[np.ndarray, np.ndarray]:
    """Questions and answers int8 [rows, side, side] of a CSV with the columns question and answer.

    One character a cell, row-major, `.` or `0` for a blank. Raises DataError that names the file and the first bad row
    (the line after the header is row 1), if a row has another length or character, if an answer is no solution or does
    not continue its question.
    """
    side = box * box
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"question", "answer"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path}: no column {', '.join(sorted(missing))} in the header {reader.fieldnames}; "
                    "the first line must be source,question,answer,rating"
                )
            texts = [(row["question"] or "", row["answer"] or "") for row in reader]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give the path of a puzzle file that exists") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV text file ({error})") from error
    if not texts:
        raise DataError(f"{path}: no puzzles; the file has a header and no rows")
    questions = _grids(path, [question for question, _ in texts], DIGITS[:side] + BLANKS, side)
    answers = _grids(path, [answer for _, answer in texts], DIGITS[:side], side)
    _refuse(path, texts, ~are_solutions(answers, box), "the answer is not a solved Sudoku")
    differs = ((questions != 0) & (questions != answers)).any(axis=(1, 2))
    _refuse(path, texts, differs, "the answer does not continue the question")
    return questions, answers


def _grids(path: str, texts: list[str], allowed: str, side: int) -> np.ndarray:
    for row, text in enumerate(texts, start=1):
        if len(text) != side * side:
            raise DataError(f"{path}: row {row}: {len(text)} characters, not {side * side}, in {text!r}")
    # A character that is no single byte becomes one that no puzzle allows.
    characters = np.frombuffer("".join(texts).encode("latin-1", errors="replace"), dtype=np.uint8)
    digit_of = np.full(256, -1, dtype=np.int8)
    for character in allowed:
        digit_of[ord(character)] = 0 if character in BLANKS else DIGITS.index(character) + 1
    digits = digit_of[characters]
    bad = np.flatnonzero(digits < 0)
    if len(bad):
        row = int(bad[0]) // (side * side)
        character = texts[row][int(bad[0]) % (side * side)]
        raise DataError(f"{path}: row {row + 1}: character {character!r} in {texts[row]!r}")
    return digits.reshape(-1, side, side)


def _refuse(path: str, texts: list[tuple[str, str]], wrong: np.ndarray, why: str) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        count = f"; {len(rows)} rows in all" if len(rows) > 1 else ""
        raise DataError(f"{path}: row {rows[0] + 1}: {why}: {','.join(texts[rows[0]])}{count}")

"""Reading puzzle files: the CSV of Sudoku-Extreme (source,question,answer,rating)."""

import csv
import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from rrm.puzzles.sudoku import is_solution

DIGITS = "123456789ABCDEFGHIJKLMNOP"
BLANKS = ".0"


class DataError(ValueError):
    """A puzzle file that cannot be read or used; the text names the file, the row and the mend."""


def file_digest(path: str) -> str:
    """sha256 of a file's content; raises DataError if it cannot be read."""
    try:
        stat = Path(path).stat()
        return _digest_of_version(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give the path of a puzzle file that exists") from error


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
        with open(path, newline="", encoding="ascii") as file:
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
    values = {digit: number for number, digit in enumerate(DIGITS[:side], start=1)}
    blanks = dict.fromkeys(BLANKS, 0)
    grids = np.zeros((2, len(texts), side, side), dtype=np.int8)
    for row, text in enumerate(texts):
        for which, allowed in enumerate((values | blanks, values)):
            try:
                grids[which, row].flat = [allowed[character] for character in text[which]]
            except KeyError as error:
                raise DataError(f"{path}: row {row + 1}: character {error} in {text[which]!r}") from error
            except ValueError as error:
                raise DataError(
                    f"{path}: row {row + 1}: {len(text[which])} characters, not {side * side} for box {box}"
                ) from error
    questions, answers = grids
    for row, (question, answer) in enumerate(zip(questions, answers, strict=True), start=1):
        if not is_solution(answer, box):
            raise DataError(f"{path}: row {row}: the answer {texts[row - 1][1]!r} is not a solved Sudoku")
        if np.any((question != 0) & (question != answer)):
            raise DataError(f"{path}: row {row}: the answer does not continue the question {texts[row - 1][0]!r}")
    return questions, answers

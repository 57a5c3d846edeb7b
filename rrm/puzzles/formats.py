"""Puzzle files: CSV (source,question,answer,rating), one character a cell, and the published processed arrays."""

import csv
import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rrm.puzzles.puzzle import Puzzles, ungrouped

HEADER = ("source", "question", "answer", "rating")
ARRAYS = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")
METADATA = "dataset.json"
IDENTIFIERS = "identifiers.json"
PAD = 0


class DataError(ValueError):
    """A file that cannot be read or used; the text names the file, the row or key, and the mend."""


def array_path(folder: Path, name: str) -> Path:
    """Where a split's array stands in the published layout."""
    return folder / f"all__{name}.npy"


def files_of(path: str) -> list[Path]:
    """The files that a split is read from: a CSV, or the arrays and metadata of a processed folder."""
    folder = Path(path)
    return [folder / METADATA, *(array_path(folder, name) for name in ARRAYS)] if folder.is_dir() else [folder]


def data_digest(path: str) -> str:
    """sha256 of the content of a split's files; raises DataError if one cannot be read."""
    digests = [file_digest(str(file)) for file in files_of(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def file_digest(path: str) -> str:
    """sha256 of a file's content; raises DataError if it cannot be read."""
    try:
        stat = Path(path).stat()
        return _digest_of_version(path, stat.st_size, stat.st_mtime_ns)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: {reason}; give the path of a file that exists") from error


@lru_cache
def _digest_of_version(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_rows(path: str) -> list[dict[str, str]]:
    """The rows of a CSV; spaces at the ends of a field are cells. Raises DataError that names the file."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"question", "answer"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path}: no column {', '.join(sorted(missing))} in the header {reader.fieldnames}; "
                    f"the first line must be {','.join(HEADER)}"
                )
            rows = [{key: value or "" for key, value in row.items() if key in HEADER} for row in reader]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give the path of a file that exists") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV text file ({error})") from error
    if not rows:
        raise DataError(f"{path}: no puzzles; the file has a header and no rows")
    return rows


def read_csv(path: str, side: int, symbols: str, aliases: dict[str, str]) -> Puzzles:
    """The puzzles of a CSV, row-major: a cell's value is its character's place in `symbols`.

    `aliases` are other ways of writing a symbol. Raises DataError that names the file and the first bad row (the line
    after the header is row 1), if a row has another length or character.
    """
    rows = read_rows(path)
    value_of = {symbol: value for value, symbol in enumerate(symbols)}
    value_of |= {alias: value_of[symbol] for alias, symbol in aliases.items()}
    return ungrouped(*(_grids(path, [row[field] for row in rows], side, value_of) for field in ("question", "answer")))


def _grids(path: str, texts: list[str], side: int, value_of: dict[str, int]) -> np.ndarray:
    for row, text in enumerate(texts, start=1):
        if len(text) != side * side:
            raise DataError(f"{path}: row {row}: {len(text)} characters, not {side * side}, in {text!r}")
    # A character that is no single byte becomes one that no puzzle allows.
    characters = np.frombuffer("".join(texts).encode("latin-1", errors="replace"), dtype=np.uint8)
    table = np.full(256, -1, dtype=np.int8)
    for character, value in value_of.items():
        table[ord(character)] = value
    values = table[characters]
    bad = np.flatnonzero(values < 0)
    if len(bad):
        row, place = divmod(int(bad[0]), side * side)
        raise DataError(f"{path}: row {row + 1}: character {texts[row][place]!r} in {texts[row]!r}")
    return values.reshape(-1, side, side)


def write_csv(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Write rows of source, question, answer and rating, as the published files are written (CRLF line ends)."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows([row.get(column, "") for column in HEADER] for row in rows)


def write_processed(
    folder: Path, inputs: np.ndarray, labels: np.ndarray, group_indices: np.ndarray, vocab: int
) -> None:
    """Write one split in the published layout: tokens [n, S], in the dtype they have; one example a puzzle.

    As the published scripts have it, padding and the ignored label are both 0, and total_puzzles counts groups.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n, groups = len(inputs), len(group_indices) - 1
    arrays = {
        "inputs": inputs,
        "labels": labels,
        "puzzle_identifiers": np.zeros(n, dtype=np.int32),
        "puzzle_indices": np.arange(n + 1, dtype=np.int32),
        "group_indices": group_indices.astype(np.int32),
    }
    for name, array in arrays.items():
        np.save(array_path(folder, name), array)
    metadata = {
        "pad_id": PAD,
        "ignore_label_id": 0,
        "blank_identifier_id": 0,
        "vocab_size": vocab,
        "seq_len": inputs.shape[1],
        "num_puzzle_identifiers": 1,
        "total_groups": groups,
        "mean_puzzle_examples": 1.0,
        "total_puzzles": groups,
        "sets": ["all"],
    }
    (folder / METADATA).write_text(json.dumps(metadata))


def write_identifiers(folder: Path) -> None:
    """Write identifiers.json, which stands beside the splits of the published layout."""
    (folder / IDENTIFIERS).write_text(json.dumps(["<blank>"]))


def read_metadata(folder: Path) -> dict[str, Any]:
    """dataset.json of a processed split. Raises DataError that names file and key."""
    path = folder / METADATA
    try:
        metadata = json.loads(path.read_text())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give the folder of a processed split") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    for key in ("vocab_size", "seq_len"):
        value = metadata.get(key) if isinstance(metadata, dict) else None
        if not isinstance(value, int):
            raise DataError(f"{path}: {key} is {value!r}, not a whole number")
    return metadata


def read_processed(path: str, side: int, vocab: int) -> Puzzles:
    """The puzzles of one split of the published layout, groups and all.

    Raises DataError that names the file and what is wrong: a truncated array, another vocabulary or length, a token
    that no cell has (padding is none), indices that do not fit.
    """
    folder = Path(path)
    metadata = read_metadata(folder)
    for key, wanted in (("vocab_size", vocab), ("seq_len", side * side)):
        if metadata[key] != wanted:
            raise DataError(f"{folder / METADATA}: {key} is {metadata[key]}, not the {wanted} of this task")
    arrays = {name: _array(folder, name) for name in ARRAYS}
    n = len(arrays["inputs"])
    for name in ("inputs", "labels"):
        tokens, file = arrays[name], array_path(folder, name)
        if tokens.shape != (n, side * side):
            raise DataError(f"{file}: shape {tokens.shape}, not {(n, side * side)}")
        bad = np.argwhere((tokens < 1) | (tokens >= vocab))
        if len(bad):
            row, cell = bad[0]
            raise DataError(f"{file}: row {row}: token {tokens[row, cell]} at cell {cell}; cells are 1 to {vocab - 1}")
    if not np.array_equal(arrays["puzzle_indices"], np.arange(n + 1)):
        raise DataError(f"{array_path(folder, 'puzzle_indices')}: not one example a puzzle for {n} examples")
    groups, file = arrays["group_indices"], array_path(folder, "group_indices")
    if groups.ndim != 1 or len(groups) < 2 or groups[0] != 0 or groups[-1] != n or (np.diff(groups) < 1).any():
        raise DataError(f"{file}: not rising from 0 to the {n} puzzles")
    if arrays["puzzle_identifiers"].shape != (n,) or arrays["puzzle_identifiers"].any():
        raise DataError(
            f"{array_path(folder, 'puzzle_identifiers')}: not {n} zeros; these puzzles share one identifier"
        )
    questions, answers = (
        (arrays[name].astype(np.int16) - 1).astype(np.int8).reshape(n, side, side) for name in ("inputs", "labels")
    )
    return Puzzles(questions, answers, groups.astype(np.int64))


def _array(folder: Path, name: str) -> np.ndarray:
    path = array_path(folder, name)
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give the folder of a processed split") from error
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: not a whole npy array ({error})") from error
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{path}: {array.dtype}, not whole numbers")
    return array

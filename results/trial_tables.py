"""A trial's tables, each whole: the parts that are sealed (tune.growing), then the rest, which names them."""

import re
from collections.abc import Iterable

import pyarrow as pa

from results.schema import DIAGNOSIS_SCHEMAS, EVALS_SCHEMA
from results.storage import Location
from results.trial_files import DamagedFileError, read_table

SCHEMAS = {"evals": EVALS_SCHEMA} | DIAGNOSIS_SCHEMAS
GROWING = ("evals", "diagnostics", "windows")  # with every evaluation
_PARTS = "parts"  # in a table's metadata
_PART = re.compile(rf"({'|'.join(GROWING)})-(\d+)\.parquet")


def part_file(name: str, number: int) -> str:
    """The file with a part of the table `name`, of those that are sealed the one with this number."""
    return f"{name}-{number}.parquet"


def part_numbers(files: Iterable[str]) -> dict[str, int]:
    """Of the files of a trial's folder those that are parts of a table, by number."""
    found = {file: int(match[2]) for file in files if (match := _PART.fullmatch(file))}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def parts_of(name: str, files: Iterable[str]) -> list[str]:
    """Of these files those that are parts of the table `name`, in the order of their rows."""
    return [part for part in part_numbers(files) if part.startswith(f"{name}-")]


def naming(parts: Iterable[str]) -> dict[str, str] | None:
    """The metadata of a table whose first rows stand in these parts: a lost one is no table that begins later."""
    return {_PARTS: " ".join(parts)} if parts else None


def trial_table(folder: Location, name: str) -> pa.Table:
    """A table in a trial's folder, empty if the trial has none.

    Raises DamagedFileError if it cannot be used, or a part that it names; OSError.
    """
    path = folder / f"{name}.parquet"
    rest = read_table(path, SCHEMAS[name])
    named = (rest.schema.metadata or {}).get(_PARTS.encode(), b"").decode(errors="replace").split()
    if odd := [part for part in named if part not in parts_of(name, [part])]:
        raise DamagedFileError(f"{path}: names {odd[0]!r} as a part of it; move it away")
    return pa.concat_tables([*(_sealed(folder / part, name) for part in named), rest])


def _sealed(path: Location, name: str) -> pa.Table:
    table = read_table(path, SCHEMAS[name], name)
    if not len(table):
        raise DamagedFileError(f"{path}: lost, and {name}.parquet begins after it; put it back, or remove the folder")
    return table

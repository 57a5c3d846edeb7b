"""A trial's tables, each whole: the parts that are sealed (tune.growing), then the rest."""

import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute

from results.schema import DIAGNOSIS_SCHEMAS, EVALS_SCHEMA
from results.storage import Location, sizes
from results.trial_files import read_table

pc: Any = pyarrow.compute  # makes its functions as it is imported: types are not known
SCHEMAS = {"evals": EVALS_SCHEMA} | DIAGNOSIS_SCHEMAS
GROWING = ("evals", "diagnostics", "windows")  # with every evaluation
_PART = re.compile(rf"({'|'.join(GROWING)})-(\d+)\.parquet")


def part_file(name: str, number: int) -> str:
    """The file with a part of the table `name`, of those that are sealed the one with this number."""
    return f"{name}-{number}.parquet"


def part_numbers(files: Iterable[str]) -> dict[str, int]:
    """Of the files of a trial's folder those that are parts of a table, by number."""
    found = {file: int(match[2]) for file in files if (match := _PART.fullmatch(file))}
    return dict(sorted(found.items(), key=lambda item: item[1]))


class TrialTables:
    """The tables in a trial's folder. Raises DamagedFileError if one cannot be used; OSError."""

    def __init__(self, folder: Location):
        self.folder = folder
        self._evals = self._rest("evals")
        first = _first_step(self._evals)
        # Each trial is evaluated at step 0: a table that begins later has parts, and those were written before it.
        self._parts = list(part_numbers(sizes(folder))) if first else []

    def read(self, name: str) -> pa.Table:
        """A table, empty if the trial has none."""
        rest = self._evals if name == "evals" else self._rest(name)
        parts = [part for part in self._parts if part.startswith(f"{name}-")]
        if not parts:
            return rest
        sealed = pa.concat_tables(read_table(self.folder / part, SCHEMAS[name]) for part in parts)
        firsts = [first for table in (self._evals, rest) if (first := _first_step(table)) is not None]
        # A process that was killed may have left rows in both, and parts that its trial has not come to again.
        return pa.concat_tables([sealed.filter(pc.field("step") < min(firsts)), rest])

    def _rest(self, name: str) -> pa.Table:
        return read_table(self.folder / f"{name}.parquet", SCHEMAS[name])


def _first_step(table: pa.Table) -> int | None:
    return pc.min(table["step"]).as_py()

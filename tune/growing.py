"""A trial's tables, written with its saves: rows of old evaluations once, in parts; the rest anew each time.

Else each save would write all evaluations again, in the state and in the table.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from results.schema import UNROLLS, UNROLLS_SCHEMA
from results.storage import sizes
from results.trial_files import DamagedFileError, lost_files, read_table, table_bytes
from results.trial_tables import GROWING, SCHEMAS, naming, part_file, part_numbers, parts_of
from rrm.train import Trainer
from tune.held_folder import HeldFolder
from tune.puzzle_table import difficulty

PART = 64  # evaluations
SEALED = "sealed"  # in a trial's state, beside what the trainer has there

Rows = list[dict[str, Any]]


class GrowingTables:
    """The tables in a trial's folder, of which `sealed` parts stand, each with the rows of PART evaluations.

    `sealed` is the size of each by its file's name. A part is written before the state that no longer holds its rows
    and names it (SEALED). After a kill in between the rows stand in the state, and the part is written again, to the
    same bytes.
    """

    def __init__(self, held: HeldFolder, trial_id: str):
        self._held, self._trial_id = held, trial_id
        self._difficulty: Rows | None = None
        self.sealed: dict[str, int] = {}

    def take_up(self, state: dict[str, Any]) -> Rows:
        """Go on from a state. Returns the evaluations that are sealed. DamagedFileError: a part is lost, or cut."""
        self.sealed = dict(state.get(SEALED, {}))  # an earlier version sealed none
        if lost := lost_files(self._held.path, self.sealed):
            mend = "put it back, or remove the folder to train anew"
            raise DamagedFileError(f"{self._held.path / lost[0]}: lost, or cut, and no state holds its rows; {mend}")
        parts = parts_of("evals", self.sealed)
        return [row for part in parts for row in read_table(self._held.path / part, SCHEMAS["evals"]).to_pylist()]

    def remove_unnamed(self) -> None:
        """Remove the parts that the state does not name: it holds their rows. Once `write` has written those."""
        for part in part_numbers(sizes(self._held.path)):
            if part not in self.sealed:
                self._held.unlink(part)

    def seal(self, trainer: Trainer) -> None:
        """Write the parts that are complete, and take their rows from the trainer. The last evaluation stays."""
        while len(steps := list(dict.fromkeys(row["step"] for row in trainer.history))) > PART:
            before = steps[PART]
            rows = {"evals": [row for row in trainer.history if row["step"] < before]}
            rows |= self._with_difficulty(trainer, trainer.diagnoses.take(before))
            number = len(parts_of("evals", self.sealed))
            for name in GROWING:
                if rows[name]:
                    part = part_file(name, number)
                    self.sealed[part] = self._write(part, SCHEMAS[name], rows[name])
            del trainer.history[: len(rows["evals"])]

    def write(self, trainer: Trainer) -> None:
        """Write what is not sealed."""
        self._write("evals.parquet", SCHEMAS["evals"], trainer.history, parts_of("evals", self.sealed))
        if trainer.config.diagnose is not None:
            for name, rows in self._with_difficulty(trainer, trainer.diagnoses.tables()).items():
                parts = parts_of(name, self.sealed)
                if rows or parts or name == "diagnostics":
                    self._write(f"{name}.parquet", SCHEMAS[name], rows, parts)
        self._write(UNROLLS, UNROLLS_SCHEMA, trainer.unrolls)

    def _with_difficulty(self, trainer: Trainer, tables: dict[str, Rows]) -> dict[str, Rows]:
        """The tables of a diagnosis, with how hard each puzzle is."""
        if tables["diagnostics"] and self._difficulty is None:
            self._difficulty = difficulty(trainer.config.task, trainer.eval_batches["test"])
        hard = self._difficulty or []
        return tables | {"diagnostics": [hard[row["example"]] | row for row in tables["diagnostics"]]}

    def _write(self, file: str, schema: pa.Schema, rows: Rows, parts: Sequence[str] = ()) -> int:
        """Write a table, or the rest of one of which `parts` are sealed. Returns its size."""
        table = pa.Table.from_pylist([{"trial_id": self._trial_id} | row for row in rows], schema=schema)
        # Of so few rows a dictionary would make it no smaller, and read slower.
        content = table_bytes(table.replace_schema_metadata(naming(parts)), use_dictionary=False)
        self._held.write(file, content)
        return len(content)

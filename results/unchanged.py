"""What of the last gathering still holds: a trial's rows stay as they are for as long as its files do."""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from results.locks import is_held
from results.schema import DIAGNOSIS_SCHEMAS, DONE, FAILED, LOCK, TRIAL, VERSION, file_schema, table_file
from results.storage import Location, S3Path, read_bytes
from results.trial_files import ClosedFileError, closed_alone
from results.trial_tables import part_numbers

pc: Any = pyarrow.compute  # makes its functions as it is imported: types are not known
OF_TRIALS = ("evals", *DIAGNOSIS_SCHEMAS)  # the tables whose rows are read from the trials' folders
_READ = (TRIAL, DONE, FAILED, *(f"{name}.parquet" for name in OF_TRIALS))


def source_of(folder: Location, places: list[dict[str, Any]]) -> str:
    """Digest of all that a trial's rows depend on: the places it stands for, and its files as they are listed."""
    digest = json.dumps([places, _listed(folder)], sort_keys=True)
    return hashlib.sha256(digest.encode()).hexdigest()[:16]


def _listed(folder: Location) -> dict[str, Any]:
    """The files that a trial's rows come from, by what changes when they do, and whether a process holds the trial."""
    if isinstance(folder, S3Path):
        ages = folder.ages()
        # A bucket's times are whole seconds: of a trial that goes on, two files may have the same.
        read = {name: ages[name] for name in sorted(ages) if name in _READ or name in part_numbers(ages)}
        return read | {"states": _states(ages)} | ({} if DONE in ages else {"now": time.time_ns()})
    files: dict[str, Any] = {}
    try:
        with closed_alone(folder), suppress(FileNotFoundError):
            for entry in os.scandir(folder):
                if entry.name in _READ or part_numbers([entry.name]):
                    stat = entry.stat()
                    files[entry.name] = (stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_mode)
                elif _states([entry.name]):
                    files[entry.name] = "is there"
                elif entry.name == LOCK:
                    files[entry.name] = is_held(folder / LOCK)
    except ClosedFileError:  # who reads the trial says so
        files["now"] = time.time_ns()
    return files


def _states(names: Iterable[str]) -> list[str]:
    """Of a trial's files those that are not read, and that count as there or lost."""
    return sorted(name for name in names if name.endswith(".pt"))


def gathered_before(sweep_folder: Location, sources: dict[str, str]) -> dict[str, pa.Table]:
    """The rows of the last gathering whose trials have the same source; none if the tables are of another version."""
    schemas = {name: file_schema(name) for name in ("trials", *OF_TRIALS)}
    files = {name: table_file(sweep_folder.parent, name, sweep_folder.name) for name in schemas}
    try:
        found = {name: pq.read_table(pa.BufferReader(read_bytes(path))) for name, path in files.items()}
    except (pa.ArrowException, OSError):
        found = {}
    if any(name not in found or not _is_current(found[name], schema) for name, schema in schemas.items()):
        return {name: schema.empty_table() for name, schema in schemas.items()}
    # Of two gatherings at once, or one that was killed, each may have left some of the files.
    if len({(table.schema.metadata or {}).get(b"gathering") for table in found.values()}) > 1:
        return {name: schema.empty_table() for name, schema in schemas.items()}
    stored = found["trials"].select(["trial_id", "source"]).to_pylist()
    unchanged = [row["trial_id"] for row in stored if sources.get(row["trial_id"]) == row["source"]]
    return {
        name: table.filter(pc.field("trial_id").isin(pa.array(unchanged, pa.string()))) for name, table in found.items()
    }


def _is_current(table: pa.Table, schema: pa.Schema) -> bool:
    return table.schema == schema and VERSION.items() <= (table.schema.metadata or {}).items()

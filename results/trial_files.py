"""A trial's folder: how it stands, its JSON files and its tables, each checked when read."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from results.columns import completed
from results.locks import is_held
from results.records import Status, problem_of, table_problem
from results.schema import DONE, EVALS, FAILED, LATEST_STATE, LOCK, PREVIOUS_STATE, STOPPED, TRIAL
from results.storage import Location, read_bytes, sizes

_NOT_OURS, _NOT_A_FILE = (errno.EACCES, errno.EPERM), (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_AWAY = "move it away"


class DamagedFileError(ValueError):
    """A file of a sweep's folder that cannot be read; the text names it and the mend."""


class ClosedFileError(DamagedFileError):
    """One that is closed to this user, or is no file: it cannot be written either."""


@contextmanager
def closed_alone(path: Location, mend: str = _AWAY) -> Iterator[None]:
    """Within, a path that is closed to this user, or of another kind, is no fault of its storage.

    Raises ClosedFileError for it; names `path` where the system names none.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (*_NOT_OURS, *_NOT_A_FILE):
            raise
        allow = "let this user read it, or " if error.errno in _NOT_OURS else ""
        raise ClosedFileError(f"{error.filename or path}: {error.strerror}; {allow}{mend}") from error


@dataclass(frozen=True)
class TrialEnd:
    """How a trial stands: its status, and why it failed or was stopped, or how far it got, where that is known."""

    status: Status
    reason: str | None = None
    done: dict[str, Any] | None = None
    deterministic: bool = False
    ended: str | None = None  # a time in UTC; None where an older version did not say


def trial_end(folder: Location, steps: int) -> TrialEnd:
    """How the trial in `folder` stands when `steps` are asked for; a folder that is not there is waiting.

    unreadable: a record is damaged, and the reason names it.
    running: a live process holds the trial's lock. Without one, a trial that has a saved state is unfinished; so is one
    that has lost a file since it was done, which the next run makes again.
    """
    try:
        with closed_alone(folder):
            read_json(folder / TRIAL)
            return _recorded_end(folder, steps)
    except DamagedFileError as error:
        return TrialEnd("unreadable", reason=str(error))


def _recorded_end(folder: Location, steps: int) -> TrialEnd:
    done = read_json(folder / DONE)
    if done and done["step"] >= steps and not lost_files(folder, {EVALS: 0} | done.get("files", {})):
        return TrialEnd("done", done=done, ended=done.get("ended"))
    if failed := read_json(folder / FAILED):
        diverged = failed["kind"] == "diverged"
        return TrialEnd("failed", reason=failed["reason"], deterministic=diverged, ended=failed.get("ended"))
    if stopped := read_json(folder / STOPPED):
        return TrialEnd("stopped", reason=stopped["reason"], ended=stopped.get("ended"))
    if is_held(folder / LOCK):
        return TrialEnd("running")
    started = any((folder / name).exists() for name in (LATEST_STATE, PREVIOUS_STATE))
    return TrialEnd("unfinished" if started else "waiting")


def lost_files(folder: Location, files: dict[str, int]) -> list[str]:
    """Of these files in a trial's folder, by name and size, those that are not there any more or are shorter now."""
    now = sizes(folder)
    return [name for name, size in files.items() if now.get(name, -1) < size]


def table_bytes(table: pa.Table, **options: Any) -> bytes:
    """A table as a parquet file holds it; options are pyarrow.parquet.write_table's."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def read_json(path: Location, mend: str = _AWAY) -> dict[str, Any] | None:
    """A JSON object from a file, as results.records says what one of its name holds; None if there is no such file.

    Raises DamagedFileError if it holds something else, with the field, its value and the mend; OSError.
    """
    try:
        with closed_alone(path, mend):
            text = read_bytes(path)
    except FileNotFoundError:
        return None
    try:
        content = json.loads(text)
        if b"\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()  # half a character, which no file and no terminal takes
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path}: cannot be read ({error}); {mend}") from error
    if problem := problem_of(path.name, content):
        raise DamagedFileError(f"{path}: {problem}; {mend}")
    return content


def read_table(path: Location, schema: pa.Schema, name: str = "") -> pa.Table:
    """A trial's table, empty if there is no such file. Raises DamagedFileError if it cannot be used; OSError.

    `name`: of the table, where the file is not called so.
    """
    name = name or path.stem
    try:
        # One open: given the path, pyarrow opens it twice, and a running trial may replace the file in between.
        with closed_alone(path):
            content = read_bytes(path)
    except FileNotFoundError:
        return schema.empty_table()
    try:
        # A few dozen rows: threads and a data set's machinery would cost three times the reading.
        table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        table = completed(table, schema).replace_schema_metadata(table.schema.metadata)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DamagedFileError(f"{path}: not a table of {name} ({reason}); move it away") from error
    if problem := table_problem(name, table):
        raise DamagedFileError(f"{path}: {problem}; move it away")
    return table

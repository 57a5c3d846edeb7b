"""Who runs a sweep now: its lock says whether anybody does, run.json and the lock's claim say who."""

import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psutil import Error as PsutilError
from psutil import Process, process_iter

from results import versioned
from results.locks import claim_of, died, is_free, is_held, started, this_process
from results.schema import RUN
from results.storage import Location, S3Path
from results.trial_files import DamagedFileError, read_json
from tune.plan import attempts_of

RUN_LOCK = ".run.lock"
_REWRITTEN = "the next run writes it anew"


@dataclass(frozen=True)
class Runner:
    """The process that holds a sweep's lock; None for what is not known of it.

    `problem` says what is wrong with the run.json of this run; `is_starting`: it has not written one yet.
    """

    pid: int | None = None
    host: str | None = None
    since: str | None = None
    is_starting: bool = False
    problem: str | None = None

    def __str__(self) -> str:
        who = "by a process that is not known" if self.pid is None else f"by process {self.pid} on {self.host}"
        since = f" since {self.since}" if self.since else ""
        problem = f" ({self.problem})" if self.problem else ""
        return f"being started {who}" if self.is_starting else f"being run {who}{since}{problem}"


def runner(folder: Location) -> Runner | None:
    """Who runs the sweep in `folder`, None if nobody does. Nothing is written or locked. Raises OSError.

    Whatever stands in run.json, that the sweep is run is the lock's to say. A run.json of another run than the one that
    holds it was left by an earlier one.
    """
    claim: dict[str, Any] = {}
    if isinstance(folder, S3Path):
        found = versioned.read(folder / RUN_LOCK)
        if found is None or is_free(found):
            return None
        claim = claim_of(found)
    elif not is_held(folder / RUN_LOCK):
        return None
    problem = said = None
    try:
        said = read_json(folder / RUN, _REWRITTEN)
    except DamagedFileError as error:
        problem = str(error)
    if isinstance(folder, Path):
        claim = _claim_here(folder / RUN_LOCK, said)
    if said is not None and _is_of(said, claim):
        return Runner(said["pid"], said["host"], said["since"])
    pid, host = claim.get("pid"), claim.get("host")
    known = {"pid": pid, "host": host} if type(pid) is int and isinstance(host, str) else {}
    return Runner(**known, is_starting=problem is None, problem=problem)


def _is_of(said: dict[str, Any], claim: dict[str, Any]) -> bool:
    """Whether run.json was written by the process whose claim holds the lock, as far as can be told."""
    if not claim:
        return not died(said)
    # A process has another number, and host, in a container, but began when it did.
    began = ("boot", "started") if "started" in claim and "started" in said else ("pid", "host")
    return all(said.get(name) == claim[name] for name in (("fence",) if "fence" in claim else began))


def _claim_here(lock: Path, said: dict[str, Any] | None) -> dict[str, Any]:
    """What tells the process of this user and machine that holds a lock from others; nothing if none is seen to."""
    here, named = this_process(), said["pid"] if said and said["host"] == platform.node() else None
    holders = [named] if named and process_that_holds(named, lock) else (one.pid for one in _holders(lock))
    pid = next(iter(holders), None)
    if pid is None:
        return {}
    claim = {"pid": pid, "host": here["host"]}
    with suppress(OSError):
        return claim | ({"boot": here["boot"], "started": started(str(pid))} if "boot" in here else {})
    return claim


def local_lock(folder: Location) -> Path:
    """The file that a run of the sweep in `folder` has locked on its machine, wherever the sweep is stored."""
    return folder / RUN_LOCK if isinstance(folder, Path) else attempts_of(folder) / RUN_LOCK


def process_that_holds(pid: int, lock: Path) -> Process | None:
    """The process with this number, if it is of this user and has the lock's file open to write; None if not.

    The number comes from the storage, where others may write: no other process may be signalled.
    """
    with suppress(PsutilError, ValueError, OverflowError):  # no process has such a number, or it is gone
        process = Process(pid)
        return process if _holds(process, lock) else None
    return None


def _holders(lock: Path) -> Iterator[Process]:
    for process in process_iter():
        with suppress(PsutilError):
            if process.pid != os.getpid() and _holds(process, lock):
                yield process


def _holds(process: Process, lock: Path) -> bool:
    files = process.open_files() if process.uids().real == os.getuid() else []
    with suppress(OSError):
        return any(file.mode != "r" and lock.samefile(file.path) for file in files)  # who only asks reads
    return False

"""A folder that this process holds: nobody else writes there meanwhile, and it no longer does once it has lost it."""

import json
import platform
import time
from contextlib import suppress
from typing import Any

from filelock import FileLock, Timeout

from results import versioned
from results.schema import FAILED, LOCK, TRIAL
from results.storage import Location, S3Path, copy, write_atomically
from results.trial_files import DamagedFileError, read_json
from tune.lease import Lease, fence_of, lock_at, still_held
from tune.provenance import utc_now

SHARED_SECONDS = 5.0  # a network file system may show a new file a little later
LOCK_SECONDS = 60.0  # a killed driver's workers outlive it by about a second; a frozen machine's by more


class BusyError(RuntimeError):
    """Another process holds the folder, or this one no longer does."""


class NotSharedError(RuntimeError):
    """The storage is not the one that the driver sees: what a trial saved here would be lost to the sweep."""


class HeldFolder:
    """A folder whose lock this process has taken. What changes it raises BusyError once it is held no longer.

    In a bucket a file is put over the version alone that stood when the folder was taken, or that this holder wrote:
    what a holder that stood still, or had to try for long, sends after another has taken the folder replaces nothing of
    his.
    """

    def __init__(self, path: Location, lock: FileLock | Lease):
        self.path, self._lock = path, lock
        self._versions = versioned.versions(path) if isinstance(path, S3Path) else {}

    @property
    def fence(self) -> dict[str, int]:
        """What tells this holder's files from an earlier one's (see tune.lease)."""
        return fence_of(self._lock)

    def is_held(self) -> bool:
        """Whether this process still holds it."""
        return still_held(self._lock)

    def check_held(self) -> None:
        """Raises BusyError unless this process still holds it."""
        if not self.is_held():
            raise BusyError(
                f"{self.path}: held no longer: this process stood still, or the storage was silent, for too long; "
                "another may have it now"
            )

    def remove_leftovers(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        for leftover in self.path.glob(".*.tmp"):
            leftover.unlink()

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        self.check_held()
        path = self.path / name
        if not isinstance(path, S3Path):
            write_atomically(path, content)
            return
        while (version := versioned.write(path, content, self._versions.get(name))) is None:
            self.check_held()  # else it was an earlier holder's last word, or an own put whose answer was lost
            self._note(name)
        self._versions[name] = version

    def unlink(self, name: str) -> None:
        """Remove a file, if it is there."""
        self.check_held()
        (self.path / name).unlink(missing_ok=True)
        self._versions.pop(name, None)

    def copy(self, source: str, target: str) -> None:
        """Make a file the same as another."""
        self.check_held()
        copy(self.path / source, self.path / target)
        self._note(target)

    def _note(self, name: str) -> None:
        """Take the version of a file that stands for the one to be replaced."""
        path = self.path / name
        version = versioned.version_of(path) if isinstance(path, S3Path) else None
        if version is None:
            self._versions.pop(name, None)
        else:
            self._versions[name] = version

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file."""
        self.write(name, json.dumps(content, indent=1).encode())

    def write_failed(self, kind: str, reason: str, step: int | None) -> None:
        """Record why the trial failed, unless it is another's by now."""
        if self.is_held():
            write_failed(self.path, kind, reason, step)

    def release(self) -> None:
        """Let go of it."""
        self._lock.release()


def hold_trial(path: Location) -> HeldFolder:
    """A trial's folder, made if it is not there, held by this process; a dead process's is free at once.

    Raises BusyError if another process holds it.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = lock_at(path / LOCK)
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        attempts = []
        with suppress(DamagedFileError):
            attempts = (read_json(path / TRIAL) or {}).get("attempts", [])
        holder = "process {pid} on {host}".format_map({"pid": "?", "host": "?"} | (attempts or [{}])[-1])
        raise BusyError(f"{path}: another process is training this trial ({holder}); wait for it or stop it") from error
    return HeldFolder(path, lock)


def check_shared(path: Location, nonce: str) -> None:
    """Raises NotSharedError unless what the driver of the sweep wrote into its folder is read here, too."""
    until = time.monotonic() + SHARED_SECONDS
    while (seen := _unlike(path, nonce)) is not None:
        if time.monotonic() >= until:
            raise NotSharedError(f"node {platform.node()} {seen}")
        time.sleep(0.2)


def _unlike(path: Location, nonce: str) -> str | None:
    """What is seen instead of the run.json with this nonce, and the mend; None if it is that one."""
    share = "mount it there at this path, or store in a bucket (storage: s3://bucket/prefix)"
    try:
        found = read_json(path, "stop the run and start it again, which writes the file anew")
    except DamagedFileError as error:
        return f"cannot tell whether it sees the sweep's storage: {error}"
    if found is None:
        return f"does not see the sweep's storage: {path}: there is no such file here; {share}"
    if found.get("nonce") != nonce:
        who = f"process {found['pid']} on {found['host']} since {found['since']}"
        return (
            f"sees another run of the sweep: {path}: {who}; this trial's run has lost the sweep, and ends; if it goes "
            f"on, this is not its storage: {share}"
        )
    return None


def write_failed(folder: Location, kind: str, reason: str, step: int | None) -> None:
    """Record why a trial failed.

    The kind: `diverged` (the same config fails again), `out_of_memory` (in this run it would, too: the next may find
    more) or `error` (worth another try at once).
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"kind": kind, "reason": reason, "step": step, "ended": utc_now()}
    write_atomically(folder / FAILED, json.dumps(content, indent=1).encode())

"""One writer at a time: a file lock in a folder, a lease in a bucket."""

import os
import platform
import random
import threading
import time
import uuid
from contextlib import suppress

from filelock import FileLock, Timeout

from results.storage import STALE_SECONDS, Location, S3Path, died_here

BEAT_SECONDS = 5.0


class Lease:
    """A lock in a bucket, with the face of a FileLock.

    Each claimant writes an object of its own and then lists all: it holds the lease if it sees no other, and takes its
    claim back if it does. S3 lists what was written before, so of two claimants one at least sees the other. The holder
    writes its claim again every BEAT_SECONDS. A claim is dead if its process was on this machine and is gone, or if
    the server's times of ours and of its last beat are STALE_SECONDS apart; no other clock counts.

    A holder that stood still for nearly as long gives the lease up (`is_locked`), but a write that was on its way then
    may still arrive after the next holder's: a state may go back by a save, and its steps are trained again to the same
    bits.
    """

    def __init__(self, path: S3Path):
        self.path = path
        self.claim = path / f"{platform.node()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._ended = threading.Event()
        self._ended.set()
        self._beaten = 0.0

    @property
    def is_locked(self) -> bool:
        """Whether this process holds it and has said so in time."""
        # The wall clock also counts the time that a machine was suspended.
        return not self._ended.is_set() and time.time() - self._beaten < STALE_SECONDS - BEAT_SECONDS

    def acquire(self, timeout: float) -> None:
        """Take the lease; raises filelock.Timeout if another holds it for `timeout` seconds."""
        until = time.monotonic() + timeout
        while True:
            self._beat()
            if not self._others():
                self._ended.clear()
                threading.Thread(target=self._beat_on, daemon=True).start()
                return
            self.claim.unlink(missing_ok=True)
            if time.monotonic() >= until:
                raise Timeout(str(self.path))
            time.sleep(random.uniform(0.2, 1.0))  # two that withdrew for each other must not meet again

    def release(self) -> None:
        """Let go of it, so that the next need not wait. Where that cannot be said, the missing beats say it."""
        if not self._ended.is_set():
            self._ended.set()
            with suppress(OSError):
                self.claim.unlink(missing_ok=True)

    def _beat(self) -> None:
        started = time.time()
        self.claim.put(b"")
        self._beaten = started

    def _beat_on(self) -> None:
        while not self._ended.wait(BEAT_SECONDS) and self.is_locked:
            with suppress(OSError):  # the next beat may pass; after too many, the lease is lost
                self._beat()

    def _others(self) -> list[str]:
        """The live claims of others; dead ones are swept away."""
        beaten = self.path.ages()
        now = beaten.pop(self.claim.name, None)
        if now is None:  # swept away as stale: it took too long from the write to here
            return [self.claim.name]
        live = []
        for name, at in beaten.items():
            if now - at > STALE_SECONDS or died_here(name):
                (self.path / name).unlink(missing_ok=True)
            else:
                live.append(name)
        return live


def lock_at(path: Location) -> FileLock | Lease:
    """The lock with this name. A dead process holds none: at once in a folder, after STALE_SECONDS in a bucket."""
    return Lease(path) if isinstance(path, S3Path) else FileLock(path)

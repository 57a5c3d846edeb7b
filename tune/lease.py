"""One writer at a time: a file lock in a folder, a lease in a bucket."""

import json
import random
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from results import locks, versioned
from results.locks import claim_of, is_free, this_process
from results.patience import impatiently
from results.storage import Location, S3Path

BEAT_SECONDS = 5.0
NO_VERSION = f'"{0:032}"'
RELEASE_SECONDS = 5.0
SETTLE_SECONDS = 2.0  # within which two claims at once have both arrived, in a store that keeps both


class Lease:
    """A lock in a bucket, with the face of a FileLock: one object, that only the version last seen is replaced of.

    Who finds it free (results.locks.is_free) writes its claim over it, with a number one higher, `fence`, that also
    stands in what it writes elsewhere. Of all that try, the store lets one through. The holder writes its claim anew
    every BEAT_SECONDS. If it has stood still for longer than STALE_SECONDS, another may have taken the lease: then its
    next beat finds another version, the lease is lost for good, and `lost` is called, in a thread of its own. If nobody
    has, the beat takes it again.

    What the holder writes elsewhere is its own to guard (tune.held_folder). A store without conditional puts lets all
    through: there the last claim stands, and who finds after SETTLE_SECONDS that its own does not has not got the
    lease; a claim that takes longer to arrive is noticed with the next beat.
    """

    def __init__(self, path: S3Path, lost: Callable[[], None] | None = None):
        self.path, self.fence = path, 0
        self._lost = lost
        self._conditional = True
        self._content = b""
        self._version: str | None = None  # of the claim that stands
        self._tried: set[str] = set()  # marks of claims written since; one of them may stand by now
        self._ended = threading.Event()
        self._ended.set()
        self._writing = threading.Lock()
        self._beaten = 0.0

    @property
    def is_locked(self) -> bool:
        """Whether this process holds it and has said so in time."""
        # The wall clock also counts the time that a machine was suspended.
        return not self._ended.is_set() and time.time() - self._beaten < locks.STALE_SECONDS - BEAT_SECONDS

    def still_held(self) -> bool:
        """The same, but a process that has not said so in time says it now, and asks whether it was too late."""
        with suppress(OSError):
            return self.is_locked or (self._beat() and self.is_locked)
        return False

    def acquire(self, timeout: float) -> None:
        """Take the lease; raises filelock.Timeout if another holds it for `timeout` seconds."""
        until = time.monotonic() + timeout
        while not self._take():
            if time.monotonic() >= until:
                raise Timeout(str(self.path))
            time.sleep(random.uniform(0.2, 1.0))
        self._ended.clear()
        threading.Thread(target=self._beat_on, daemon=True).start()

    def release(self) -> None:
        """Let go of it, so that the next need not wait. Where that cannot be said, the missing beats say it."""
        if not self._ended.is_set():
            self._ended.set()
            if not self._writing.acquire(timeout=RELEASE_SECONDS):  # a beat waits for the store
                return
            try:
                with impatiently(RELEASE_SECONDS), suppress(OSError):
                    if self._conditional or self._stands():
                        self._put({"released": True})
            finally:
                self._writing.release()

    def remove(self) -> None:
        """Let go of it by removing the object, unless it is another's by now. Raises OSError."""
        self._ended.set()
        with self._writing:
            if self._stands():
                self.path.unlink()

    def _take(self) -> bool:
        found = versioned.read(self.path)
        if found is not None and not is_free(found):
            return False
        self.fence = 1 + (claim_of(found).get("fence", 0) if found else 0)
        self._version = found.version if found else None
        self._tried.clear()
        if not self._put(this_process()):
            return False
        # A store that writes over a version that never was has not understood the condition.
        self._conditional = versioned.write(self.path, self._content, NO_VERSION) is None
        if not self._conditional:
            time.sleep(SETTLE_SECONDS)
        return self._conditional or self._stands()

    def _beat(self) -> bool:
        """Write the claim anew. Whether it was still this process's."""
        with self._writing:
            if self._ended.is_set():
                return False
            if (self._conditional or self._stands()) and self._put(this_process()):
                return True
            self._ended.set()
        if self._lost is not None:
            threading.Thread(target=self._lost, daemon=True).start()
        return False

    def _beat_on(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with impatiently(0), suppress(Exception):  # the next beat may pass; without any, others take the lease
                self._beat()

    def _put(self, claim: dict[str, Any]) -> bool:
        """Write a claim over the version that this process knows. Whether it stands there now."""
        started, mark = time.time(), uuid.uuid4().hex
        self._tried.add(mark)
        self._content = json.dumps({"fence": self.fence, "mark": mark} | claim).encode()
        try:
            version = versioned.write(self.path, self._content, self._version)
        except OSError:
            if self._stands():  # what was answered with an error may have been done
                return True
            raise
        if version is None:
            return self._stands()
        self._note(version, mark, started)
        return True

    def _stands(self) -> bool:
        """Whether one of the claims that this process has tried to write is the one that stands."""
        found = versioned.read(self.path)
        mark = claim_of(found).get("mark") if found else None
        if found is None or mark not in self._tried:
            return False
        self._note(found.version, str(mark), time.time() - found.age)
        return True

    def _note(self, version: str, mark: str, beaten: float) -> None:
        self._version, self._tried, self._beaten = version, {mark}, beaten


def lock_at(path: Location, lost: Callable[[], None] | None = None) -> FileLock | Lease:
    """The lock with this name. A dead process holds none: at once in a folder, after STALE_SECONDS in a bucket.

    A lease that another has taken is told to `lost`; a file lock never is.
    """
    return Lease(path, lost) if isinstance(path, S3Path) else FileLock(path)


def release_and_remove(lock: FileLock | Lease) -> None:
    """Let go of a lock that this process holds, and leave nothing of it. Raises OSError."""
    if isinstance(lock, Lease):
        lock.remove()
    else:
        Path(lock.lock_file).unlink()  # who waits for the file that is gone takes a new one
        lock.release()


def still_held(lock: FileLock | Lease) -> bool:
    """Whether this process still holds a lock that it took."""
    return lock.still_held() if isinstance(lock, Lease) else lock.is_locked


def fence_of(lock: FileLock | Lease) -> dict[str, int]:
    """The number of a lease, for what its holder writes; nothing for a file lock, which cannot be lost."""
    return {"fence": lock.fence} if isinstance(lock, Lease) else {}

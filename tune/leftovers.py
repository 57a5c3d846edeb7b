"""What finished runs of ours left in Ray's temporary folder, which Ray itself never empties.

A Ray that was started here for one run has a session folder of its own, and keeps the logs of its workers there. It is
marked by a file that the run has locked for as long as it lives. On a cluster the session is not ours, but in it are
copies of what Tune wrote of each run into the run's own folder (`attempts/`), most of which nobody reads there either.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from results.schema import LOG, SPEC

MARK = "rrm.lock"
KEPT = 3  # finished sessions: somebody may look for why a run failed


@contextmanager
def marked(session: Path) -> Iterator[None]:
    """Within, the session of a Ray that was started here is this run's. Those of finished runs go, but for KEPT."""
    lock = FileLock(session / MARK)
    with suppress(OSError):  # a full disk is the trials' to tell
        lock.acquire()
        _remove_finished(session.parent)
    try:
        yield
    finally:
        with suppress(OSError):
            os.utime(session / MARK)  # when the run ended
        lock.release()


def _remove_finished(folder: Path) -> None:
    finished = 0
    for mark in sorted(folder.glob(f"session_*/{MARK}"), key=_ended, reverse=True):
        lock = FileLock(mark)
        try:
            if mark.stat().st_uid != os.geteuid() or mark.parent.is_symlink():  # Ray's session_latest
                continue
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            continue
        finished += 1
        if finished > KEPT:
            shutil.rmtree(mark.parent, ignore_errors=True)
        lock.release()


def _ended(mark: Path) -> float:
    """When the run of a session ended, or began if it has not; 0 if it was removed."""
    with suppress(OSError):
        return mark.stat().st_mtime
    return 0.0


def tidy(attempt: Path) -> None:
    """Remove from a finished run's folder what nobody reads: Tune's state, and folders of trials that had no error."""
    for path in attempt.glob("*"):
        with suppress(OSError):
            if path.is_dir():
                path.rmdir()  # fails where there is an error
            elif path.name not in (LOG, SPEC):
                path.unlink()


def remove_copies(session: Path, attempts: Path) -> None:
    """Remove what Tune kept in a session of a sweep's runs, which have folders in `attempts`. All must be finished."""
    with suppress(OSError):
        names = {path.name for path in attempts.iterdir()}
        for copy in session.glob("artifacts/*/*"):
            if copy.name in names:
                shutil.rmtree(copy, ignore_errors=True)
                with suppress(OSError):  # another run began in the same second
                    copy.parent.rmdir()

"""Waiting for S3 that is busy or lost for a while; what is wrong otherwise is said at once, with its mend."""

import errno
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

_Read = TypeVar("_Read")
PATIENCE_SECONDS, LONGEST_PAUSE_SECONDS = 300.0, 20.0
BUSY, LOST = "SLOW_DOWN", "NETWORK_CONNECTION"
# What S3 answers, by the name that the AWS library gives it, and what a user can do about it.
_MENDS = {
    "NO_SUCH_BUCKET": "there is no such bucket; make it, or mend the name",
    "ACCESS_DENIED": "S3 refuses these credentials; see AWS_ACCESS_KEY_ID and what it may do in this bucket",
    "INVALID_ACCESS_KEY_ID": "S3 does not know these credentials; see AWS_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH": "S3 refuses these credentials; see AWS_SECRET_ACCESS_KEY",
    LOST: "S3 cannot be reached; see AWS_ENDPOINT_URL and the network",
    BUSY: "S3 was too busy for minutes; run fewer trials at a time, or save less often (save_seconds)",
}


class StorageError(OSError):
    """S3 did not do what was asked: `filename` is the URL, `strerror` says why and what to mend."""


def endpoint() -> str | None:
    """Where S3 is, if the environment says so."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


_at_most: ContextVar[float] = ContextVar("seconds", default=PATIENCE_SECONDS)


@contextmanager
def impatiently(seconds: float) -> Iterator[None]:
    """Within, S3 is waited for no longer than this: by what may as well not be done."""
    before = _at_most.set(seconds)
    try:
        yield
    finally:
        _at_most.reset(before)


_reached: set[str | None] = set()  # the endpoints that have answered this process: these are no mistakes


def patiently(operation: Callable[[], _Read], path: object) -> _Read:
    """What an operation on an object gives. Raises StorageError, or FileNotFoundError.

    One that S3 turns away for now is tried for minutes, and so is one that does not reach it, if another has before.
    """
    until, pause, waited = time.monotonic() + min(PATIENCE_SECONDS, _at_most.get()), 1.0, False
    while True:
        try:
            done = operation()
            _reached.add(endpoint())
            return done
        except FileNotFoundError as error:
            _reached.add(endpoint())
            raise FileNotFoundError(errno.ENOENT, "no such object", str(path)) from error
        except OSError as error:
            name = _name_of(error)
            passes = name == BUSY or (name == LOST and endpoint() in _reached)
            if not passes or time.monotonic() >= until:
                if name == LOST and waited:  # in vain: what comes next does not wait as long again
                    _reached.discard(endpoint())
                mend = _MENDS.get(name, str(error).partition("\n")[0])
                raise StorageError(errno.EIO, mend, str(path)) from error
        # All who were turned away together must not come back together.
        time.sleep(min(random.uniform(0, pause), max(0.0, until - time.monotonic())))
        pause, waited = min(2 * pause, LONGEST_PAUSE_SECONDS), True


def _name_of(error: OSError) -> str:
    """What S3 answered, as the AWS library calls it; BUSY for all that it would take later."""
    known, status = re.search(r"AWS Error (\w+)", str(error)), re.search(r"HTTP status (\d+)", str(error))
    name = known[1] if known else ""
    late = name in (BUSY, "SERVICE_UNAVAILABLE", "THROTTLING", "INTERNAL_FAILURE", "REQUEST_TIMEOUT")
    return BUSY if late or (status and status[1] in ("429", "500", "502", "503", "504")) else name

"""A process that holds a lock, for as long as a test wants."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from results.storage import Location

_HOLD = """
import sys, time
from results.storage import location
from tune.lease import lock_at
lock = lock_at(location(sys.argv[1]))
lock.acquire(timeout=10)
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def held_elsewhere(lock: Location) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock; it is killed at the end, at the latest."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()

"""A process that holds a lock, for as long as a test wants."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from results.storage import Location

# Then says at every line that it reads whether it holds it still: in time, and after it has asked.
_HOLD = """
import sys
from results import locks
from results.storage import location
from tune import lease
locks.STALE_SECONDS, lease.BEAT_SECONDS = float(sys.argv[2]), float(sys.argv[3])
lock = lease.lock_at(location(sys.argv[1]), lambda: print("lost", flush=True))
lock.acquire(timeout=float(sys.argv[4]))
print("held", flush=True)
for line in sys.stdin:
    print(lock.is_locked, lease.still_held(lock), flush=True)
"""


@contextmanager
def held_elsewhere(
    lock: Location, *before: str, stale: float = 30.0, beat: float = 5.0, timeout: float = 10.0
) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, started by the command `before`; it is killed at the end, at the latest."""
    command = [*before, sys.executable, "-c", _HOLD, str(lock), str(stale), str(beat), str(timeout)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()

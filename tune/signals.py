"""The signals that ask a process to end: what trains saves first."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

STOPPED = 4  # the exit code of a command that was told to end before its work was done
GOES_ON = "Stopped; the same command goes on from here."
ENDING = (signal.SIGTERM, signal.SIGHUP)  # of `kill`, Slurm, Kubernetes; of a terminal that is closed


@contextmanager
def handled(numbers: tuple[signal.Signals, ...], handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Within, let `handler` take these signals. One that is ignored stays so: SIGHUP under nohup.

    Outside the main thread, which alone may do so, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number, handler_before in before.items() if handler_before not in (signal.SIG_IGN, None)]
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def end_here(*_: Any) -> None:
    """End this process, which holds nothing yet: an exception would be lost where a library's import catches all."""
    with suppress(OSError):
        os.write(2, f"{GOES_ON}\n".encode())
    os._exit(STOPPED)


@contextmanager
def children_ignore_hangup() -> Iterator[None]:
    """Let SIGHUP wait, for ever in processes that are started within: a shell that ends sends it to all of a job's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""The signals that ask a process to end: what trains saves first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def children_ignore_hangup() -> Iterator[None]:
    """Let processes that are started within ignore SIGHUP: a shell that ends sends it to all of a job's processes."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGHUP) is None:
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)

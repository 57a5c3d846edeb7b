"""How far a long command is: a bar with the time left, or in a log a line every half minute."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tune.output import console, redraws

LINE_SECONDS = 30.0
RECENT = 20  # parts whose mean time says how long the others take


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A function that is told the name of what is done in parts, how many of them are done, and how many there are."""
    if not redraws():
        yield _Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(), transient=True, speed_estimate_period=600) as bars:
        tasks = {}

        def show(name: str, done: int, of: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=of)
            bars.update(tasks[name], completed=done)

        yield show


class _Lines:
    """Lines for a log: none in the first half minute."""

    def __init__(self) -> None:
        self.said = time.monotonic()
        self.name, self.times = "", deque[float](maxlen=RECENT + 1)

    def __call__(self, name: str, done: int, of: int) -> None:
        now = time.monotonic()
        if name != self.name:
            self.name = name
            self.times.clear()
        self.times.append(now)
        if now - self.said < LINE_SECONDS or len(self.times) < 2 or done == of:
            return
        self.said = now
        left = (of - done) * (self.times[-1] - self.times[0]) / (len(self.times) - 1)
        print(f"{name}: {done} of {of} parts, {time_left(left)} left", flush=True)


def time_left(seconds: float) -> str:
    """Seconds in the units that a person waits in."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

"""Workers of one trial that are threads of this process."""

import threading

from rrm.workers import Workers


class Threads(Workers):
    """One of them; they show each other what they have."""

    def __init__(self, rank: int, shown: list, everyone: threading.Barrier):
        self.rank, self.count, self.shown, self.everyone = rank, len(shown), shown, everyone

    def all_gather(self, tensors):
        self.shown[self.rank] = {name: x.clone() for name, x in tensors.items()}  # sums are made in place
        self.everyone.wait()
        of_all = [{name: x.clone() for name, x in of_one.items()} for of_one in self.shown]
        self.everyone.wait()
        return of_all

    def gather(self, value):
        self.shown[self.rank] = value
        self.everyone.wait()
        of_all = list(self.shown)
        self.everyone.wait()
        return of_all if self.rank == 0 else []

    def tell(self, value):
        self.shown[self.rank] = value
        self.everyone.wait()
        of_first = self.shown[0]
        self.everyone.wait()
        return of_first


def two_threads() -> tuple[Threads, Threads]:
    """Worker 0 of two, and worker 1."""
    shown, everyone = [None] * 2, threading.Barrier(2, timeout=60)
    return Threads(0, shown, everyone), Threads(1, shown, everyone)

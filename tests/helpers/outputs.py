"""A stdout that fails: for this process, within."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stdout_that_is(what: str, encoding: str = "utf-8") -> Iterator[None]:
    """`unread`: a pipe whose reader has left; `full`: a disk without room; `closed`: as after `>&-`."""
    before = sys.stdout
    if what == "unread":
        read_end, place = os.pipe()
        os.close(read_end)
    else:
        place = "/dev/full"
    with open(place, "w", encoding=encoding) as out:  # closing it raises if what is buffered would still go there
        sys.stdout = None if what == "closed" else out
        try:
            yield
        finally:
            sys.stdout = before

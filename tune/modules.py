"""Reading modules: torch and Ray make half a million objects, among which Python would look for garbage meanwhile."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reading_modules() -> Iterator[None]:
    """Let the garbage collector, a quarter of the time of an import, rest within, and then pass over all there is."""
    if not gc.isenabled():  # by another reading, or as the user wants it
        yield
        return
    known = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        gc.enable()

"""This process's torch: the same bits each time, no page faults for freed memory, a compiler where one is needed.

And what it says when memory runs out, as a sentence.
"""

import ctypes
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h

# How torch and its libraries say on each device that memory ran out: a RuntimeError, or a subclass of one.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|bad_alloc|ALLOC_FAILED", re.IGNORECASE
)
_ASKED = re.compile(r"allocate ([\d.]+ ?(?:bytes|[KMGT]i?B))")


class CompilerError(RuntimeError):
    """torch.compile cannot work on this machine."""


class MemoryRanOutError(torch.OutOfMemoryError):
    """Memory ran out, of the device or of the machine; the text says what to change."""


def check_compiler() -> None:
    """Raise CompilerError if torch.compile would not find a C++ compiler."""
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise CompilerError(
            f"train.compile: torch compiles by {name}, which is not on this machine; install it, name another compiler "
            "in the environment variable CXX, or set train.compile to false"
        )


@contextmanager
def out_of_memory_is(mend: Callable[[], str]) -> Iterator[None]:
    """Raise MemoryRanOutError with this mend where memory runs out; one that has its mend stays as it is."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryRanOutError) or not says_out_of_memory(error):
            raise
        asked = _ASKED.search(str(error))
        more = f" ({asked[1]} more were asked for)" if asked else ""
        raise MemoryRanOutError(f"out of memory{more}: {mend()}") from error


def says_out_of_memory(error: Exception) -> bool:
    """Whether an error is what torch, one of its libraries or Python raises where memory runs out."""
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


def set_up_torch(threads: int) -> None:
    """Make this process give the same bits each time: a fixed number of threads, deterministic kernels only."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms would import torch's compiler, too
    # No memory is read here before it is written: filling it would cost time for nothing.
    deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed: given back, each large tensor costs a page fault for every 4 KB, half of the time.

    Other systems' C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        kept = mallopt(M_MMAP_THRESHOLD, 2**25) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # glibc's largest
        if not kept:
            warnings.warn("malloc refuses to keep freed memory: training takes longer", RuntimeWarning, stacklevel=3)

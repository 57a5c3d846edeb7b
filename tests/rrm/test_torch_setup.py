"""What torch and its libraries say when memory runs out is told as such, nothing else is; and malloc's refusal is."""

import sys
import warnings

import pytest
import torch

from rrm import torch_setup
from rrm.torch_setup import out_of_memory_is, set_up_torch


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "out of memory: give less"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of"),
            "out of memory (2.50 GiB more were asked for): give less",
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out of memory: "),
        (RuntimeError("std::bad_alloc"), "out of memory: give less"),
    ],
)
def test_out_of_memory(error, says):
    with pytest.raises(torch.OutOfMemoryError) as raised, out_of_memory_is(lambda: "give less"):
        raise error
    assert str(raised.value).startswith(says)


def test_the_cpus_own_words():
    with (
        pytest.raises(torch.OutOfMemoryError, match=r"out of memory \(\d{15,} bytes more"),
        out_of_memory_is(lambda: "give less"),
    ):
        torch.empty(2**47, dtype=torch.float64)


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="a size does not fit") as raised, out_of_memory_is(lambda: "give less"):
        raise RuntimeError("a size does not fit")
    assert not isinstance(raised.value, torch.OutOfMemoryError)


M_MXFAST = 1  # of malloc.h: no threshold near 32 MB is taken for it


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked")
@pytest.mark.parametrize("name", ["M_MMAP_THRESHOLD", "M_TRIM_THRESHOLD"])
def test_what_malloc_refuses_is_said(name, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_up_torch(1)
    monkeypatch.setattr(torch_setup, name, M_MXFAST)
    with pytest.warns(RuntimeWarning, match="malloc refuses to keep freed memory: training takes longer"):
        set_up_torch(1)

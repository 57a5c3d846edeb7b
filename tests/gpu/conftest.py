"""Tests that need a CUDA device: `pytest tests/gpu -n 4`, which prints what it measured. Elsewhere they are skipped."""

import pytest
import torch

from rrm.torch_setup import set_up_torch


@pytest.fixture(autouse=True)
def cuda() -> torch.device:
    """The GPU, in a process whose torch gives the same bits each time."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device is here, and this is a test of one")
    set_up_torch(1)
    return torch.device("cuda")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests recorded, a line each."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        if report.when == "call":
            for name, value in report.user_properties:
                terminalreporter.write_line(f"{name}: {value}")

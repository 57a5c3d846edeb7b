"""What an attempt at a trial ran on: commit, versions, device, threads."""

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

COMMIT = "COMMIT"  # a file that `rrm submit` packs beside the packages, for there is no git in a job


def provenance(device: torch.device, threads: int, workers: list[dict[str, Any]]) -> dict[str, Any]:
    """What an attempt ran on: commit, versions, device, threads of each of its workers and where those are."""
    return {
        "commit": commit(),
        "rrm": _version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "ray": version("ray"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "pid": os.getpid(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "on_gpu": device.type == "cuda",
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": threads,
        "workers": workers,
        "started": utc_now(),
    }


def utc_now() -> str:
    """The time as the tables take it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _version() -> str | None:
    """The version of this code, None where it is not installed, as in a job's working directory."""
    try:
        return version("rrm")
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of this code, None where it is no checkout or there is no git."""
    packed = Path(__file__).parents[1] / COMMIT
    if packed.exists():
        return packed.read_text() or None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None

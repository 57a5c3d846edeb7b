"""Worker 0 has a trial and says what is to be done with it; the others follow, to the same bits at the same time."""

import os
import platform
from contextlib import suppress
from typing import Any

import torch

from rrm.config import TrialConfig
from rrm.torch_setup import set_up_torch
from rrm.train import DivergedError, Trainer
from rrm.workers import Workers


def this_process() -> dict[str, Any]:
    """Where a worker is: its host and its process there."""
    return {"host": platform.node(), "pid": os.getpid()}


def follow(workers: Workers, device: torch.device) -> None:
    """Do what worker 0 tells, until it tells "end". Raises what the trainer raises, and WorkerLostError.

    It tells "take up", a trial's config and its threads, and is told which process this is; or the name of one of that
    Trainer's methods and what it is given. It does the same itself.
    """
    trainer: Trainer | None = None
    while True:
        order, *values = workers.tell(None)
        if order == "end":
            return
        if order == "take up":
            config, threads = values
            workers.gather(this_process())
            set_up_torch(threads)
            trainer = Trainer(TrialConfig.model_validate(config), device, workers)
        else:
            with suppress(DivergedError):  # worker 0 meets it, too, and says so
                getattr(trainer, order)(*values)

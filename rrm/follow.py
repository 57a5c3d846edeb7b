"""Worker 0 has a trial and says what is to be done with it; the others follow, to the same bits at the same time."""

import os
import platform
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from rrm.config import TrialConfig
from rrm.puzzles.formats import DataError
from rrm.torch_setup import out_of_memory_is, set_up_torch
from rrm.train import DivergedError, Trainer
from rrm.workers import Workers


def this_process() -> dict[str, Any]:
    """Where a worker is: its host and its process there."""
    return {"host": platform.node(), "pid": os.getpid()}


def trainer_of(config: dict[str, Any], trial_id: str, device: torch.device, workers: Workers) -> Trainer:
    """The Trainer of a trial that was planned somewhere else, as `trial_id`.

    Raises DataError, which names this node, if its files cannot be read here or are not those of the plan.
    """
    try:
        trainer = Trainer(TrialConfig.model_validate(config), device, workers)
    except DataError as error:
        raise DataError(f"node {platform.node()}: {error}") from error
    if trainer.trial_id != trial_id:
        files = {key: config[key] for key in ("task", "init_from")}
        raise DataError(f"node {platform.node()}: the files here are not those the sweep was planned with: {files}")
    return trainer


def follow(workers: Workers, device: torch.device, memory_mend: Callable[[TrialConfig], str]) -> None:
    """Do what worker 0 tells, until it tells "end".

    It tells "take up", a trial's config, id and threads, and is told which process this is; or the name of one of that
    Trainer's methods and what it is given. It does the same itself. Raises what the trainer raises, what `trainer_of`
    does, WorkerLostError, and MemoryRanOutError with `memory_mend` of the trial.
    """
    trainer: Trainer | None = None
    config: dict[str, Any] = {}

    def mend() -> str:
        return memory_mend(TrialConfig.model_validate(config))

    while True:
        with out_of_memory_is(mend):
            order, *values = workers.tell(None)
            if order == "end":
                return
            if order == "take up":
                config, trial_id, threads = values
                workers.gather(this_process())
                set_up_torch(threads)
                trainer = trainer_of(config, trial_id, device, workers)
            else:
                with suppress(DivergedError):  # worker 0 meets it, too, and says so
                    getattr(trainer, order)(*values)

"""The one Tune trainable: every model, every rollout mode. The trial's own folder holds all that lasts."""

import math
import os
import sys
import time
from typing import Any

from tune.modules import reading_modules

with reading_modules():  # a worker of Ray begins here
    import ray
    import torch
    from ray.tune import PlacementGroupFactory, Trainable

    from results.schema import SAVED
    from results.storage import back_from
    from results.trial_files import read_json
    from rrm.torch_setup import MemoryRanOutError
    from rrm.workers import ALONE, Workers
    from tune.job import TrialJob
    from tune.loggers import await_wandb
    from tune.output import outlet
    from tune.trial import Progress, TrialRun
    from tune.workers import Crew

SLICE_SECONDS = 1.0  # how often a trial reports; shorter slices cost Tune more than they tell


class RecursiveTrial(Trainable):
    """Trains a trial by config["workers"], each on config["cpu"] cores and config["gpu"] GPUs.

    config["job"] refers to its TrialJob, as a mapping.
    """

    run: TrialRun | None = None
    crew: Crew | None = None

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """What a trial asks of Ray. (`with_resources` would, too, but hide this class's name from the dashboard.)"""
        return PlacementGroupFactory([{"CPU": config["cpu"], "GPU": config["gpu"]}] * config["workers"])

    def setup(self, config: dict[str, Any]) -> None:
        """Note the trial. Its folder is opened by the first step: Tune also sets up workers that it then gives away."""
        job: Any = ray.get(config["job"])
        self.job = TrialJob(**job)
        self.config = {name: value for name, value in config.items() if name != "job"}  # it is part of every report
        if not config["gpu"]:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves it unset: a trial without a GPU would see the others'
        self.device = torch.device("cuda" if config["gpu"] and torch.cuda.is_available() else "cpu")

    def step(self) -> dict[str, Any]:
        """Train a slice.

        A trial that diverges or does not fit into memory ends here: Tune would only train it to the same end again.
        """
        try:
            self.run = self.run or self._begun()
            progress = self.run.advance(SLICE_SECONDS)
        except MemoryRanOutError as error:
            progress = self._out_of_memory(str(error))
        ended = progress.finished or progress.failed is not None
        if ended:
            self._close_run()
            self._log(f"failed: {progress.failed}" if progress.failed else f"done at step {progress.step}")
        return {
            "train_step": progress.step,
            "evaluated_step": progress.evaluated_step,
            "saved_step": progress.saved_step,
            "exact_accuracy": math.nan if progress.exact_accuracy is None else progress.exact_accuracy,
            "failed": progress.failed or "",
            "messages": progress.messages,
            "done": ended,
        }

    def _begun(self) -> TrialRun:
        run = TrialRun(self.job, self.device, self._workers())
        self._log(f"from step {run.trainer.step} on {self.device}")
        if self.config["gpu"] and self.device.type == "cpu":
            run.messages.append("Ray gave it a GPU that torch cannot use: it trains on the CPU")
        return run

    def _out_of_memory(self, reason: str) -> Progress:
        """Where the trial stands. Its other workers may be in the middle of a step: the next trial has new ones."""
        if self.crew is not None:
            self.crew.replace()
            self.crew = None
        saved = read_json(back_from(self.job.folder) / SAVED) or {"step": 0}
        accuracy = self.run.trainer.last_accuracy if self.run else None
        return Progress(saved["step"], -1, -1, accuracy, failed=reason)

    def _workers(self) -> Workers:
        """This process and the others of its trials, which are started for the first and stay for the next."""
        if self.crew is None and self.config["workers"] > 1:
            of_each = self.config["cpu"], self.config["gpu"]
            self.crew = Crew(self.config["workers"], *of_each, self.device, self.job.secrets)
        return self.crew.workers if self.crew else ALONE

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another trial in this process; nothing is carried over."""
        self._close_run()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Save, let go of the folder and of the other workers; Tune calls this when it ends this process."""
        try:
            self._close_run()
        finally:
            if self.crew is not None:
                self.crew.close()
            await_wandb()

    def _close_run(self) -> None:
        run, self.run = self.run, None
        if run is not None:
            run.close()

    def _log(self, what: str) -> None:
        """A line in the worker's own log, which the dashboard shows beside it."""
        line = f"{time.strftime('%H:%M:%S')} {self.job.name} ({self.job.trial_id}): {what}"
        print(line, file=outlet(sys.stdout), flush=True)

    def __repr__(self) -> str:
        # Ray asks once, when the worker starts, and shows the answer for as long as it lives, whatever trial it is at.
        job = getattr(self, "job", None)
        return f"{job.sweep}: first trial {job.name} ({job.trial_id})" if job else "idle"

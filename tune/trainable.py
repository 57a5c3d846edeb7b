"""The one Tune trainable: every model, every rollout mode. The trial's own folder holds all that lasts."""

import math
import sys
import time
from typing import Any

import torch
from ray.tune import PlacementGroupFactory, Trainable

from tune.job import TrialJob
from tune.output import outlet
from tune.trial import TrialRun

SLICE_SECONDS = 1.0  # how often a trial reports; shorter slices cost Tune more than they tell


class RecursiveTrial(Trainable):
    """Trains the trial in config["job"], on config["cpu"] cores and config["gpu"] GPUs."""

    run: TrialRun | None = None

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """What a trial asks of Ray. (`with_resources` would, too, but hide this class's name from the dashboard.)"""
        return PlacementGroupFactory([{"CPU": config["cpu"], "GPU": config["gpu"]}])

    def setup(self, config: dict[str, Any]) -> None:
        """Note the trial. Its folder is opened by the first step: Tune also sets up workers that it then gives away."""
        self.job = TrialJob(**config["job"])
        self.device = torch.device("cuda" if config["gpu"] and torch.cuda.is_available() else "cpu")

    def step(self) -> dict[str, Any]:
        """Train a slice. A diverged trial ends here: Tune would only train it to the same end again."""
        if self.run is None:
            self.run = TrialRun(self.job, self.device)
            self._log(f"from step {self.run.trainer.step} on {self.device}")
            if self.config["gpu"] and self.device.type == "cpu":
                self.run.messages.append("Ray gave it a GPU that torch cannot use: it trains on the CPU")
        progress = self.run.advance(SLICE_SECONDS)
        ended = progress.finished or progress.failed is not None
        if ended:
            self.run.close()
            self._log(f"failed: {progress.failed}" if progress.failed else f"done at step {progress.step}")
        return {
            "train_step": progress.step,
            "evaluated_step": progress.evaluated_step,
            "exact_accuracy": math.nan if progress.exact_accuracy is None else progress.exact_accuracy,
            "failed": progress.failed or "",
            "messages": progress.messages,
            "done": ended,
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another trial in this process; nothing is carried over."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Save and let go of the folder; Tune calls this when it stops a trial."""
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

"""The one Tune trainable: every model, every rollout mode. The trial's own folder holds all that lasts."""

import math
from typing import Any

import torch
from ray.tune import Trainable

from tune.trial import TrialJob, TrialRun

SLICE_SECONDS = 1.0  # how often a trial reports; shorter slices cost Tune more than they tell


class RecursiveTrial(Trainable):
    """Trains the trial in config["job"]. Its name is what the Ray dashboard shows."""

    run: TrialRun | None = None

    def setup(self, config: dict[str, Any]) -> None:
        """Note the trial. Its folder is opened by the first step: Tune also sets up workers that it then gives away."""
        self.job = TrialJob(**config["job"])
        on_gpu = config["gpu"] and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_gpu else "cpu")

    def step(self) -> dict[str, Any]:
        """Train a slice. A diverged trial ends here: Tune would only train it to the same end again."""
        if self.run is None:
            self.run = TrialRun(self.job, self.device)
        progress = self.run.advance(SLICE_SECONDS)
        ended = progress.finished or progress.failed is not None
        if ended:
            self.run.close()
        return {
            "train_step": progress.step,
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
        if self.run is not None:
            self.run.close()
            self.run = None

    def __repr__(self) -> str:
        return f"{self.job.arm} seed={self.job.seed} {self.job.trial_id}" if hasattr(self, "job") else "idle"

"""progress.json: how a run stands, for `rrm watch` and `rrm status`, written by its driver every few seconds."""

import json
import math
import time
from contextlib import suppress
from typing import Any

from ray.tune import Callback

from results.schema import PROGRESS
from results.storage import S3Path
from tune.callbacks import Progress
from tune.held_folder import BusyError, HeldFolder

SECONDS, SECONDS_S3 = 3.0, 30.0  # between two writings
SHARE = 50  # at most so small a part of the driver's time goes into them
_RATE_SECONDS, _FIRST_RATE_SECONDS = 10.0, 1.0  # over which a trial's rate is measured


class ProgressFile(Callback):
    """Writes what a Progress knows: of each trial its status, step, rate, when it was last heard of, why it failed.

    The same while no trial reports: then `written` goes on and the trials' `heard` does not. A writing that fails is
    tried again with the next: the storage's failures are the trials' to tell. A run that has lost its sweep's folder
    writes none.
    """

    def __init__(self, progress: Progress, held: HeldFolder):
        self.progress, self.held = progress, held
        self._seconds = SECONDS_S3 if isinstance(held.path, S3Path) else SECONDS
        self._due = 0.0
        self._heard: dict[str, float] = {}
        self._silences: dict[str, float] = {}  # the longest time between two reports: of an evaluation, mostly
        self._marks: dict[str, tuple[float, int]] = {}  # when a trial's rate was last measured, and its step then
        self._rates: dict[str, float] = {}
        self._reasons: dict[str, str] = {}

    def __enter__(self) -> "ProgressFile":
        self.write()
        return self

    def __exit__(self, *_: object) -> None:
        self.write(ended=True)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as Progress

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Note when a trial was heard of, and how fast it goes."""
        trial_id, step, now = trial.config["trial_id"], result["train_step"], time.monotonic()
        silence = time.time() - self._heard.get(trial_id, time.time())
        self._silences[trial_id] = max(silence, self._silences.get(trial_id, 0.0))
        self._heard[trial_id] = time.time()
        since, before = self._marks.setdefault(trial_id, (now, step))
        if now - since >= (_RATE_SECONDS if trial_id in self._rates else _FIRST_RATE_SECONDS):
            self._rates[trial_id] = (step - before) / (now - since)
            self._marks[trial_id] = now, step
        if result["failed"]:
            self._reasons[trial_id] = result["failed"]

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A worker took it up: the time that it waited is no training."""
        trial_id = trial.config["trial_id"]
        self._heard[trial_id] = time.time()
        self._marks.pop(trial_id, None)
        self._rates.pop(trial_id, None)

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        """Tune's loop went round, whether or not a trial reported."""
        if time.monotonic() >= self._due:
            self.write()

    def write(self, ended: bool = False) -> None:
        """Write the file now."""
        started = time.monotonic()
        reasons = self._reasons | self.progress.errors
        trials = {}
        for trial_id, state in self.progress.trials.items():
            known = {
                "step": state.step,
                "accuracy": None if math.isnan(state.accuracy) else state.accuracy,
                "heard": self._heard.get(trial_id),
                "longest_silence": self._silences.get(trial_id),
                "rate": self._rates.get(trial_id) if state.status == "running" else None,
                "reason": reasons.get(trial_id) if state.status == "failed" else None,
            }
            given = {name: value for name, value in known.items() if value is not None}
            trials[trial_id] = {"status": state.status, "steps": state.steps} | given
        left = None if ended else self.progress.seconds_left()
        content = {"written": time.time(), "ended": ended, "left": left, "trials": trials}
        with suppress(OSError, BusyError):
            self.held.write(PROGRESS, json.dumps(content).encode())
        self._due = time.monotonic() + max(self._seconds, SHARE * (time.monotonic() - started))

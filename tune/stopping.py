"""Early stopping by Tune's schedulers, on what is recorded: an evaluation counts once, and a decision lasts.

Tune does not save a scheduler's state. Here it is made anew at each run from the evaluations in the trials' folders,
and a trial that was stopped says so in its own (`stopped.json`).
"""

import json
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from results.schema import ASKED, STOPPED
from results.storage import Location, write_atomically
from results.trial_files import DamagedFileError, read_json
from results.trial_tables import trial_table
from tune.held_folder import BusyError, HeldFolder
from tune.plan import PlannedTrial
from tune.provenance import utc_now
from tune.spec import Scheduler

STEP, ACCURACY = "step", "exact_accuracy"


@dataclass(frozen=True)
class _Known:
    """A trial as Tune's schedulers know it: by its id, which is the same in every run."""

    trial_id: str


class RecordedStopping(FIFOScheduler):
    """A scheduler that is shown each evaluation once, those of earlier runs first, and writes down whom it stops.

    It does for as long as this process holds the folder of the `sweep`.
    """

    def __init__(self, config: Scheduler, planned: Iterable[PlannedTrial], sweep: HeldFolder):
        super().__init__()
        self.config, self.sweep = config, sweep
        trials = list(planned)
        self.folders = {trial.cell.trial_id: trial.folder for trial in trials}
        self.inner = _scheduler(config, max(trial.cell.config.train.steps for trial in trials))
        self.seen: dict[str, int] = {}  # trial id -> the step of its last evaluation that the scheduler knows
        evaluations = []
        for trial in trials:
            with suppress(DamagedFileError):  # what cannot be read has nothing to say: the trial's own attempt tells
                evaluations += _asked_before(trial)
        for step, trial_id, accuracy in sorted(evaluations):
            self._tell(trial_id, step, accuracy)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its scheduler into the attempt's folder, which nothing reads

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ask the scheduler about a new evaluation; anything else goes on."""
        trial_id, step, accuracy = trial.config["trial_id"], result["evaluated_step"], result[ACCURACY]
        if step <= self.seen.get(trial_id, -1):
            return TrialScheduler.CONTINUE
        known, controller, folder = self._known(trial_id, step), tune_controller, self.folders[trial_id]
        answer = self.inner.on_trial_result(controller, known, {STEP: step, ACCURACY: accuracy})
        reason = f"{self.config.name}: exact accuracy {accuracy:.4f} on validation at step {step}"
        stops = answer == TrialScheduler.STOP
        content = {"step": step, "reason": reason, "ended": utc_now()} if stops else {"step": step}
        try:
            self.sweep.check_held()
            write_atomically(folder / (STOPPED if stops else ASKED), json.dumps(content, indent=1).encode())
        except (OSError, BusyError):
            # What cannot be written, or is another run's to decide by now, would not last: the trial goes on, and
            # storage that failed is for it to tell.
            return TrialScheduler.CONTINUE
        return TrialScheduler.STOP if stops else TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The last evaluation of a trial counts for the others."""
        self._tell(trial.config["trial_id"], result["evaluated_step"], result[ACCURACY])

    def _tell(self, trial_id: str, step: int, accuracy: float) -> None:
        """Tell the scheduler an evaluation about which nothing is left to decide."""
        if step > self.seen.get(trial_id, -1):
            controller: Any = None  # neither scheduler asks it anything
            self.inner.on_trial_complete(controller, self._known(trial_id, step), {STEP: step, ACCURACY: accuracy})

    def _known(self, trial_id: str, step: int) -> Any:
        self.seen[trial_id] = step
        controller, known = None, _Known(trial_id)
        self.inner.on_trial_add(controller, known)  # pyright: ignore[reportArgumentType]
        return known


def _scheduler(config: Scheduler, most_steps: int) -> TrialScheduler:
    grace = config.grace_steps_of(most_steps)
    common: Any = {"time_attr": STEP, "metric": ACCURACY, "mode": "max", "grace_period": grace}
    if config.name == "asha":
        return ASHAScheduler(**common, max_t=most_steps, reduction_factor=config.reduction_factor)
    # It never pauses a trial to wait for the others: a pause would cost a worker's start.
    return MedianStoppingRule(**common, min_time_slice=math.inf)  # pyright: ignore[reportArgumentType]


def _last_asked(folder: Location) -> int:
    """The step of the last evaluation that the scheduler let pass; -1: none."""
    return (read_json(folder / ASKED) or {"step": -1})["step"]


def _asked_before(trial: PlannedTrial) -> list[tuple[int, str, float]]:
    """(step, trial id, accuracy) of the evaluations of a trial about which nothing is left to decide."""
    mine = _evaluations(trial)
    # A run that was interrupted while it evaluated has not asked about that evaluation.
    asked = _last_asked(trial.folder) if trial.is_left(retry_failed=True) else math.inf
    return [(step, trial.cell.trial_id, accuracy) for step, accuracy in mine if step <= asked or step < mine[-1][0]]


def _evaluations(trial: PlannedTrial) -> list[tuple[int, float]]:
    """(step, clean accuracy on validation after as many ACT steps as in training) of a trial's folder, by step."""
    table = trial_table(trial.folder, "evals")
    rows = table.select(["step", "split", "sigma", "depth", ACCURACY]).to_pylist()
    depth = trial.cell.config.model.halt_max_steps
    return sorted(
        (row["step"], row[ACCURACY])
        for row in rows
        if row["split"] == "validation" and row["sigma"] == 0 and row["depth"] == depth
    )

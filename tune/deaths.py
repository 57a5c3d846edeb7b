"""Workers that die: each death is a failure of its trial, and failures are counted between steps of progress."""

from typing import Any

from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.tune import Callback
from ray.tune.execution import tune_controller

OUT_OF_MEMORY = (
    "out of memory: its node was nearly full, and Ray killed its worker; let fewer trials run at a time "
    "(resources.cpu), raise train.shards, or give the node more memory"
)


class _ActorManager(RayActorManager):
    """Tune's, which ends the whole run at a death that Ray reports by another error than RayActorError."""

    def _actor_start_failed(self, tracked_actor: Any, exception: Exception) -> None:
        super()._actor_start_failed(tracked_actor, as_actor_error(exception))

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        super()._actor_task_failed(tracked_actor_task, as_actor_error(exception))


def as_actor_error(error: Exception) -> Exception:
    """What Tune starts a trial again after: an error of Ray's own, unless it is one that the trial raised."""
    if not isinstance(error, RayError) or isinstance(error, RayActorError | RayTaskError):
        return error
    return RayActorError(error_msg=death(error))


def death(error: RayError) -> str:
    """How a process of a trial died, in a line."""
    return (
        OUT_OF_MEMORY if isinstance(error, OutOfMemoryError) else f"its worker is lost: {str(error).split(chr(10))[0]}"
    )


def survive_deaths() -> None:
    """Let Tune, in this process, start a trial again whatever its worker died of."""
    tune_controller.RayActorManager = _ActorManager


class Attempts(Callback):
    """Lets a trial fail `max_failures` times between two saves that got further. Tune counts over its life."""

    def __init__(self) -> None:
        self._saved: dict[str, int] = {}  # trial id -> the furthest step that was saved

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Forget the failures before a save that got further."""
        trial_id, step = trial.config["trial_id"], result["saved_step"]
        if step > self._saved.setdefault(trial_id, step):
            self._saved[trial_id] = step
            trial.run_metadata.num_failures = 0

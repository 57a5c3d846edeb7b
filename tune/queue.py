"""The trials that a run has left, as Tune asks for them: one by one, each job by reference."""

from collections.abc import Iterable
from typing import Any

import ray
from ray.tune.search import Searcher

from tune.job import TrialJob


class TrialQueue(Searcher):
    """Hands out jobs in their order. Tune asks for one whenever fewer trials wait than may (`pending_trials`).

    A job itself would be copied again and again: Tune's grid_search copies all of them for each. A reference costs as
    much with 10,000 trials as with ten.
    """

    def __init__(self, jobs: Iterable[TrialJob]):
        super().__init__()
        self._jobs = iter(jobs)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The next trial's id, and a reference to its job."""
        job = next(self._jobs, None)
        return self.FINISHED if job is None else {"trial_id": job.trial_id, "job": ray.put(job.as_dict())}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing follows from it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is left stands in the trials' folders."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # likewise


def pending_trials(places: int) -> int:
    """How many trials wait in Tune at a time, for so many places: each of them asks Ray for one."""
    return min(200, max(8, places))

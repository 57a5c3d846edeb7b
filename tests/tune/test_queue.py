"""The queue of a run's trials: as much for the last of 10,000 as for the first."""

from collections.abc import Iterator
from dataclasses import asdict

import pytest
import ray
from tiny import tiny_config

from tune.job import TrialJob
from tune.queue import TrialQueue, pending_trials


@pytest.mark.usefixtures("local_ray")
def test_a_job_is_made_when_it_is_asked_for_and_goes_by_reference():
    config, made = tiny_config().model_dump(mode="json"), []

    def jobs() -> Iterator[TrialJob]:
        for seed in range(3):
            made.append(seed)
            yield TrialJob("baseline", seed, f"trial-{seed}", config, "/folder", 1, 60.0)

    queue = TrialQueue(jobs())
    for seed in range(3):
        suggested = queue.suggest("an id of Tune's")
        assert isinstance(suggested, dict)
        assert made == list(range(seed + 1))
        assert suggested.keys() == {"trial_id", "job"}
        assert suggested["trial_id"] == f"trial-{seed}"
        job = ray.get(suggested["job"])
        assert job == asdict(TrialJob("baseline", seed, f"trial-{seed}", config, "/folder", 1, 60.0))
        assert len(ray.cloudpickle.dumps(suggested)) < 400 < len(ray.cloudpickle.dumps(job)) / 2
    assert queue.suggest("another") == TrialQueue.FINISHED
    assert len(ray.cloudpickle.dumps(TrialQueue(iter([])))) < 200  # Tune writes it down again and again


@pytest.mark.parametrize(("places", "pending"), [(1, 8), (64, 64), (4000, 200)])
def test_as_many_wait_as_places_may_become_free_at_once(places, pending):
    assert pending_trials(places) == pending

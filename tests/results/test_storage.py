"""Who holds a lock, asked without touching it: in a folder and in a bucket."""

import threading
import time

import pytest
from filelock import FileLock
from holding import held_elsewhere

from results import storage
from results.schema import LOCK, trial_end
from results.storage import Location, is_held, location


@pytest.fixture(params=["folder", "s3"])
def trial(request, tmp_path) -> Location:
    """The folder of a trial that nobody has trained."""
    return tmp_path if request.param == "folder" else location(request.getfixturevalue("bucket")) / "trial"


def test_a_trial_runs_while_a_live_process_holds_its_lock(trial):
    assert not is_held(trial / LOCK)
    assert list(trial.glob("*")) == []  # asking makes no lock
    with held_elsewhere(trial / LOCK) as process:
        assert is_held(trial / LOCK)
        assert trial_end(trial, 1).status == "running"
        process.kill()
        process.wait()
        assert trial_end(trial, 1).status == "waiting"
    assert not is_held(trial / LOCK)


def test_a_claim_of_another_machine_counts_until_its_beats_are_old(bucket, monkeypatch):
    lock = location(bucket) / "trial" / LOCK
    (lock / "elsewhere:4711:abc").put(b"")
    assert is_held(lock)
    monkeypatch.setattr(storage, "STALE_SECONDS", 1.0)
    time.sleep(2.5)  # a bucket's times are whole seconds
    assert not is_held(lock)
    assert [path.name for path in lock.glob("*")] == ["elsewhere:4711:abc"]


def test_asking_again_and_again_keeps_nobody_from_the_lock(tmp_path):
    lock, ended = FileLock(tmp_path / LOCK), threading.Event()

    def ask() -> None:
        while not ended.is_set():
            is_held(tmp_path / LOCK)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(200):
            with lock.acquire(timeout=5):
                assert is_held(tmp_path / LOCK)
    finally:
        ended.set()
        asking.join()

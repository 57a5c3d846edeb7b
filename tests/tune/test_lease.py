"""The lease that stands for a file lock in a bucket: one holder, and none that is dead."""

import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from filelock import Timeout
from tiny import tiny_config

from results.storage import location
from tune import lease as lease_module
from tune.job import TrialJob
from tune.lease import Lease
from tune.trial import TrialBusyError, TrialRun


@pytest.fixture
def path(bucket):
    return location(bucket) / "sweep" / ".lock"


def test_one_holds_it_and_leaves_nothing_behind(path):
    first, second = Lease(path), Lease(path)
    first.acquire(timeout=0)
    assert first.is_locked
    with pytest.raises(Timeout):
        second.acquire(timeout=0)
    assert not second.is_locked
    first.release()
    second.acquire(timeout=0)
    assert list(path.glob("*")) == [second.claim]
    second.release()
    assert list(path.glob("*")) == []


def test_of_many_at_once_one_holds_it(path):
    leases = [Lease(path) for _ in range(8)]
    held: list[Lease] = []

    def claim(lease: Lease) -> None:
        try:
            lease.acquire(timeout=5)
        except Timeout:
            return
        held.append(lease)

    threads = [threading.Thread(target=claim, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    held[0].release()


def test_a_process_that_died_on_this_machine_holds_nothing(path):
    script = f"""
import os
from results.storage import location
from tune.lease import Lease
Lease(location({str(path)!r})).acquire(timeout=0)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert len(list(path.glob("*"))) == 1
    lease = Lease(path)
    lease.acquire(timeout=0)
    lease.release()


def test_a_claim_of_another_machine_ends_when_its_beats_do(path, monkeypatch):
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 2.0)
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.2)
    (path / "elsewhere:4711:abc").put(b"")
    started = time.monotonic()
    waiting = Lease(path)
    with pytest.raises(Timeout):
        waiting.acquire(timeout=0)
    waiting.acquire(timeout=30)
    assert time.monotonic() - started > 1
    other = Lease(path)  # the beats keep it
    with pytest.raises(Timeout):
        other.acquire(timeout=4)
    assert waiting.is_locked
    waiting.release()


def test_a_holder_that_stood_still_saves_nothing_more(bucket, monkeypatch):
    folder = location(bucket) / "sweep" / "trials" / "trial"
    config = tiny_config()
    job = TrialJob("baseline", 0, config.trial_id(), config.model_dump(mode="json"), str(folder), 1, 1e-9)
    run = TrialRun(job, torch.device("cpu"))
    run.advance(seconds=0.0)
    monkeypatch.setattr("tune.trial.LOCK_SECONDS", 0.1)
    with pytest.raises(TrialBusyError, match=f"another process is training this trial .process {os.getpid()} on "):
        TrialRun(job, torch.device("cpu"))
    before = {path: path.read_bytes() for path in folder.glob("*")}
    monkeypatch.setattr(lease_module, "STALE_SECONDS", lease_module.BEAT_SECONDS)
    with pytest.raises(TrialBusyError, match="this process stood still too long"):
        run.advance(seconds=0.0)
    run.close()
    assert {path: path.read_bytes() for path in folder.glob("*")} == before

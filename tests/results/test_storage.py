"""Who holds a lock, asked without touching it: in a folder and in a bucket."""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock
from holding import held_elsewhere

from results import locks
from results.locks import is_held, this_process
from results.schema import LOCK
from results.storage import Location, copy, location, remove_leftovers, write_atomically
from results.trial_files import trial_end


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
    claim = json.dumps(this_process() | {"pid": 4711, "host": "elsewhere", "fence": 3}).encode()
    lock.put(claim)
    assert is_held(lock)
    monkeypatch.setattr(locks, "STALE_SECONDS", 1.0)
    time.sleep(2.5)  # a bucket's times are whole seconds
    assert not is_held(lock)
    assert lock.read_bytes() == claim


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"fence": "x"}', b'{"pid": "x"}'])
def test_an_object_that_is_no_claim_counts_as_long_as_one(bucket, content, monkeypatch):
    lock = location(bucket) / "trial" / LOCK
    lock.put(content)
    assert is_held(lock)
    monkeypatch.setattr(locks, "STALE_SECONDS", -1.0)
    assert not is_held(lock)


def test_writers_of_one_number_do_not_meet(tmp_path, monkeypatch):
    """Two containers on one folder: each has a process 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(os, "fsync", lambda _: time.sleep(0.001))
    contents = [bytes([number]) * 1000 for number in range(8)]

    def write(content: bytes) -> None:
        for _ in range(20):
            write_atomically(tmp_path / "table", content)
            copy(tmp_path / "table", tmp_path / "copied")
            assert (tmp_path / "table").read_bytes() in contents

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write, contents))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copied", "table"]


def test_what_killed_writers_left_is_removed_after_a_day(tmp_path):
    for name, age in ((".old.1.tmp", 25), (".new.2.tmp", 1), ("kept.tmp", 25), (".kept", 25)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, time.time() - age * 3600))
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".kept", ".new.2.tmp", "kept.tmp"]


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

"""Puzzles in a bucket: fetched once a node, the same trial as from a folder; a node without them says so."""

import os
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest
import torch
from tiny import tiny_config, tiny_sweep, write_spec

from launch.cli import main
from results.storage import location
from rrm.puzzles import remote
from rrm.puzzles.formats import DataError
from rrm.puzzles.remote import local_copy, local_file
from tune.job import TrialJob
from tune.spec import load_sweep
from tune.trial import TrialRun


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RRM_CACHE", str(tmp_path / "cache"))
    remote.local_copy.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def puzzles(tmp_path) -> Path:
    """A data set of 4x4 Sudoku: CSV files, and the same as processed arrays."""
    csv = tmp_path / "csv"
    sizes = ["--train", "40", "--test", "40", "--blanks", "6"]
    assert main(["data", "generate", str(csv), "--sudoku", "2", *sizes]) == 0
    assert main(["data", "build", str(csv), str(tmp_path / "processed")]) == 0
    return tmp_path


def upload(folder: Path, url: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            (location(url) / path.relative_to(folder).as_posix()).put(path.read_bytes())


def put_as_it_is(bucket: str, key: str) -> None:
    """Put an object without a client, which would mend the key."""
    connection = HTTPConnection(os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"))
    connection.request("PUT", f"/{bucket.removeprefix('s3://')}/{key}", b"x")
    assert connection.getresponse().status == 200


def ids(tmp_path, **task) -> list[str]:
    files = {"box": 2, "generate": None} | task
    return list(load_sweep(write_spec(tmp_path, tiny_sweep(base={"task": files}))).trials)


def test_a_trial_is_the_same_wherever_its_puzzles_are(tmp_path, puzzles, bucket, cache, capsys):
    upload(puzzles / "csv", f"{bucket}/csv")
    upload(puzzles / "processed", f"{bucket}/processed")
    here = ids(tmp_path, train=str(puzzles / "csv" / "train.csv"), test=str(puzzles / "csv" / "test.csv"))
    assert ids(tmp_path, train=f"{bucket}/csv/train.csv", test=f"{bucket}/csv/test.csv") == here
    assert ids(tmp_path, data=f"{bucket}/csv") == here
    assert ids(tmp_path, data=f"{bucket}/processed") == ids(tmp_path, data=str(puzzles / "processed"))
    assert len(list(cache.iterdir())) == 4  # two files, two folders
    fetched = {path: path.stat().st_mtime_ns for path in cache.rglob("*.csv")}
    local_copy.cache_clear()
    assert ids(tmp_path, data=f"{bucket}/csv") == here
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.csv")} == fetched

    task = {"box": 2, "generate": None, "data": f"{bucket}/csv"}
    spec = write_spec(tmp_path, tiny_sweep(base={"task": task}, storage=f"{bucket}/runs"))
    assert main(["train", spec, "--arm", "baseline", "--seed", "0"]) == 0
    capsys.readouterr()
    assert main(["plan", spec, "--set", f"base.task.data={bucket}/nowhere"]) == 2
    assert f"base.task.data: {bucket}/nowhere: cannot be fetched (no such object)" in capsys.readouterr().err


def test_a_bucket_that_is_busy_is_asked_again(bucket, cache, throttle):
    target = location(bucket) / "train.csv"
    target.put(b"content")
    for fetch in (local_copy, lambda url: local_file(url, ("config.yaml",))):
        throttle.share = 1.0
        timer = threading.Timer(4.0, lambda: setattr(throttle, "share", 0.0))  # longer than three attempts
        timer.start()
        assert fetch(str(target)).read_bytes() == b"content"
        assert throttle.share == 0.0
        timer.join()


def test_what_a_fetch_that_was_killed_has_left_is_removed_a_day_later(bucket, cache):
    ages = {".fetching-old": 25, ".fetching-new": 23, ".of-its-owner": 1000}
    for name, hours in ages.items():
        (cache / name).mkdir(parents=True)
        (cache / name / "puzzles.csv").touch()
        os.utime(cache / name, times=(time.time() - hours * 3600,) * 2)
    (location(bucket) / "train.csv").put(b"one")
    copied = local_copy(f"{bucket}/train.csv").parent
    assert {path.name for path in cache.iterdir()} == {".fetching-new", ".of-its-owner", copied.name}


def test_another_content_at_the_same_url_is_another_copy(bucket, cache):
    target = location(bucket) / "train.csv"
    target.put(b"one")
    first = local_copy(str(target))
    local_copy.cache_clear()
    target.put(b"two")
    assert (first.read_bytes(), local_copy(str(target)).read_bytes()) == (b"one", b"two")


def test_many_processes_fetch_at_once(bucket, cache):
    target = location(bucket) / "train.csv"
    target.put(b"x" * 10**6)
    script = f"from rrm.puzzles.remote import local_copy; print(len(local_copy({str(target)!r}).read_bytes()))"
    processes = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[0].strip() for process in processes] == [str(10**6)] * 4
    assert len(list(cache.iterdir())) == 1


def test_a_node_without_the_files_says_so_before_it_trains(puzzles, tmp_path, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "node-7")
    train, test = puzzles / "csv" / "train.csv", puzzles / "csv" / "test.csv"
    config = tiny_config(task={"generate": None, "train": str(train), "test": str(test)})
    job = TrialJob("a", 0, config.trial_id(), config.model_dump(mode="json"), str(tmp_path / "trial"), 1, 60)
    test.unlink()
    with pytest.raises(DataError, match=f"node node-7: {test}: No such file or directory"):
        TrialRun(job, torch.device("cpu"))
    test.write_text(train.read_text())
    with pytest.raises(DataError, match="node node-7: "):
        TrialRun(job, torch.device("cpu"))


@pytest.mark.parametrize("key", ["../../../PWNED", "train/../../PWNED", "/etc/PWNED", "./train.csv", "test//x"])
def test_a_key_that_leads_out_of_the_folder_is_refused_by_name(key, puzzles, bucket, cache, tmp_path, capsys):
    upload(puzzles / "csv", f"{bucket}/p/q/r")
    url = f"{bucket}/p/q/r"
    for name in (f"p/q/r/{key}", "PWNED", "p/PWNED"):
        put_as_it_is(bucket, name)
    task = {"box": 2, "generate": None, "data": url}
    assert main(["plan", write_spec(tmp_path, tiny_sweep(base={"task": task}))]) == 2
    assert f"{url}: cannot be fetched (the key {key!r} below it " in capsys.readouterr().err
    assert not cache.exists()
    assert [path.name for path in tmp_path.rglob("*PWNED*")] == []


def test_only_what_a_data_set_needs_is_fetched_to_places_of_our_own_naming(puzzles, bucket, cache, tmp_path):
    upload(puzzles / "processed", f"{bucket}/data")
    for name in ("notes.txt", "train/notes.txt", "train/deeper/dataset.json", "secret.pt"):
        (location(bucket) / f"data/{name}").put(b"x")
    upload(puzzles / "csv", bucket)
    (location(bucket) / "~ [x].csv").put((puzzles / "csv" / "train.csv").read_bytes())
    here = ids(tmp_path, train=str(puzzles / "csv" / "train.csv"), test=str(puzzles / "csv" / "test.csv"))
    assert ids(tmp_path, data=f"{bucket}/data") == ids(tmp_path, data=str(puzzles / "processed"))
    assert ids(tmp_path, train=f"{bucket}/~ [x].csv", test=f"{bucket}/test.csv") == here
    (folder,) = (path for path in cache.iterdir() if (path / "train").is_dir())
    fetched = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    built = {path.relative_to(puzzles / "processed").as_posix() for path in (puzzles / "processed").rglob("*.*")}
    assert fetched == built - {"identifiers.json"}

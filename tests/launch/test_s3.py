"""A sweep in a bucket: the same files and bits as in a folder; what is wrong with a bucket is one message."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pandas as pd
import pytest
from tiny import TIMES, tiny_sweep, write_spec

from launch.cli import main
from results import patience, versioned
from results.gather import gather
from results.patience import StorageError
from results.storage import S3Path, location
from tune.spec import load_sweep

CLI = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Tune's own files go to the home folder when the trials are in a bucket."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def objects(sweep) -> dict[str, float]:
    """Every object of the trials and when it was written."""
    folders = [sweep.folder / "trials" / trial_id for trial_id in sweep.trials]
    return {f"{folder.name}/{name}": at for folder in folders for name, at in folder.ages().items()}


def final_bytes(folder, sweep) -> list[bytes]:
    names = ("final.pt", "best.pt", "evals.parquet")
    return [(folder / "trials" / trial_id / name).read_bytes() for trial_id in sweep.trials for name in names]


@pytest.mark.usefixtures("local_ray")
def test_a_sweep_in_a_bucket_is_the_sweep_in_a_folder(tmp_path, bucket, home, capsys):
    in_folder = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), seeds=[0]), "folder.yaml")
    in_bucket = write_spec(tmp_path, tiny_sweep(storage=f"{bucket}/runs", seeds=[0]), "bucket.yaml")
    for spec, arm in ((in_folder, "baseline"), (in_folder, "multi2"), (in_bucket, "baseline")):
        assert main(["train", spec, "--arm", arm, "--seed", "0"]) == 0
    assert main(["run", in_bucket]) == 0
    sweep, other = load_sweep(in_bucket), load_sweep(in_folder)
    assert str(sweep.folder) == f"{bucket}/runs/tiny"
    assert final_bytes(sweep.folder, sweep) == final_bytes(other.folder, sweep)
    here = {path.relative_to(other.folder / "trials").as_posix() for path in (other.folder / "trials").glob("*/*")}
    before = objects(sweep)
    assert set(before) == here
    assert list((home / "ray_results" / bucket.removeprefix("s3://") / "runs" / "tiny").glob("*/log.txt"))

    capsys.readouterr()
    assert main(["run", in_bucket]) == 0
    assert main(["plan", in_bucket]) == 0
    assert main(["results", "show", in_bucket]) == 0
    printed = capsys.readouterr().out
    assert "2 trials, 0 would be trained" in printed
    assert f"{bucket}/runs/tables/comparison/sweep=tiny/comparison.parquet" in printed
    assert objects(sweep) == before
    tables = (gather(at).comparison.drop(columns=TIMES) for at in (sweep.folder, other.folder))
    pd.testing.assert_frame_equal(*tables)


def test_a_run_whose_worker_and_then_driver_are_killed_in_a_bucket_goes_on_and_a_second_is_refused(
    tmp_path, bucket, local_ray, capsys
):
    raw = tiny_sweep(storage=bucket, base={"train": {"steps": 240}, "eval": {"every": 30}}, seeds=[0])
    del raw["arms"]["baseline"]
    spec = write_spec(tmp_path, raw | {"baseline": "multi2"})
    sweep = load_sweep(spec)
    env = os.environ | {"RAY_ADDRESS": local_ray.address}
    first = subprocess.Popen([*CLI, "run", spec], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    until = time.monotonic() + 120
    while not any(name.endswith("previous_state.pt") for name in objects(sweep)):
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.3)
    assert main(["run", spec]) == 2
    assert f"already being run by process {first.pid} on " in capsys.readouterr().err
    (trial,) = (folder for trial_id in sweep.trials if (folder := sweep.folder / "trials" / trial_id).ages())
    (attempt,) = json.loads((trial / "trial.json").read_bytes())["attempts"]
    os.kill(attempt["pid"], signal.SIGKILL)
    while len(json.loads((trial / "trial.json").read_bytes())["attempts"]) == 1:
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.3)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert main(["run", spec]) == 0
    whole = tmp_path / "whole"
    assert main(["train", spec, "--arm", "multi2", "--seed", "0", "--set", f"storage={whole}"]) == 0
    assert final_bytes(sweep.folder, sweep) == final_bytes(whole / "tiny", sweep)
    assert len(json.loads((trial / "trial.json").read_bytes())["attempts"]) == 3


@pytest.fixture
def outage(throttle, s3_server, monkeypatch) -> Iterator[Any]:
    """Stops the server once a trial has saved something."""
    monkeypatch.setattr(patience, "LONGEST_PAUSE_SECONDS", 0.5)
    stopping = threading.Thread(target=s3_server.stop)

    def stop(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/latest_state.pt") and stopping.ident is None:
            stopping.start()

    throttle.before = stop
    yield stopping
    if not s3_server._thread.is_alive():
        s3_server.start()


TRAIN = ["--arm", "multi2", "--seed", "0"]


def test_a_server_that_goes_away_costs_nothing_but_time(tmp_path, bucket, s3_server, outage):
    spec = write_spec(tmp_path, tiny_sweep(storage=bucket, seeds=[0]))
    trial = next(cell.trial_id for cell in load_sweep(spec).cells if cell.arm == "multi2")
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(main, ["train", spec, *TRAIN])
        while outage.ident is None or outage.is_alive():
            time.sleep(0.1)
        assert not wait([training], timeout=4).done  # it waits
        s3_server.start()
        assert training.result() == 0
    whole = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "whole")), "whole.yaml")
    assert main(["train", whole, *TRAIN]) == 0
    folders = location(bucket) / "tiny" / "trials" / trial, tmp_path / "whole" / "tiny" / "trials" / trial
    assert (folders[0] / "final.pt").read_bytes() == (folders[1] / "final.pt").read_bytes()


@pytest.mark.usefixtures("outage")
def test_a_server_that_does_not_come_back_is_said_after_minutes(tmp_path, bucket, capsys, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1.0)
    spec = write_spec(tmp_path, tiny_sweep(storage=bucket, seeds=[0]))
    for command, code in ((["train", spec, *TRAIN], 3), (["plan", spec], 2)):
        assert main(command) == code
        error = capsys.readouterr().err
        assert "S3 cannot be reached; see AWS_ENDPOINT_URL and the network" in error
        assert f"{bucket}/tiny/" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("read", [S3Path.read_bytes, versioned.read, versioned.version_of])
def test_a_server_that_was_never_there_is_said_at_once(read, s3_environment, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageError, match="S3 cannot be reached; see AWS_ENDPOINT_URL and the network"):
        read(S3Path("bucket/name"))


def test_what_is_wrong_with_a_bucket_is_one_message(tmp_path, bucket, capsys, monkeypatch):
    nowhere = write_spec(tmp_path, tiny_sweep(storage="s3://nowhere/runs"), "nowhere.yaml")
    refused = write_spec(tmp_path, tiny_sweep(storage=f"{bucket}/runs"), "refused.yaml")
    assert main(["run", nowhere]) == 2
    error = capsys.readouterr().err
    assert error.startswith("s3://nowhere/runs/tiny/")
    assert error.endswith(": there is no such bucket; make it, or mend the name\n")
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on it checks who asks
    for command in (["run"], ["plan"], ["results", "show"], ["train", "--arm=multi2", "--seed=0"]):
        assert main([*command, refused]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"{bucket}/runs/tiny")
        assert "these credentials; see AWS_ACCESS_KEY_ID" in error
        assert error.count("\n") == 1

"""SIGKILL of a trial's worker, the driver, a node, the whole cluster: the sweep ends as if nothing had been killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny import TIMES, tiny_sweep, write_spec

import results
from launch.cli import main
from results.schema import EVALS_SCHEMA, read_table
from rrm import checkpoint

LONG: dict[str, Any] = {"train": {"steps": 400}, "eval": {"every": 20}}


def sweep_in(folder: Path) -> tuple[str, Path]:
    """The path of a sweep file that stores in `folder`, and where its trials will be."""
    folder.mkdir()
    spec = write_spec(folder, tiny_sweep(storage=str(folder / "runs"), base=LONG, seeds=[0]))
    return spec, folder / "runs" / "tiny" / "trials"


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    spec, trials = sweep_in(tmp_path_factory.mktemp("unbroken") / "here")
    for arm in ("baseline", "multi2"):
        assert main(["train", spec, "--arm", arm, "--seed", "0"]) == 0
    assert main(["results", "gather", spec]) == 0
    return trials


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A real cluster on this machine: a head that trains nothing, and one node."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    yield cluster
    cluster.shutdown()


def start(spec: str, address: str, log: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())", "run", spec]
    environment = os.environ | {"RAY_ADDRESS": address}
    with open(log, "w") as out:  # no pipe: Ray's own processes would hold it open for a while
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)


def attempts(trial: Path) -> list[dict[str, Any]]:
    return json.loads((trial / "trial.json").read_text())["attempts"]


def wait_for_saves(trials: Path, process: subprocess.Popen, log: Path) -> Path:
    """Until a trial has trained some, and has more to train: its folder."""
    until = time.monotonic() + 150
    while time.monotonic() < until:
        for path in trials.glob("*/evals.parquet"):
            saved = max(read_table(path, EVALS_SCHEMA).column("step").to_pylist())
            if 20 <= saved < LONG["train"]["steps"] - 40:
                return path.parent
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    raise AssertionError("no trial has saved")


@pytest.mark.parametrize("killed", ["worker", "driver", "node", "cluster"])
def test_a_kill_changes_nothing(killed, tmp_path, unbroken, cluster):
    spec, trials = sweep_in(tmp_path / "killed")
    log = tmp_path / "log"
    process = start(spec, cluster.address, log)
    victim = wait_for_saves(trials, process, log)
    before = len(attempts(victim))
    if killed == "worker":
        os.kill(attempts(victim)[-1]["pid"], signal.SIGKILL)
    elif killed == "node":
        node = next(iter(cluster.worker_nodes))
        cluster.add_node(num_cpus=2)
        cluster.remove_node(node, allow_graceful=False)
    else:
        process.kill()
        process.wait()
        if killed == "cluster":
            for node in cluster.list_all_nodes():
                node.kill_all_processes(check_alive=False, allow_graceful=False)
        process = start(spec, cluster.address if killed == "driver" else "local", log)
    assert process.wait(timeout=200) == 0, log.read_text()
    assert len(attempts(victim)) == before + 1
    if killed in ("worker", "node"):
        died = r"worker process has died \([a-z, ]+\)|node has died|worker, or its node, cannot be reached"
        assert re.search(rf"seed=0: its ({died}); starting it again from its folder\n", log.read_text())
    for ours in trials.iterdir():
        theirs = unbroken / ours.name
        for name in ("final.pt", "best.pt"):
            a, b = checkpoint.load(ours / name), checkpoint.load(theirs / name)
            assert all(torch.equal(a[key], b[key]) for key in a | b), f"{ours.name}/{name}"
        assert (ours / "evals.parquet").read_bytes() == (theirs / "evals.parquet").read_bytes()
    tables = [results.load("comparison", folder.parents[1]) for folder in (trials, unbroken)]
    pd.testing.assert_frame_equal(*(table.drop(columns=TIMES) for table in tables))

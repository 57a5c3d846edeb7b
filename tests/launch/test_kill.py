"""SIGKILL of a trial's worker, a node, the driver, the whole cluster: the sweep ends as if nothing had been killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny import TIMES, tiny_sweep, write_spec

import results
from launch.cli import main
from results.schema import EVALS_SCHEMA
from results.trial_files import read_table
from rrm import checkpoint

LONG: dict[str, Any] = {"train": {"steps": 320}, "eval": {"every": 20}}


# A process of its own: one that has seen a head's GCS ends a minute after it, whatever else it does.
CLUSTER = """
from ray.cluster_utils import Cluster

input()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})  # trains nothing
first = cluster.add_node(num_cpus=1)  # a trial at a time
print(cluster.address, flush=True)
input()
cluster.add_node(num_cpus=1)
cluster.remove_node(first, allow_graceful=False)
print("another node", flush=True)
input()
for node in cluster.list_all_nodes():
    node.kill_all_processes(check_alive=False, allow_graceful=False)
print("no node", flush=True)
"""


def sweep_in(folder: Path) -> tuple[str, Path]:
    """The path of a sweep file that stores in `folder`, and where its trials will be."""
    folder.mkdir()
    spec = write_spec(folder, tiny_sweep(storage=str(folder / "runs"), base=LONG, seeds=[0]))
    return spec, folder / "runs" / "tiny" / "trials"


@pytest.fixture
def cluster() -> Iterator[subprocess.Popen]:
    """A process that does with a real cluster what its lines say; it prints the address first."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def tell(cluster: subprocess.Popen, what: str) -> str:
    """Its answer, a line."""
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    cluster.stdin.write(f"{what}\n")
    cluster.stdin.flush()
    return cluster.stdout.readline().strip()


def start(spec: str, address: str, log: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())", "run", spec]
    environment = os.environ | {"RAY_ADDRESS": address}
    with open(log, "w") as out:  # no pipe: Ray's own processes would hold it open for a while
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)


def attempts(trial: Path) -> list[dict[str, Any]]:
    return json.loads((trial / "trial.json").read_text())["attempts"]


def saved_steps(trials: Path) -> dict[Path, int]:
    """The step of each trial's last evaluation."""
    tables = {path.parent: read_table(path, EVALS_SCHEMA) for path in trials.glob("*/evals.parquet")}
    return {trial: max(table.column("step").to_pylist()) for trial, table in tables.items()}


def wait_for(condition: Callable[[], Any], process: subprocess.Popen, log: Path) -> Any:
    """The condition's first value that is true, while the process runs."""
    until = time.monotonic() + 150
    while not (value := condition()):
        assert process.poll() in (None, -signal.SIGKILL), log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)
    return value


def wait_for_saves(trials: Path, process: subprocess.Popen, log: Path) -> Path:
    """Until a trial has trained some more, and has more to train: its folder."""
    before = saved_steps(trials)

    def trained() -> Path | None:
        steps, last = saved_steps(trials), LONG["train"]["steps"] - 40
        return next((trial for trial, step in steps.items() if before.get(trial, 0) < step < last), None)

    return wait_for(trained, process, log)


def wait_for_attempt(trial: Path, number: int, process: subprocess.Popen, log: Path) -> None:
    """Until a trial is taken up again, once."""
    assert wait_for(lambda: len(attempts(trial)) >= number, process, log)
    assert len(attempts(trial)) == number


@pytest.mark.usefixtures("local_ray")  # on which the run ends whose cluster is killed
def test_kills_change_nothing(tmp_path, cluster):
    """Of a worker, a node, the driver and the whole cluster, one after the other in one sweep."""
    spec, trials = sweep_in(tmp_path / "killed")
    log = tmp_path / "log"
    died = r"worker process has died \([a-z, ]+\)|node has died|worker, or its node, cannot be reached"
    address = tell(cluster, "start")
    process = start(spec, address, log)
    for killed in ("worker", "node", "driver", "cluster"):
        victim = wait_for_saves(trials, process, log)
        before = attempts(victim)
        if killed == "worker":
            os.kill(before[-1]["pid"], signal.SIGKILL)
        elif killed == "node":
            assert tell(cluster, "replace the node") == "another node"
        elif killed == "driver":
            process.kill()
            process.wait()
            again = re.findall(rf"seed=0: its ({died}); starting it again from its folder\n", log.read_text())
            assert len(again) >= 2  # after the worker, after the node
            process = start(spec, address, log)
        else:
            process.kill()
            process.wait()
            assert tell(cluster, "end") == "no node"
            assert main(["run", spec]) == 0
        wait_for_attempt(victim, len(before) + 1, process, log)

    spec, unbroken = sweep_in(tmp_path / "unbroken")
    for arm in ("baseline", "multi2"):
        assert main(["train", spec, "--arm", arm, "--seed", "0"]) == 0
    assert main(["results", "gather", spec]) == 0
    for ours in trials.iterdir():
        theirs = unbroken / ours.name
        for name in ("final.pt", "best.pt"):
            a, b = checkpoint.load(ours / name), checkpoint.load(theirs / name)
            assert all(torch.equal(a[key], b[key]) for key in a | b), f"{ours.name}/{name}"
        assert (ours / "evals.parquet").read_bytes() == (theirs / "evals.parquet").read_bytes()
    tables = [results.load("comparison", folder.parents[1]) for folder in (trials, unbroken)]
    pd.testing.assert_frame_equal(*(table.drop(columns=TIMES) for table in tables))

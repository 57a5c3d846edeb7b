"""SIGKILL of any worker of a trial that has two, and of the node of one: noticed at once, and the same bits at the end.

The cluster has two nodes of a core each, so that each trial's workers are on both.
"""

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

import pytest
import torch
from tiny import MULTI, tiny_sweep, write_spec

from launch.cli import main
from results.schema import EVALS_SCHEMA
from results.trial_files import read_table
from rrm import checkpoint

STEPS = 320
LONG: dict[str, Any] = {"train": {"steps": STEPS, "shards": 2}, "eval": {"every": 20}, **MULTI}
NOTICED_SECONDS = 10.0


def sweep_in(folder: Path, **changes: Any) -> tuple[str, Path]:
    """The path of a sweep file that stores in `folder`, and where its trial will be."""
    folder.mkdir()
    spec = tiny_sweep(storage=str(folder / "runs"), base=LONG, seeds=[0], save_seconds=0.2, **changes)
    spec |= {"arms": {"serial": {"rollout": "serial_act"}}, "baseline": "serial"}
    return write_spec(folder, spec), folder / "runs" / "tiny" / "trials"


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    spec, trials = sweep_in(tmp_path_factory.mktemp("unbroken") / "here")
    assert main(["train", spec, "--arm", "serial", "--seed", "0"]) == 0
    return next(trials.iterdir())


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Any, Any]]:
    """A cluster, and one of its two nodes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    node, _ = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    yield cluster, node
    cluster.shutdown()


def attempts(trials: Path) -> list[dict[str, Any]]:
    """Those of the one trial, none as long as it has not started."""
    return [attempt for path in trials.glob("*/trial.json") for attempt in json.loads(path.read_text())["attempts"]]


def wait_for_step(trials: Path, step: int, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 150
    while time.monotonic() < until:
        for path in trials.glob("*/evals.parquet"):
            if max(read_table(path, EVALS_SCHEMA).column("step").to_pylist()) >= step:
                return
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"no trial has come to step {step}")


def test_kills_of_workers_and_of_a_node_change_nothing(tmp_path, unbroken, cluster):
    cluster, node = cluster
    spec, trials = sweep_in(tmp_path / "killed", resources={"workers": 2}, max_failures=5)
    log = tmp_path / "log"
    command = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())", "run", spec]
    with open(log, "w") as out:  # no pipe: Ray's own processes would hold it open for a while
        environment = os.environ | {"RAY_ADDRESS": cluster.address}
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    for kill, (step, victim) in enumerate([(20, "worker 1"), (60, "worker 0"), (100, "node")], 1):
        if victim == "node":
            cluster.add_node(num_cpus=1)
        wait_for_step(trials, step, process, log)
        workers = attempts(trials)[-1]["workers"]
        assert len({worker["pid"] for worker in workers}) == 2
        said, killed_at = log.read_text().count("starting it again"), time.monotonic()
        if victim == "node":
            cluster.remove_node(node, allow_graceful=False)
        else:
            os.kill(workers[int(victim[-1])]["pid"], signal.SIGKILL)
        while log.read_text().count("starting it again") == said:
            assert time.monotonic() - killed_at < (60 if victim == "node" else NOTICED_SECONDS), log.read_text()
            time.sleep(0.05)
        while len(attempts(trials)) == kill:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
    assert process.wait(timeout=200) == 0, log.read_text()
    said = log.read_text()
    assert re.search(r"serial seed=0: worker 1 of 2 is gone: its process, or its node, has died; starting it ag", said)
    assert len(attempts(trials)) == 4
    (ours,) = trials.iterdir()
    for name in ("final.pt", "best.pt"):
        a, b = checkpoint.load(ours / name), checkpoint.load(unbroken / name)
        assert all(torch.equal(a[key], b[key]) for key in a | b), name
    for table in ("evals", "unrolls"):
        assert (ours / f"{table}.parquet").read_bytes() == (unbroken / f"{table}.parquet").read_bytes()

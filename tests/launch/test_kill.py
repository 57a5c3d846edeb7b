"""SIGKILL of a worker, a node, the driver, the whole cluster: noticed at once, and the same bits at the end.

The trial has two workers, on the two nodes of a cluster; what the cluster leaves is finished by one.
"""

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

import pytest
import torch
from tiny import MULTI, tiny_sweep, write_spec

from launch.cli import main
from results.schema import EVALS_SCHEMA
from results.trial_files import read_table
from rrm import checkpoint

EVERY, STEPS = 10, 360
LONG: dict[str, Any] = {"train": {"steps": STEPS, "shards": 2}, "eval": {"every": EVERY}, **MULTI}
NOTICED_SECONDS = 10.0
AGAIN = "starting it again from its folder"

# A process of its own: one that has seen a head's GCS ends a minute after it, whatever else it does.
CLUSTER = """
from ray.cluster_utils import Cluster

input()
quiet = {"include_log_monitor": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False} | quiet)
second = cluster.add_node(num_cpus=1, **quiet)
print(cluster.address, flush=True)
input()
cluster.add_node(num_cpus=1, **quiet)
print("another node", flush=True)
input()
cluster.remove_node(second, allow_graceful=False)
print("the second is gone", flush=True)
input()
for node in cluster.list_all_nodes():
    node.kill_all_processes(check_alive=False, allow_graceful=False)
print("no node", flush=True)
"""


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


def sweep_in(folder: Path, **changes: Any) -> tuple[str, Path]:
    """The path of a sweep file that stores in `folder`, and where its trial will be."""
    folder.mkdir()
    spec = tiny_sweep(storage=str(folder / "runs"), base=LONG, seeds=[0], save_seconds=0.2, **changes)
    spec |= {"arms": {"serial": {"rollout": "serial_act"}}, "baseline": "serial"}
    return write_spec(folder, spec), folder / "runs" / "tiny" / "trials"


def start(spec: str, address: str, log: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())", "run", spec]
    with open(log, "a") as out:  # no pipe: Ray's own processes would hold it open for a while
        return subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | {"RAY_ADDRESS": address})


def attempts(trials: Path) -> list[dict[str, Any]]:
    """Those of the one trial, none as long as it has not started."""
    return [attempt for path in trials.glob("*/trial.json") for attempt in json.loads(path.read_text())["attempts"]]


def evaluated_step(trials: Path) -> int:
    """The step of the one trial's last evaluation."""
    tables = [read_table(path, EVALS_SCHEMA) for path in trials.glob("*/evals.parquet")]
    return max((step for table in tables for step in table.column("step").to_pylist()), default=0)


def wait_for(condition: Callable[[], Any], process: subprocess.Popen, log: Path, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)


@pytest.mark.usefixtures("local_ray")  # on which the run ends whose cluster is killed
def test_kills_change_nothing(tmp_path, cluster):
    """Of either worker, a node, the driver and the whole cluster, one after the other."""
    spec, trials = sweep_in(tmp_path / "killed", resources={"workers": 2})
    log = tmp_path / "log"
    address = tell(cluster, "start")
    process = start(spec, address, log)
    for kill, victim in enumerate(("worker 1", "worker 0", "node", "driver", "cluster"), 1):
        if victim == "node":
            assert tell(cluster, "add a node") == "another node"
        before = evaluated_step(trials)
        wait_for(lambda before=before: evaluated_step(trials) > before, process, log)
        workers = attempts(trials)[-1]["workers"]
        assert len({worker["pid"] for worker in workers}) == 2
        said, killed_at = log.read_text().count(AGAIN), time.monotonic()
        if victim == "node":
            assert tell(cluster, "remove the second") == "the second is gone"
        elif victim.startswith("worker"):
            os.kill(workers[int(victim[-1])]["pid"], signal.SIGKILL)
        else:
            process.kill()
            process.wait()
        if victim == "driver":
            process = start(spec, address, log)
        elif victim == "cluster":
            assert tell(cluster, "end") == "no node"
            assert main(["run", spec, "--set", "resources={workers: 1}"]) == 0
            break
        else:
            wait_for(lambda said=said: log.read_text().count(AGAIN) > said, process, log)
            assert time.monotonic() - killed_at < NOTICED_SECONDS
        wait_for(lambda kill=kill: len(attempts(trials)) > kill, process, log)
    assert len(attempts(trials)) == 6
    lost = "worker 1 of 2 is gone: its process, or its node, has died"
    died = rf"its (worker process has died \([a-z, ]+\)|node has died|worker, or its node, cannot be reached)|{lost}"
    assert len(re.findall(rf"serial seed=0: ({died}); {AGAIN}\n", log.read_text())) == 3
    assert f"{lost}; {AGAIN}\n" in log.read_text()

    whole, unbroken = sweep_in(tmp_path / "unbroken")
    assert main(["train", whole, "--arm", "serial", "--seed", "0"]) == 0
    (ours,), (theirs,) = trials.iterdir(), unbroken.iterdir()
    assert ours.name == theirs.name
    for name in ("final.pt", "best.pt"):
        a, b = checkpoint.load(ours / name), checkpoint.load(theirs / name)
        assert all(torch.equal(a[key], b[key]) for key in a | b), name
    for table in ("evals", "unrolls"):
        assert (ours / f"{table}.parquet").read_bytes() == (theirs / f"{table}.parquet").read_bytes()

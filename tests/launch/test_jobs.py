"""A sweep as a Ray job on a real cluster with token authentication: submit, watch, stop, submit again."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from logs import tensorboard_scalars, wandb_history
from tiny import tiny_sweep, write_spec

from results.schema import EVALS_SCHEMA, read_table
from rrm import checkpoint

EVERY = 200
SECRET = "a-secret-that-nobody-prints"


@dataclass
class Cluster:
    """A Ray head on loopback, and how a client reaches it."""

    url: str
    metrics: str
    env: dict[str, str]

    def rrm(self, *arguments: str, **env: str) -> subprocess.CompletedProcess:
        """Run a command as a user does who has the token."""
        command = [sys.executable, "-m", "launch.cli", *arguments]
        return subprocess.run(command, env=self.env | env, capture_output=True, text=True, timeout=240, check=False)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    log = tmp_path_factory.mktemp("head") / "log"
    head, dashboard, metrics, client = free_ports(4)
    temporary = tempfile.mkdtemp(prefix="rrm", dir="/tmp")  # short: Ray's sockets are in it
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # a job's `python` is that of the cluster
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        env.pop(name, None)
    command = f"""{Path(sys.executable).with_name("ray")} start --head --block --num-cpus 2 --temp-dir {temporary}
        --node-ip-address 127.0.0.1 --port {head} --dashboard-port {dashboard} --metrics-export-port {metrics}
        --ray-client-server-port {client} --min-worker-port 0 --max-worker-port 0 --dashboard-agent-listen-port 0"""
    with open(log, "w") as out:
        # Without our PYTHONPATH: a job's code is what it brings along.
        process = subprocess.Popen(command.split(), env=env | {"PYTHONPATH": ""}, stdout=out, stderr=out)
    started = Cluster(f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{metrics}/metrics", env)
    until = time.monotonic() + 90
    while started.rrm("status", "--address", started.url).returncode:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
    yield started
    process.send_signal(signal.SIGTERM)  # it ends what it started
    process.wait(60)
    shutil.rmtree(temporary, ignore_errors=True)


def trials(folder: Path) -> list[Path]:
    return sorted((folder / "runs" / "tiny" / "trials").glob("*"))


def wait_for(condition, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)


def saved_step(trial: Path) -> int:
    return checkpoint.load(trial / "latest_state.pt")["step"]


def test_submit_status_logs_stop_and_submit_again(cluster, tmp_path):
    on = ("--address", cluster.url)
    changes = {"base": {"train": {"steps": 1_000_000}, "eval": {"every": EVERY}}, "seeds": [0]}
    logs = {"wandb": {"project": "tests", "mode": "offline"}, "tensorboard": True}
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), **changes, **logs))
    # RAY_ADDRESS wins over Ray's own argument; --address must win over both.
    submitted = cluster.rrm("submit", spec, *on, "--env", "SECRET", SECRET=SECRET, RAY_ADDRESS="http://127.0.0.1:1")
    assert submitted.returncode == 0, submitted.stderr
    assert re.fullmatch(rf"tiny-1: submitted with \d+ KiB; {cluster.url}/#/jobs/tiny-1\n", submitted.stdout)
    refused = cluster.rrm("submit", spec, *on)
    assert refused.returncode == 2
    assert refused.stderr == "tiny: job tiny-1 is running it; `rrm logs tiny`, or `rrm stop tiny`\n"

    wait_for(lambda: len(list(tmp_path.rglob("evals.parquet"))) == 2)
    wait_for(lambda: "rrm_exact_accuracy{" in (seen := scrape(cluster)) and "rrm_steps_per_second{" in seen)
    series = next(line for line in scrape(cluster).splitlines() if line.startswith("ray_rrm_step{"))
    assert 'sweep="tiny"' in series
    assert re.search(r'trial="[0-9a-f]{12}"', series)
    status = cluster.rrm("status", "tiny", RAY_API_SERVER_ADDRESS=cluster.url)
    assert re.search(r"tiny-1 +running", status.stdout), status.stderr
    assert "tiny: 2 trials, " in status.stdout

    stopped = cluster.rrm("stop", "tiny", *on)
    assert stopped.returncode == 0, stopped.stderr
    assert re.fullmatch(r"tiny-1: stopped in \d+ s; submit it again to go on\n", stopped.stdout)
    steps = {trial.name: saved_step(trial) for trial in trials(tmp_path)}
    assert any(step % EVERY for step in steps.values()), steps  # the last evaluation was earlier
    printed = cluster.rrm("logs", "tiny", *on).stdout
    assert "Stopped before the end; the same command goes on from here." in printed
    assert "stopped" in cluster.rrm("status", *on).stdout

    enough = (max(steps.values()) // EVERY + 2) * EVERY
    again = cluster.rrm("submit", spec, *on, "--wait", "--set", f"base.train.steps={enough}")
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.startswith("tiny-2: submitted")
    assert "tiny: 2 trials, 2 done" in again.stdout
    for trial in trials(tmp_path):
        attempts = json.loads((trial / "trial.json").read_text())["attempts"]
        assert len(attempts) == 2
        assert attempts[0]["commit"] is not None
        evaluated = dict.fromkeys(read_table(trial / "evals.parquet", EVALS_SCHEMA).column("step").to_pylist())
        (run_file,) = (trial / "wandb").glob("offline-run-*/*.wandb")
        run, history = wandb_history(run_file)
        assert run.run_id == trial.name
        assert [row["_step"] for row in history] == list(evaluated) == list(range(0, enough + 1, EVERY))
        (event_file,) = (trial / "tensorboard").iterdir()
        assert [s for tag, s, _ in tensorboard_scalars(event_file) if tag == "act_steps"] == list(evaluated)
    assert SECRET not in printed + again.stdout + submitted.stdout
    first = jobs(cluster)["tiny-1"]
    assert first["metadata"].keys() >= {"sweep", "spec_digest"}
    assert SECRET not in json.dumps(first["metadata"]) + submitted.stdout + printed + again.stdout
    assert first["runtime_env"]["env_vars"]["SECRET"] == SECRET

    too_large = cluster.rrm("submit", spec, *on, "--wait", "--set", "resources={cpu: 64}", "--set", "seeds=[1]")
    assert too_large.returncode == 2
    assert "resources: cpu 64, gpu 0 fit no node" in too_large.stdout


def scrape(cluster: Cluster) -> str:
    return urllib.request.urlopen(cluster.metrics, timeout=10).read().decode()


def jobs(cluster: Cluster) -> dict[str, dict]:
    headers = {"Authorization": f"Bearer {cluster.env['RAY_AUTH_TOKEN']}"}
    request = urllib.request.Request(f"{cluster.url}/api/jobs/", headers=headers)
    return {job["submission_id"]: job for job in json.load(urllib.request.urlopen(request, timeout=10))}


def test_what_a_cluster_refuses_is_one_line(cluster):
    on = ("--address", cluster.url)
    for arguments, env, message in (
        (("logs", "nowhere", *on), {}, f"nowhere: no such sweep on {cluster.url}; sweeps there: "),
        (("status", *on), {"RAY_AUTH_TOKEN": "b" * 32}, "Forbidden: Invalid authentication token; set RAY_AUTH_MODE"),
        (("status", *on), {"RAY_AUTH_MODE": "disabled"}, "Missing authentication token; set RAY_AUTH_MODE=token, and"),
        (("stop", "tiny", "--address", "http://127.0.0.1:1"), {}, "--address http://127.0.0.1:1: Failed to connect"),
    ):
        refused = cluster.rrm(*arguments, **env)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1, refused.stderr
        assert refused.stdout == ""

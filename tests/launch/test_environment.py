"""`rrm run` in an environment that Ray cannot start in, or whose Ray dies: one line, the right exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from tiny import tiny_sweep, write_spec

from rrm import checkpoint
from tune.connection import RECONNECT_SECONDS

RUN = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())", "run"]


def environment(**changes: str) -> dict[str, str]:
    foreign = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "TMPDIR", "RAY_TMPDIR")
    return {name: value for name, value in os.environ.items() if name not in foreign} | changes


@pytest.fixture(scope="module")
def head_that_is_none() -> Iterator[str]:
    """The address of a server of gRPC: what is asked of it next needs a token."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


RUN_IN_EACH = """
import os, sys
from launch.cli import main
for change in sys.argv[2:]:
    name, value = change.split("=")
    os.environ[name] = value
    print(f"exit code {main(['run', sys.argv[1]])}", file=sys.stderr, flush=True)
    del os.environ[name]
"""


def test_it_is_told_in_one_line(head_that_is_none, tmp_path):
    """One process, in one environment after another: only the last is one in which Ray itself is asked."""
    said = {
        "TMPDIR=/proc": "TMPDIR: '/proc' cannot hold Ray's files (/proc: ",
        "RAY_ADDRESS=127.0.0.1:1": "RAY_ADDRESS: '127.0.0.1:1' cannot be reached (Connection refused); start ",
        f"RAY_ADDRESS={head_that_is_none}": f"Ray cannot be started or reached at RAY_ADDRESS {head_that_is_none}: "
        "Token authentication is enabled but no",
    }
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs")))
    command, env = (
        [sys.executable, "-c", RUN_IN_EACH, spec, *said],
        environment(RAY_AUTH_MODE="token", HOME=str(tmp_path)),
    )
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    lines = [line for line in ran.stderr.splitlines() if "network_util.cc" not in line]  # Ray's own, without a network
    assert lines[1::2] == ["exit code 2"] * 3, ran.stderr
    assert all(line.startswith(start) for line, start in zip(lines[::2], said.values(), strict=True)), ran.stderr
    assert not list((tmp_path / "runs").rglob("trials/*"))


def test_a_head_or_a_node_that_dies_under_a_run_ends_it(tmp_path):
    """By itself Ray would end the process without a word of ours, or wait for ever; a home cannot be written here.

    While the first waits for its head to answer, the second starts. Who trains stands still once it has saved.
    """
    runs, trainers = {}, []
    long = {"train": {"steps": 1_000_000}, "eval": {"every": 1_000_000}}
    try:
        for part in ("gcs_server", "raylet"):
            folder = tmp_path / part
            folder.mkdir()
            raw = tiny_sweep(storage=str(folder / "runs"), base=long, seeds=[0], save_seconds=1)
            del raw["arms"]["multi2"]
            spec = write_spec(folder, raw)
            changed = environment(HOME="/proc", RAY_TMPDIR="/tmp", **{RECONNECT_SECONDS: "20"})
            with open(folder / "log", "w") as log:
                run = runs[part] = subprocess.Popen([*RUN, spec], env=changed, stdout=log, stderr=log)
            while not any(json.loads(saved.read_text())["step"] for saved in folder.rglob("saved.json")):
                assert run.poll() is None, (folder / "log").read_text()
                time.sleep(0.2)
            (record,) = folder.rglob("trial.json")
            trainers.append(json.loads(record.read_text())["attempts"][0]["pid"])
            os.kill(trainers[-1], signal.SIGSTOP)
            os.kill(started_by(run.pid, part), signal.SIGKILL)
        for part, says in (("gcs_server", "Ray's head 127.0.0.1:"), ("raylet", "Ray on this node is gone")):
            code, said = runs[part].wait(120), (tmp_path / part / "log").read_text()
            assert code == 4, said
            assert says in said
            assert "no answer for 10 s; the same command goes on from what the trials have saved" in said
            (state,) = (tmp_path / part).rglob("latest_state.pt")
            assert checkpoint.load(state)["step"] > 0
    finally:
        for run in runs.values():
            run.kill()
            run.wait()
        for trainer in trainers:
            with suppress(ProcessLookupError):
                os.kill(trainer, signal.SIGKILL)


def started_by(pid: int, name: str) -> int:
    """The child of a process that is called so."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == name:
                return int(child)
    raise AssertionError(f"{name} was not started")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_a_user_without_a_passwd_entry_and_a_home(tmp_path, local_ray):
    """As in a container that is given any user id; it may read everything, as Python is in somebody's home here."""
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), seeds=[0], base={"train": {"steps": 4}}))
    may = "+dac_override,+dac_read_search"
    somebody = ["setpriv", "--reuid=54321", "--clear-groups", f"--inh-caps={may}", f"--ambient-caps={may}"]
    token = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    env = environment(RAY_ADDRESS=local_ray.address, **token)
    env = {name: value for name, value in env.items() if name not in ("HOME", "USER", "LOGNAME", "RRM_CACHE")}
    commands = [["train", spec, "--arm", "multi2", "--seed", "0"], ["run", spec], ["plan", spec]]
    code = f"import os; from launch.cli import main; assert os.getuid() == 54321 and not any(map(main, {commands}))"
    command = [*somebody, sys.executable, "-c", code]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 trials, 0 would be trained" in ran.stdout

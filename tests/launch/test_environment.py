"""`rrm run` in an environment that Ray cannot start in, or whose Ray dies: one line, the right exit code."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"TMPDIR": "/proc"}, "TMPDIR: '/proc' cannot hold Ray's files (/proc: "),
        ({"RAY_ADDRESS": "127.0.0.1:1"}, "RAY_ADDRESS: '127.0.0.1:1' cannot be reached (Connection refused); start "),
        (
            {"RAY_ADDRESS": "{head}", "RAY_AUTH_MODE": "token", "HOME": "{tmp_path}"},
            "Ray cannot be started or reached at RAY_ADDRESS {head}: Token authentication is enabled but no",
        ),
    ],
)
def test_it_is_told_in_one_line(changes, says, head_that_is_none, tmp_path):
    here = {"head": head_that_is_none, "tmp_path": tmp_path}
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs")))
    changes = {name: value.format_map(here) for name, value in changes.items()}
    refused = subprocess.run([*RUN, spec], env=environment(**changes), capture_output=True, text=True, check=False)
    assert refused.returncode == 2, refused.stderr
    *others, last = refused.stderr.splitlines()
    assert last.startswith(says.format_map(here))
    assert all("network_util.cc" in line for line in others)  # Ray's own, where there is no network
    assert not list((tmp_path / "runs").rglob("trials/*"))


def test_a_head_or_a_node_that_dies_under_a_run_ends_it(tmp_path):
    """By itself Ray would end the process without a word of ours, or wait for ever; a home cannot be written here."""
    runs = {}
    long = {"train": {"steps": 1_000_000}, "eval": {"every": 1_000_000}}
    changes = {"base": long, "seeds": [0], "save_seconds": 1, "resources": {"cpu": 2}}  # one of two trials at a time
    for part in ("gcs_server", "raylet"):
        folder = tmp_path / part
        folder.mkdir()
        spec = write_spec(folder, tiny_sweep(storage=str(folder / "runs"), **changes))
        changed = environment(HOME="/proc", RAY_TMPDIR="/tmp", **{RECONNECT_SECONDS: "20"})
        with open(folder / "log", "w") as log:
            runs[part] = subprocess.Popen([*RUN, spec], env=changed, stdout=log, stderr=log)
    try:
        for part, run in runs.items():
            while saved_step(tmp_path / part) == 0:
                assert run.poll() is None, (tmp_path / part / "log").read_text()
                time.sleep(0.2)
            os.kill(started_by(run.pid, part), signal.SIGKILL)
        for part, says in (("gcs_server", "Ray's head 127.0.0.1:"), ("raylet", "Ray on this node is gone")):
            code, said = runs[part].wait(120), (tmp_path / part / "log").read_text()
            assert code == 4, said
            assert says in said
            assert "no answer for 10 s; the same command goes on from what the trials have saved" in said
            assert saved_step(tmp_path / part) > 0
    finally:
        for run in runs.values():
            run.kill()
            run.wait()


def saved_step(folder: Path) -> int:
    """That of the one trial's saved state; 0 before the first."""
    return max((checkpoint.load(state)["step"] for state in folder.rglob("latest_state.pt")), default=0)


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
    env = {name: value for name, value in env.items() if name not in ("HOME", "USER", "LOGNAME")}
    for arguments in (["train", spec, "--arm", "multi2", "--seed", "0"], ["run", spec], ["plan", spec]):
        code = f"import os, sys; assert os.getuid() == 54321; from launch.cli import main; sys.exit(main({arguments}))"
        command = [*somebody, sys.executable, "-c", code]
        ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 trials, 0 would be trained" in ran.stdout

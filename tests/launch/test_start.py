"""A run that is told to end before it has begun ends as any other, with 4: while it imports, while Ray starts."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from tiny import tiny_sweep, write_spec

MODULES = {"of the command line": "rich.cells", "of Ray": "ray.tune.tuner"}


def runs_below(folder: str) -> list[psutil.Process]:
    """The processes of a Ray with this temporary folder."""
    return [
        process for process in psutil.process_iter(["cmdline"]) if folder in " ".join(process.info["cmdline"] or ())
    ]


def takes_hangup() -> None:
    """SIGHUP is ignored in all that is started under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("moment", "number"),
    [*((moment, signal.SIGTERM) for moment in (*MODULES, "Ray starts")), ("Ray starts", signal.SIGHUP)],
)
def test_a_run_that_is_told_to_end_at_any_moment_ends_with_4(moment, number, tmp_path):
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), base={"train": {"steps": 100_000}}))
    with tempfile.TemporaryDirectory(prefix="rrm", dir="/tmp") as folder:  # short: Ray's sockets are in it
        env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"RAY_TMPDIR": folder}
        with open(tmp_path / "stderr", "w") as stderr:  # a line for every module that has been read
            command = [sys.executable, "-X", "importtime", "-m", "launch.start", "run", spec]
            process = subprocess.Popen(
                command, env=env, stdout=subprocess.DEVNULL, stderr=stderr, preexec_fn=takes_hangup
            )
        try:
            said, module, until = Path(stderr.name), MODULES.get(moment), time.monotonic() + 200
            while not (f" {module}\n" in said.read_text() if module else runs_below(folder)):
                assert time.monotonic() < until
                assert process.poll() is None
                time.sleep(0.2)
            process.send_signal(number)
            assert process.wait(timeout=120) == 4
            assert "Stopped; the same command goes on from here.\n" in said.read_text()
        finally:
            process.kill()
        psutil.wait_procs(left := runs_below(folder), timeout=30)
        assert not [one for one in left if one.is_running()]

"""`rrm train` stopped with Ctrl-C saves first, and goes on from there."""

import signal
import subprocess
import sys
import time

from tiny import tiny_sweep, write_spec


def start(spec: str) -> subprocess.Popen:
    command = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())", "train", spec]
    arguments = ["--arm", "multi2", "--seed", "0"]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_saves_between_two_evaluations(tmp_path):
    long = {"train": {"steps": 4000}, "eval": {"every": 4000}}
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), base=long))
    process = start(spec)
    assert process.stdout is not None
    for line in process.stdout:
        if not line.startswith("multi2 seed=0: step 0/"):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 4, errors
    assert errors == ""
    step = int(printed.partition("stopped and saved at step ")[2].partition(";")[0])
    assert 0 < step < 4000
    process = start(spec)
    assert process.stdout is not None
    first = int(process.stdout.readline().partition("step ")[2].partition("/")[0])
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 4
    assert first > step

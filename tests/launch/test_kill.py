"""`rrm run` killed with SIGKILL three times, and started again each time, ends as if it had never been killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from tiny import tiny_sweep, write_spec

from launch.cli import main
from results.schema import read_evals
from rrm import checkpoint

STEPS = {"train": {"steps": 400}, "eval": {"every": 20}}


def start(spec: str) -> subprocess.Popen:
    command = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())", "run", spec]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def saves(trials: Path) -> int:
    """Training steps that are safe on disk, over all trials."""
    steps = 0
    for path in trials.glob("*/evals.parquet"):
        steps += max(read_evals(path).column("step").to_pylist())
    return steps


def kill_after_some_saves(spec: str, trials: Path, more: int) -> str:
    process = start(spec)
    enough, until = saves(trials) + more, time.monotonic() + 120
    while saves(trials) < enough and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert process.poll() is None, f"it ended before it was killed: {process.communicate()[0]}"
    process.send_signal(signal.SIGKILL)
    return process.communicate()[0]


def comparison_lines(printed: str) -> list[str]:
    lines = printed.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("Against baseline"))
    return lines[first : lines.index("Written:")]


def test_three_kills_change_nothing(tmp_path, local_ray, capsys):
    folders = {}
    for name in ("killed", "unbroken"):
        (tmp_path / name).mkdir()
        spec = write_spec(tmp_path / name, tiny_sweep(storage=str(tmp_path / name / "runs"), base=STEPS))
        folders[name] = spec, tmp_path / name / "runs" / "tiny"
    assert main(["run", folders["unbroken"][0]]) == 0
    unbroken_printed = capsys.readouterr().out

    spec, killed = folders["killed"]
    for more in (60, 100, 400):
        kill_after_some_saves(spec, killed / "trials", more)
        assert 0 < saves(killed / "trials") < 4 * 400
    last = start(spec)
    printed = last.communicate(timeout=200)[0]
    assert last.returncode == 0, printed

    unbroken = folders["unbroken"][1]
    trials = sorted(path.name for path in (unbroken / "trials").iterdir())
    assert trials == sorted(path.name for path in (killed / "trials").iterdir())
    attempts = 0
    for trial in trials:
        ours, theirs = killed / "trials" / trial, unbroken / "trials" / trial
        for name in ("final.pt", "best.pt"):
            a, b = checkpoint.load(ours / name), checkpoint.load(theirs / name)
            assert all(torch.equal(a[key], b[key]) for key in a | b), f"{trial}/{name}"
        assert (ours / "evals.parquet").read_bytes() == (theirs / "evals.parquet").read_bytes()
        attempts += (ours / "trial.json").read_text().count('"pid"')
    assert attempts > len(trials) + 2
    tables = [pd.read_parquet(folder / "tables" / "comparison.parquet") for folder in (killed, unbroken)]
    pd.testing.assert_frame_equal(*tables)
    assert comparison_lines(printed) == comparison_lines(unbroken_printed)

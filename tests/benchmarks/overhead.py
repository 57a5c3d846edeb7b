"""What a sweep costs beside its trials: `python tests/benchmarks/overhead.py [SECONDS]`.

Two sweeps, a trial at a time: four trials of about SECONDS (60) each, and forty trivial ones. Each is run by `rrm run`,
then the same trials by their bare loops in one process, one after another: training, evaluations and saves, no Ray.
Prints the seconds from the command to the first trial, the whole, the sum of the bare loops, and what is between them.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from tiny import tiny_sweep, write_spec

from tune.job import TrialJob
from tune.spec import Sweep, load_sweep
from tune.trial import TrialRun

CORES = 2


def sweeps(folder: Path, seconds: float) -> dict[str, Sweep]:
    """The sweeps by what they hold."""
    places = {"storage": str(folder / "runs"), "resources": {"cpu": CORES}}
    trivial = tiny_sweep(name="trivial", seeds=list(range(40)), **places)
    rate = _steps_a_second(folder)
    steps = max(1, round(seconds * rate / 4)) * 4
    changes: dict[str, Any] = {"train": {"steps": steps}, "eval": {"every": steps // 4}}
    long = tiny_sweep(name="long", seeds=list(range(4)), base=changes, **places)
    found = {f"four trials of {seconds:.0f} s": long, "forty trivial trials": trivial}
    for sweep in found.values():
        del sweep["arms"]["multi2"]
    return {name: load_sweep(write_spec(folder, sweep, f"{sweep['name']}.yaml")) for name, sweep in found.items()}


def _steps_a_second(folder: Path) -> float:
    raw = tiny_sweep(storage=str(folder / "trial"), base={"train": {"steps": 400}, "eval": {"every": 400}}, seeds=[0])
    (run, *_) = _jobs(load_sweep(write_spec(folder, raw)))
    started = time.perf_counter()
    _bare(run)
    return 400 / (time.perf_counter() - started)


def _jobs(sweep: Sweep) -> list[TrialJob]:
    return [TrialJob.of(sweep, cell, CORES) for cell in sweep.trials.values()]


def _bare(job: TrialJob) -> None:
    run = TrialRun(job, torch.device("cpu"))
    while not run.advance(1.0).finished:
        pass
    run.close()


def main(seconds: float) -> None:
    """Both sweeps, a line each."""
    print(f"{'':24}{'first trial':>12}{'rrm run':>10}{'bare loops':>12}{'between':>10}{'a trial':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for name, sweep in sweeps(Path(folder), seconds).items():
            at, started = time.time(), time.perf_counter()
            subprocess.run([sys.executable, "-m", "launch.cli", "run", sweep.path], check=True, capture_output=True)
            whole = time.perf_counter() - started
            first = min(lock.stat().st_mtime for lock in (sweep.folder / "trials").glob("*/.lock")) - at
            started = time.perf_counter()
            for job in _jobs(load_sweep(sweep.path, [f"storage={sweep.spec.storage}-bare"])):
                _bare(job)
            bare = time.perf_counter() - started
            between = whole - bare
            row = f"{first:10.1f} s{whole:8.1f} s{bare:10.1f} s{between:8.1f} s{between / len(sweep.trials):7.2f} s"
            print(f"{name:24}{row}", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)

"""Kill a sweep's workers and drivers at random moments, run it again until it is done, and compare it with one that
was left alone: python tests/benchmarks/chaos.py --kills 200 [--workers 2] [--storage s3://bucket/prefix]."""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from tiny import tiny_sweep, write_spec

from launch.cli import main
from results.storage import Location
from tune.spec import Sweep, load_sweep

CLI = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())"]


def trials(sweep: Sweep) -> list[Location]:
    """The folders of the trials."""
    return [sweep.folder / "trials" / trial_id for trial_id in sweep.trials]


def worker_pids(sweep: Sweep) -> list[int]:
    """The processes of the trials that are not done."""
    records = []
    for folder in trials(sweep):
        if (folder / "trial.json").exists() and not (folder / "done.json").exists():
            records.append(json.loads((folder / "trial.json").read_bytes()))
    return [worker["pid"] for record in records for worker in record["attempts"][-1]["workers"]]


def is_a_ray_worker(pid: int) -> bool:
    """Whether the process is one of Ray's, and not another that was given a dead one's number."""
    try:
        return b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def run(spec: str, sweep: Sweep, kills: int, chance: random.Random) -> None:
    """Kill, and start again, until the kills are used up; then let it end."""
    killed = {"worker": 0, "driver": 0}
    driver = subprocess.Popen([*CLI, "run", spec], stdout=subprocess.DEVNULL)
    while sum(killed.values()) < kills:
        time.sleep(chance.uniform(0.2, 6.0))
        if driver.poll() is not None:
            if driver.returncode == 0:
                break
            driver = subprocess.Popen([*CLI, "run", spec], stdout=subprocess.DEVNULL)
            continue
        workers = [pid for pid in worker_pids(sweep) if is_a_ray_worker(pid)]
        if not workers and chance.random() < 0.9:
            continue  # the driver is still starting: most kills are to meet trials
        if workers and chance.random() < 0.7:
            os.kill(chance.choice(workers), signal.SIGKILL)
            killed["worker"] += 1
        else:
            driver.kill()
            driver.wait()
            killed["driver"] += 1
            driver = subprocess.Popen([*CLI, "run", spec], stdout=subprocess.DEVNULL)
    while driver.wait() != 0:
        driver = subprocess.Popen([*CLI, "run", spec], stdout=subprocess.DEVNULL)
    print(f"killed: {killed}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1, help="of each trial; the one left alone has one")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        long = {"train": {"steps": arguments.steps, "shards": arguments.workers}, "eval": {"every": 20}}
        both = []
        for name, place in (("killed", arguments.storage or f"{root}/killed"), ("unbroken", f"{root}/unbroken")):
            workers = arguments.workers if name == "killed" else 1
            sweep = tiny_sweep(storage=place, base=long, resources={"workers": workers}, max_failures=arguments.kills)
            spec = write_spec(Path(root), sweep, f"{name}.yaml")
            both.append((spec, load_sweep(spec)))
        started = time.perf_counter()
        run(*both[0], arguments.kills, random.Random(arguments.seed))
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        assert main(["run", both[1][0]]) == 0
        print(f"{seconds:.0f} s with the kills, {time.perf_counter() - started:.0f} s without")
        for ours, theirs in zip(trials(both[0][1]), trials(both[1][1]), strict=True):
            attempts = len(json.loads((ours / "trial.json").read_bytes())["attempts"])
            for name in ("final.pt", "best.pt", "evals.parquet"):
                assert (ours / name).read_bytes() == (theirs / name).read_bytes(), f"{ours / name} differs"
            print(f"{ours.name}: {attempts} attempts, the same bits")

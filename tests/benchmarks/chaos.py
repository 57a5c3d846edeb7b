"""Kill and pause a sweep's workers and drivers at random moments, run it again until it is done, and compare it with
one that was left alone: python tests/benchmarks/chaos.py --kills 200 [--workers 2] [--storage s3 --throttle 0.1]
[--memory-seconds 20].

A fifth of the blows are pauses (SIGSTOP, for up to 40 seconds: longer than a lease lasts). `--storage s3` is a server
on loopback, which turns a share of its requests away (503 SlowDown). With `--memory-seconds` Ray's own memory monitor
takes the machine's memory for full that often, and kills a worker.
"""

import argparse
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

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


def pause(pid: int, seconds: float) -> None:
    """Stop a process, which goes on by itself later if it is still there."""

    def go_on() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    os.kill(pid, signal.SIGSTOP)
    threading.Timer(seconds, go_on).start()


def run(spec: str, sweep: Sweep, blows: int, chance: random.Random, log: Any, memory_seconds: float | None) -> None:
    """Kill and pause, and start again, until the blows are used up; then let it end."""
    dealt: Counter[str] = Counter()
    monitor = {
        "RAY_memory_usage_threshold": "0",
        "RAY_memory_monitor_refresh_ms": f"{1000 * (memory_seconds or 0):.0f}",
    }

    def start(under_monitor: bool = True) -> subprocess.Popen:
        environment = os.environ | (monitor if memory_seconds and under_monitor else {})
        return subprocess.Popen([*CLI, "run", spec], stdout=log, stderr=log, env=environment)

    driver = start()
    while dealt.total() < blows:
        time.sleep(chance.uniform(0.2, 6.0))
        if driver.poll() is not None:
            if driver.returncode == 0:
                break
            driver = start()
            continue
        workers = [pid for pid in worker_pids(sweep) if is_a_ray_worker(pid)]
        if not workers and chance.random() < 0.9:
            continue  # the driver is still starting: most blows are to meet trials
        who = "worker" if workers and chance.random() < 0.7 else "driver"
        pid = chance.choice(workers) if who == "worker" else driver.pid
        with suppress(ProcessLookupError):
            if chance.random() < 0.2:
                pause(pid, chance.uniform(1.0, 40.0))
                dealt[f"{who} paused"] += 1
            else:
                os.kill(pid, signal.SIGKILL)
                dealt[f"{who} killed"] += 1
    while driver.wait() != 0:
        driver = start(under_monitor=False)
    print(", ".join(f"{count} x {what}" for what, count in sorted(dealt.items())))


def bucket(throttle: float) -> str:
    """The URL of a bucket on a server of this process, which turns so large a share of requests away."""
    from moto.server import ThreadedMotoServer
    from pyarrow import fs
    from throttle import Throttle

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"], allow_bucket_creation=True).create_dir("chaos")
    Throttle(server).share = throttle
    return "s3://chaos"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="and pauses")
    parser.add_argument("--workers", type=int, default=1, help="of each trial; the one left alone has one")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", help="s3, s3://bucket/prefix or a folder; a temporary one by default")
    parser.add_argument("--throttle", type=float, default=0.0, help="share of requests, with --storage s3")
    parser.add_argument("--memory-seconds", type=float)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        place = bucket(arguments.throttle) if arguments.storage == "s3" else arguments.storage or f"{root}/killed"
        long = {"train": {"steps": arguments.steps, "shards": arguments.workers}, "eval": {"every": 20}}
        both = []
        for name, storage in (("killed", place), ("unbroken", f"{root}/unbroken")):
            workers = arguments.workers if name == "killed" else 1
            spec = write_spec(
                Path(root), tiny_sweep(storage=storage, base=long, resources={"workers": workers}), f"{name}.yaml"
            )
            both.append((spec, load_sweep(spec)))
        started = time.perf_counter()
        with open(f"{root}/log", "w+") as log:
            run(*both[0], arguments.kills, random.Random(arguments.seed), log, arguments.memory_seconds)
            log.seek(0)
            print(f"{log.read().count('out of memory: its node was nearly full')} x killed by the memory monitor")
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        assert main(["run", both[1][0]]) == 0
        print(f"{seconds:.0f} s with the kills, {time.perf_counter() - started:.0f} s without")
        for ours, theirs in zip(trials(both[0][1]), trials(both[1][1]), strict=True):
            attempts = len(json.loads((ours / "trial.json").read_bytes())["attempts"])
            for name in ("final.pt", "best.pt", "evals.parquet"):
                assert (ours / name).read_bytes() == (theirs / name).read_bytes(), f"{ours / name} differs"
            print(f"{ours.name}: {attempts} attempts, the same bits")

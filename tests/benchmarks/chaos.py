"""Kill and pause a sweep's workers and drivers at random moments, run it again until it is done, and compare it with
one that was left alone: python tests/benchmarks/chaos.py --kills 200 [--workers 2] [--storage s3 --throttle 0.1]
[--memory-seconds 20].

A fifth of the blows are pauses (SIGSTOP, for up to 40 seconds: longer than a lease lasts). Most meet a process that
trains, the others a driver, which may be starting. `--storage s3` is a server on loopback, which turns a share of
its requests away (503 SlowDown). With `--memory-seconds` Ray's own memory monitor takes the machine's memory for full
that often, and kills a worker: these count as blows. A sweep that is done before its blows are is given more steps. A
line a blow goes to stderr.
"""

import argparse
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
from psutil import Error, Process
from tiny import tiny_sweep, write_spec

from launch.cli import main
from results.storage import Location, sizes
from results.trial_files import read_json
from results.trial_tables import part_numbers
from rrm.presets import merge
from tune.spec import Sweep, load_sweep

CLI = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())"]
# By what Ray calls the process while it trains: the first has said in its log where it goes on from.
KINDS = {"ray::RecursiveTrial.train": "first worker", "ray::TrialWorker.follow": "other worker"}
LOGS = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "session_latest", "logs")
MEMORY = "killed by the memory monitor"


def trials(sweep: Sweep) -> list[Location]:
    """The folders of the trials."""
    return [sweep.folder / "trials" / trial_id for trial_id in sweep.trials]


def workers_of(driver: int) -> list[tuple[str, int]]:
    """The processes below a driver that train: of which kind, and their numbers."""
    found = []
    with suppress(Error):
        for process in Process(driver).children(recursive=True):
            with suppress(Error, IndexError):
                title = process.cmdline()[0]
                kind = next((kind for name, kind in KINDS.items() if title.startswith(name)), None)
                if kind == "other worker" or (kind and _has_opened(process.pid)):
                    found.append((kind, process.pid))
    return found


def _has_opened(pid: int) -> bool:
    """Whether a first worker has opened a trial: what is killed before has nothing to lose."""
    return any(": from step " in path.read_text(errors="replace") for path in LOGS.glob(f"worker-*-{pid}.out"))


def pause(pid: int, seconds: float) -> None:
    """Stop a process, which goes on by itself later if it is still there."""

    def go_on() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    os.kill(pid, signal.SIGSTOP)
    threading.Timer(seconds, go_on).start()


class Chaos:
    """Runs a sweep under blows."""

    def __init__(self, folder: Path, spec: dict[str, Any], chance: random.Random, memory_seconds: float | None):
        self.folder, self.spec, self.chance = folder, spec, chance
        self.grow_by = spec["base"]["train"]["steps"]
        self.path = write_spec(folder, spec, "killed.yaml")
        self.monitor = {}
        if memory_seconds:
            self.monitor["RAY_memory_usage_threshold"] = "0"
            self.monitor["RAY_memory_monitor_refresh_ms"] = f"{1000 * memory_seconds:.0f}"
        self.dealt: Counter[str] = Counter()
        self.runs = 0
        self.started = time.perf_counter()

    def start(self, under_monitor: bool = True) -> subprocess.Popen:
        """A driver."""
        self.runs += 1
        with open(self.folder / "log", "a") as log:
            environment = os.environ | (self.monitor if under_monitor else {})
            return subprocess.Popen([*CLI, "run", self.path], stdout=log, stderr=log, env=environment)

    def run(self, blows: int) -> None:
        """Kill and pause, and start again, until the blows are used up; then let it end."""
        driver, aim = self.start(), self._aim()
        while self.dealt.total() < blows:
            time.sleep(self.chance.uniform(0.0, 8.0))
            self._count_memory_kills()
            if driver.poll() is not None:
                if driver.returncode == 0:
                    self._grow()
                driver = self.start()
            elif workers := workers_of(driver.pid):
                self._blow(*(self.chance.choice(workers) if aim == "worker" else ("driver", driver.pid)))
                aim = self._aim()
            elif aim == "starting driver":
                time.sleep(self.chance.uniform(0.0, 8.0))
                self._blow(aim, driver.pid)
                aim = self._aim()
        while driver.wait() != 0:
            driver = self.start(under_monitor=False)
        self._count_memory_kills()

    def _aim(self) -> str:
        """Who is to be hit: a worker or the driver once something trains, or a driver before that if it comes to it."""
        return self.chance.choices(["worker", "driver", "starting driver"], [0.85, 0.1, 0.05])[0]

    def _blow(self, who: str, pid: int) -> None:
        with suppress(ProcessLookupError):
            if self.chance.random() < 0.2:
                seconds = self.chance.uniform(1.0, 40.0)
                pause(pid, seconds)
                self._note(f"{who} paused", f"{who} {pid} paused for {seconds:.0f} s")
            else:
                os.kill(pid, signal.SIGKILL)
                self._note(f"{who} killed", f"{who} {pid} killed")

    def _note(self, kind: str, line: str) -> None:
        self.dealt[kind] += 1
        clock = time.perf_counter() - self.started
        print(f"{clock:5.0f} s, run {self.runs}, blow {self.dealt.total()}: {line}", file=sys.stderr, flush=True)

    def _count_memory_kills(self) -> None:
        so_far = (self.folder / "log").read_text(errors="replace").count("out of memory: its node was nearly full")
        for _ in range(so_far - self.dealt[MEMORY]):
            self._note(MEMORY, f"a worker {MEMORY}")

    def _grow(self) -> None:
        steps = self.spec["base"]["train"]["steps"] + self.grow_by
        self.spec = merge(self.spec, {"base": {"train": {"steps": steps}}})
        write_spec(self.folder, self.spec, "killed.yaml")


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
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        place = bucket(arguments.throttle) if arguments.storage == "s3" else arguments.storage or f"{root}/killed"
        long = {"train": {"steps": arguments.steps, "shards": arguments.workers}, "eval": {"every": 20}}
        at_once = {"workers": arguments.workers, "cpu": 0.5}
        chaos = Chaos(
            root,
            tiny_sweep(storage=place, base=long, resources=at_once),
            random.Random(arguments.seed),
            arguments.memory_seconds,
        )
        started = time.perf_counter()
        chaos.run(arguments.kills)
        seconds = time.perf_counter() - started
        print(", ".join(f"{count} x {what}" for what, count in sorted(chaos.dealt.items())))
        alone = merge(chaos.spec, {"storage": f"{root}/unbroken", "resources": {"workers": 1}})
        killed, unbroken = load_sweep(chaos.path), load_sweep(write_spec(root, alone, "unbroken.yaml"))
        started = time.perf_counter()
        assert main(["run", str(root / "unbroken.yaml")]) == 0
        print(f"{seconds:.0f} s with the blows, {time.perf_counter() - started:.0f} s without")
        for ours, theirs in zip(trials(killed), trials(unbroken), strict=True):
            record = read_json(ours / "trial.json") or {}
            for file in ("final.pt", "best.pt", "evals.parquet", *part_numbers(sizes(theirs))):
                assert (ours / file).read_bytes() == (theirs / file).read_bytes(), f"{ours / file} differs"
            steps = record["config"]["train"]["steps"]
            print(f"{ours.name}: {steps} steps, {len(record['attempts'])} attempts, the same bits")

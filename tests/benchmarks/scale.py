"""How a sweep of many trials starts, trains and stops: `python tests/benchmarks/scale.py [TRIALS ...]`.

Two arms of tiny trials, a core each. `first`: seconds from the command to the first trial that is done, of which `CPU`
the driver's own; `trial`: seconds a trial over the half minute that follows, with how many at a time; `stop`: seconds
from SIGTERM to the command's end; `RSS`: the most memory that it had (MB); `plan`: seconds of `rrm plan` before
anything is trained. Then of a finished sweep of as many simulated trials (six evaluations each): seconds of gathering
it the first time and again, and of its page.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from psutil import Process
from sweep_folder import write_sweep
from tiny import tiny_sweep, write_spec

from results.gather import gather
from results.report import write_report

CLI = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())"]
SHORT = {"train": {"steps": 4}, "eval": {"every": 4}}
TRAIN_SECONDS, PATIENCE_SECONDS = 30.0, 900.0
COLUMNS = ("first", "CPU", "trial", "places", "stop", "RSS", "plan", "gather", "again", "page")


def done(trials: Path) -> int:
    """How many trials are done."""
    return sum(1 for _ in trials.glob("*/done.json"))


def trained(root: Path, trials: int) -> dict[str, float]:
    """The figures of a sweep that is planned, started, and stopped after a while."""
    spec = write_spec(root, tiny_sweep(storage=f"{root}/runs", base=SHORT, seeds=list(range(trials // 2))))
    started = time.perf_counter()
    subprocess.run([*CLI, "plan", spec], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    found = {"plan": time.perf_counter() - started, "places": os.cpu_count() or 1}
    folder = root / "runs" / "tiny" / "trials"
    started = time.perf_counter()
    with open(root / "log", "w") as log:
        driver = subprocess.Popen([*CLI, "run", spec], stdout=log, stderr=log)
    while not done(folder):
        assert driver.poll() is None, (root / "log").read_text()
        assert time.perf_counter() - started < PATIENCE_SECONDS, "no trial is done"
        time.sleep(0.2)
    since, before = time.perf_counter(), done(folder)
    found |= {"first": since - started, "CPU": sum(Process(driver.pid).cpu_times()[:2])}
    while time.perf_counter() - since < TRAIN_SECONDS and driver.poll() is None and done(folder) < trials * 0.8:
        time.sleep(0.5)
    found["trial"] = (time.perf_counter() - since) / max(1, done(folder) - before)
    found["RSS"] = int(Path(f"/proc/{driver.pid}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    started = time.perf_counter()
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(PATIENCE_SECONDS) == 4, (root / "log").read_text()
    return found | {"stop": time.perf_counter() - started}


def simulated(root: Path, trials: int) -> dict[str, float]:
    """The figures of a sweep that is only looked at."""
    folder = root / "simulated"
    write_sweep(folder, {"baseline": 0.0, "arm": 0.5}, seeds=trials // 2, evaluations=6, sigmas=(0.1,), diagnosed=0)
    clock = [time.perf_counter()]
    tables = gather(folder)
    clock.append(time.perf_counter())
    tables = gather(folder)
    clock.append(time.perf_counter())
    write_report(tables, root / "report.html")
    clock.append(time.perf_counter())
    assert len(tables.trials) == trials
    return dict(zip(("gather", "again", "page"), (b - a for a, b in pairwise(clock)), strict=True))


def main(*sizes: int) -> None:
    """Print a row a size."""
    print(f"{'trials':>7}" + "".join(f"{name:>8}" for name in COLUMNS), flush=True)
    for trials in sizes or (100, 1000, 10_000):
        with tempfile.TemporaryDirectory() as name:
            found = trained(Path(name), trials)
        with tempfile.TemporaryDirectory() as name:
            found |= simulated(Path(name), trials)
        print(
            f"{trials:7}" + "".join(f"{found[name]:8.{1 if found[name] < 100 else 0}f}" for name in COLUMNS), flush=True
        )


if __name__ == "__main__":
    main(*(int(number) for number in sys.argv[1:]))

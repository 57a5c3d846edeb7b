"""How `rrm watch` and the report take a large sweep: `python tests/benchmarks/watch.py [TRIALS]`.

A sweep of so many simulated trials (8 arms, 12 evaluations), whose driver reports on them. Prints the seconds of the
report and its size; then, of a real `rrm watch`, the seconds to the first page, of later answers, and what memory its
processes take.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from psutil import Error, Process
from sweep_folder import write_sweep

from results.gather import gather
from results.report import write_report

ARMS = {"baseline": 0.0} | {f"arm{number}": 0.1 * number for number in range(1, 8)}


def timed(url: str) -> tuple[float, bytes]:
    """Seconds to an answer, and the answer."""
    started = time.perf_counter()
    with urllib.request.urlopen(url, timeout=300) as answer:
        content = answer.read()
    return time.perf_counter() - started, content


def note_memory(server: Process, peaks: dict[str, int]) -> None:
    """Keep the most that a server, and the process that it has make pages, have held, for as long as it lives."""
    with suppress(Error):
        while True:
            held = {"server": server.memory_info().rss}
            with suppress(Error):
                held["maker of pages"] = sum(one.memory_info().rss for one in server.children())
            peaks |= {name: max(peaks[name], now) for name, now in held.items()}
            time.sleep(0.05)


def write_progress(folder: Path) -> None:
    """What the driver of a run would write that trains the last of a sweep's trials."""
    ids = [cell["trial_id"] for cell in json.loads((folder / "sweep.json").read_text())["cells"]]
    trials = {trial_id: {"status": "done", "step": 1200, "steps": 1200} for trial_id in ids}
    trials[ids[-1]] |= {"status": "running", "step": 600, "rate": 2.5, "heard": time.time()}
    told = {"written": time.time() + 50, "ended": False, "left": 240.0, "trials": trials}  # for the next two minutes
    (folder / "progress.json").write_text(json.dumps(told))


def main(trials: int = 2000) -> None:
    """Print a line for each figure."""
    with tempfile.TemporaryDirectory() as name:
        storage = Path(name)
        write_sweep(storage / "large", ARMS, seeds=trials // len(ARMS), diagnosed=8, sigmas=(0.1,))
        started = time.perf_counter()
        tables = gather(storage / "large")
        gathered = time.perf_counter() - started
        started = time.perf_counter()
        path = write_report(tables, storage / "report.html")
        print(
            f"{trials} trials: gathered in {gathered:.1f} s; report in {time.perf_counter() - started:.1f} s,", end=" "
        )
        print(f"{path.stat().st_size / 1e6:.1f} MB")
        write_progress(storage / "large")
        command = [Path(sys.executable).with_name("rrm"), "watch", storage, "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peaks = {"server": 0, "maker of pages": 0}
        threading.Thread(target=note_memory, args=(Process(process.pid), peaks), daemon=True).start()
        try:
            assert process.stdout is not None
            url = process.stdout.readline().rpartition(" (")[0].rpartition(" ")[2]
            print(f"watch: overview in {timed(f'{url}api/sweeps')[0]:.2f} s", end=", ")
            print(f"first page in {timed(f'{url}api/sweeps/large')[0]:.1f} s", end=", ")
            again, content = timed(f"{url}api/sweeps/large")
            print(f"again in {again:.2f} s ({len(content) / 1e6:.1f} MB)", end=", ")
            polls = [timed(f"{url}api/sweeps/large/progress") for _ in range(20)]
            assert len(json.loads(polls[-1][1])["trials"]) == trials
            print(f"progress in {max(seconds for seconds, _ in polls):.2f} s at most of 20", end=", ")
            print(", ".join(f"{name} {bytes_ / 1e6:.0f} MB" for name, bytes_ in peaks.items()), "at their peak")
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main(*(int(number) for number in sys.argv[1:]))

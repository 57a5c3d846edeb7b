"""How `rrm watch` and the report take a large sweep: `python tests/benchmarks/watch.py [TRIALS]`.

A finished sweep of so many simulated trials (8 arms, 12 evaluations). Prints the seconds of the report and its size;
then, of a real `rrm watch`, the seconds to the first page, of later answers, and what memory its process takes.
"""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

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
        command = [Path(sys.executable).with_name("rrm"), "watch", storage, "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
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
            status = Path(f"/proc/{process.pid}/status").read_text()
            print(f"{int(status.partition('VmHWM:')[2].split()[0]) / 1024:.0f} MB at its peak")
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main(*(int(number) for number in sys.argv[1:]))

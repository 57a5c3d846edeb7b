"""Run the laptop preset of every spec of the project: `python tests/benchmarks/specs.py [STORAGE]`.

Prints, for each, the exit code, the seconds and the last lines of its comparison.
"""

import subprocess
import sys
import time
from pathlib import Path

SPECS = Path(__file__).parents[2] / "launch" / "specs"


def main(storage: str) -> None:
    """One after another, each as a user runs it."""
    for path in sorted(SPECS.glob("*.yaml")):
        if "presets:" not in path.read_text():
            continue
        command = [
            sys.executable,
            "-m",
            "launch.cli",
            "run",
            str(path),
            "--preset",
            "laptop",
            "--set",
            f"storage={storage}",
        ]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(f"{path.stem}: exit code {done.returncode}, {time.perf_counter() - started:.0f} s", flush=True)
        print(done.stdout.partition("\n\n")[2].rpartition("Written:")[0] or done.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs")

"""Seconds and peak memory to load and compare a sweep's tables: `python tests/benchmarks/compare.py [TRIALS]`.

10,000 trials of 88 evaluations by default, every readout in them: half of them the baseline's, ten seeds a grid point.
Only the tables are made, and read by a process of its own. The goal: below 10 s of CPU time and 1,500 MB.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from results.schema import VERSION, file_schema, table_file

STEPS, N, ROLLOUTS, SEEDS = 22, 128, 4, 10
SHARES = [
    field.name for field in file_schema("evals") if field.metadata[b"unit"] == b"share" and field.type == "double"
]
CHOSEN = [field.name for field in file_schema("evals") if field.name.endswith("_correct")]
READ = """
import resource, sys, time
import results
clocks = lambda: (time.perf_counter(), time.process_time())
started = clocks()
trials, evals = (results.load(name, sys.argv[1]) for name in ("trials", "evals"))
loaded = clocks()
comparison = results.compare(trials, evals, baseline="baseline")
compared = clocks()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
took = [f"{b - a:.1f} s" for pair in ((started, loaded), (loaded, compared)) for a, b in zip(*pair)]
print(f"{len(trials)} trials, {len(evals)} evaluations: load {took[0]} (CPU {took[1]}), compare {took[2]} "
      f"(CPU {took[3]}), CPU in all {time.process_time():.1f} s, {len(comparison)} rows, peak {peak:.0f} MB")
"""


def write_tables(storage: Path, trials: int) -> None:
    """The tables trials and evals of a finished sweep."""
    rng, rows, columns = np.random.default_rng(0), [], {}
    shapes = [("validation", 1), ("test", 1), ("validation", ROLLOUTS), ("test", ROLLOUTS)]
    for number in range(trials):
        place, arm = divmod(number, 2)
        point = f"optim.lr={place // SEEDS + 1}"
        row = {"arm": ("baseline", "multi")[arm], "point": point, "points": [point], "seed": place % SEEDS}
        row |= {"trial_id": f"{number:012x}", "model": "trm", "task": "sudoku", "objective": "clean", "status": "done"}
        row |= {"rollout": "parallel_fixed", "rollouts": 1, "steps": STEPS, "test_digest": "d", "config": "{}"}
        rows.append(row | {"flops_per_step": 1e9, "train_seconds": 9.0, "evaluate_seconds": 1.0})
    solved = {k: rng.random((STEPS, N, k)) < np.linspace(0.1, 0.8, STEPS)[:, None, None] for k in (1, ROLLOUTS)}
    of_trial = [
        {"step": step + 1, "optimizer_steps": step + 1, "act_steps": step + 1, "split": split, "rollouts": k}
        | {"when": "start", "sigma": 0.3 * (k > 1), "depth": 4, "n": N}
        | dict.fromkeys(SHARES, float(solved[k][step].mean()))
        | {"correct": np.packbits(solved[k][step]).tobytes(), "pass_at_k": [0.5] * (1 + int(np.log2(k)))}
        | dict.fromkeys(CHOSEN, np.packbits(solved[k][step][:, 0]).tobytes())
        for step in range(STEPS)
        for split, k in shapes
    ]
    schema = file_schema("evals")
    one = pa.Table.from_pylist([{"trial_id": ""} | row for row in of_trial], schema=schema)
    columns = pa.concat_tables([one] * trials)
    ids = pa.array(np.repeat([row["trial_id"] for row in rows], len(of_trial)), pa.string())
    for name, table in (
        ("trials", pa.Table.from_pylist(rows, schema=file_schema("trials"))),
        ("evals", columns.set_column(schema.get_field_index("trial_id"), schema.field("trial_id"), ids)),
    ):
        path = table_file(storage, name, "large")
        path.parent.mkdir(parents=True)
        pq.write_table(table.replace_schema_metadata(VERSION), path)


def main(trials: int = 10_000) -> None:
    """Print one line."""
    with tempfile.TemporaryDirectory() as storage:
        write_tables(Path(storage), trials)
        subprocess.run([sys.executable, "-c", READ, storage], check=True)


if __name__ == "__main__":
    main(*(int(number) for number in sys.argv[1:]))

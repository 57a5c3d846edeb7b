"""Seconds to gather a sweep, beside Tune's own loading: `python tests/benchmarks/gather.py [TRIALS ...]`.

Each trial has 20 evaluations of two splits, clean and perturbed. Of one trial in the form each side writes it, copies
are made: evals.parquet and JSON here; params.json, result.json and the experiment state there, whose rows hold the
config and one accuracy, as our trainable reports them, and no per-example correctness. `gather` is all of it, the
comparison included, which is timed once more by itself (`compare`); `again` is with nothing new. Tune is asked for up
to TUNE_TRIALS only, and the ratio is its time to that of reading here (gather less compare).
"""

import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from results.comparison import compare
from results.gather import gather
from results.report import write_report
from results.schema import EVALS_SCHEMA
from rrm.config import TrialConfig
from rrm.presets import PRESETS

TUNE_TRIALS = 1000
CONFIG = TrialConfig.model_validate(PRESETS["sudoku-4x4-trm-mlp"] | {"seed": 0}).model_dump(mode="json")
EVALUATIONS, N, ROLLOUTS, SEEDS = 20, 128, 4, 10


def write_sweep(folder: Path, trials: int) -> None:
    """A finished sweep of so many trials, half of them the baseline's, ten seeds a grid point."""
    rng, cells = np.random.default_rng(0), []
    config = CONFIG | {"train": {"steps": EVALUATIONS}}
    for number in range(trials):
        place, arm = divmod(number, 2)
        trial_id, seed, point = f"{number:012x}", place % SEEDS, f"lr={place // SEEDS}"
        cells.append({"arm": ("baseline", "multi")[arm], "point": point, "seed": seed, "trial_id": trial_id})
        cells[-1]["config"] = config
        (folder / "trials" / trial_id).mkdir(parents=True)
        evals = []
        for step in range(1, EVALUATIONS + 1):
            for split, rollouts in (("validation", 1), ("test", 1), ("validation", ROLLOUTS), ("test", ROLLOUTS)):
                solved = rng.random((N, rollouts)) < step / (EVALUATIONS + 5)
                row = {"trial_id": trial_id, "step": step, "optimizer_steps": step, "act_steps": step, "split": split}
                row |= {"sigma": 0.3 * (rollouts > 1), "depth": 4, "rollouts": rollouts, "n": N}
                row |= {"exact_accuracy": float(solved.mean()), "token_accuracy": 0.9}
                bits = np.packbits(solved[:, 0]).tobytes()
                row |= {"correct": np.packbits(solved).tobytes(), "best_q_correct": bits, "majority_correct": bits}
                evals.append(row)
        trial = folder / "trials" / trial_id
        pq.write_table(pa.Table.from_pylist(evals, schema=EVALS_SCHEMA), trial / "evals.parquet")
        (trial / "done.json").write_text(json.dumps({"step": EVALUATIONS, "seconds": {"train": 9.0, "evaluate": 1.0}}))
        (trial / "trial.json").write_text(
            json.dumps({"config": config, "test_digest": "d", "flops_per_act_step": 1000})
        )
    manifest = {"baseline": "baseline", "cells": cells}
    (folder / "sweep.json").write_text(json.dumps(manifest))


def write_tune(folder: Path, trials: int) -> None:
    """An experiment of Tune with so many trials of EVALUATIONS reports each."""
    from ray.train._internal.storage import StorageContext
    from ray.tune import PlacementGroupFactory
    from ray.tune.experiment import Trial
    from ray.tune.registry import register_trainable

    register_trainable("nothing", lambda config: None)
    storage = StorageContext(storage_path=str(folder.parent), experiment_dir_name=folder.name)
    states = []
    for number in range(trials):
        trial = Trial("nothing", config=CONFIG | {"seed": number}, trial_id=f"{number:08x}", stub=True, storage=storage)
        trial.placement_group_factory = PlacementGroupFactory([{"CPU": 1}])
        trial.storage.trial_dir_name = trial.trial_id
        (folder / trial.trial_id).mkdir(parents=True)
        rows = [
            {"exact_accuracy": step / 25, "training_iteration": step, "trial_id": trial.trial_id}
            | {"train_step": step, "failed": "", "messages": [], "done": False, "config": {"job": trial.config}}
            for step in range(1, EVALUATIONS + 1)
        ]
        (folder / trial.trial_id / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / trial.trial_id / "params.json").write_text(json.dumps(trial.config))
        trial.run_metadata.last_result = rows[-1]
        states.append(trial.get_json_state())
    state = {"trial_data": states, "runner_data": {}, "stats": {}}
    (folder / "experiment_state-2026-01-01_00-00-00.json").write_text(json.dumps(state))


def seconds(function: Any, *arguments: Any) -> tuple[float, Any]:
    """How long a call takes, and what it returns."""
    started = time.perf_counter()
    value = function(*arguments)
    return time.perf_counter() - started, value


def main(*sizes: int) -> None:
    """Print a row a size."""
    print(
        f"{'trials':>7}{'gather':>9}{'compare':>9}{'again':>9}{'one new':>9}{'report':>9}{'page MB':>9}{'peak MB':>9}"
        f"{'Tune':>9}{'ratio':>8}"
    )
    for trials in sizes or (1000, 10_000):
        folder = Path(tempfile.mkdtemp(prefix="gather"))
        try:
            write_sweep(folder / "sweep", trials)
            first, tables = seconds(gather, folder / "sweep")
            assert len(tables.trials) == trials
            assert len(tables.evals) == trials * EVALUATIONS * 4
            compared, _ = seconds(lambda t=tables: compare(t.trials, t.evals, t.diagnostics, baseline=t.baseline))
            again, _ = seconds(gather, folder / "sweep")
            shutil.copy(folder / "sweep/trials/000000000000/done.json", folder / "new")
            (folder / "new").replace(folder / "sweep/trials/000000000000/done.json")
            new, tables = seconds(gather, folder / "sweep")
            page, path = seconds(write_report, tables, folder / "report.html")
            # Vega, figures of POINTS grid points, tables of 500 rows, CSVs of a megabyte; of each trial a square.
            assert path.stat().st_size < 4_000_000 + 300 * trials, path.stat().st_size
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            row = f"{trials:7}{first:9.2f}{compared:9.2f}{again:9.2f}{new:9.2f}{page:9.2f}"
            row += f"{path.stat().st_size / 1e6:9.1f}{peak:9.0f}"
            if trials <= TUNE_TRIALS:
                from ray.tune import ExperimentAnalysis

                write_tune(folder / "tune", trials)
                theirs, analysis = seconds(ExperimentAnalysis, str(folder / "tune"))
                loading, frames = seconds(lambda analysis=analysis: analysis.trial_dataframes)
                assert sum(map(len, frames.values())) == trials * EVALUATIONS
                row += f"{theirs + loading:9.2f}{(theirs + loading) / (first - compared):8.1f}x"
            print(row, flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main(*(int(number) for number in sys.argv[1:]))

"""Trial folders -> tables. Safe at any time: a trial's files are whole or not there."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.compare import compare
from results.schema import (
    COMPARISON_SCHEMA,
    EVALS,
    EVALS_SCHEMA,
    MANIFEST,
    TABLES,
    TRIAL,
    TRIALS,
    TRIALS_SCHEMA,
    DamagedFileError,
    read_evals,
    read_json,
    trial_end,
)


@dataclass(frozen=True)
class SweepTables:
    """The tables of a sweep (columns in results.schema), the files they were written to, and what could not be read."""

    sweep: str
    baseline: str
    trials: pd.DataFrame
    evals: pd.DataFrame
    comparison: pd.DataFrame
    files: list[Path]
    problems: list[str]


def gather(sweep_folder: Path, manifest: dict[str, Any] | None = None) -> SweepTables:
    """Read every trial of a sweep, compare, and write tables/{trials,evals,comparison}.parquet.

    `manifest` says which trials belong to it; the default is what its last run wrote (sweep.json). Only what the sweep
    asks for is taken: its trials, and their evaluations up to the steps asked for. A trial with
    a damaged file is left out and named in `problems`. Raises FileNotFoundError if the folder holds no sweep.
    """
    manifest = manifest or read_json(sweep_folder / MANIFEST)
    if manifest is None:
        raise FileNotFoundError(f"{sweep_folder}: no {MANIFEST}; run the sweep first")
    cells: dict[str, list[dict[str, Any]]] = {}
    for cell in manifest["cells"]:
        cells.setdefault(cell["trial_id"], []).append(cell)
    trials: list[dict[str, Any]] = []
    evals = [EVALS_SCHEMA.empty_table()]
    problems: list[str] = []
    for trial_id, places in cells.items():
        folder = sweep_folder / TRIALS / trial_id
        steps = places[0]["config"]["train"]["steps"]
        table = EVALS_SCHEMA.empty_table()
        try:
            table = read_evals(folder / EVALS)
            table = table.filter(pc.field("step") <= steps)
            trials.append(_trial_row(manifest["sweep"], folder, places, steps, table))
        except DamagedFileError as error:
            problems.append(str(error))
            continue
        evals.append(table)
    evals_table = pa.concat_tables(evals)
    trials_table = pa.Table.from_pylist(trials, schema=TRIALS_SCHEMA)
    frames = trials_table.to_pandas(), evals_table.to_pandas()
    comparison = compare(*frames, baseline=manifest["baseline"])
    tables = {
        "trials": trials_table,
        "evals": evals_table,
        "comparison": pa.Table.from_pandas(comparison, schema=COMPARISON_SCHEMA, preserve_index=False),
    }
    (sweep_folder / TABLES).mkdir(parents=True, exist_ok=True)
    files = []
    for name, table in tables.items():
        path = sweep_folder / TABLES / f"{name}.parquet"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        pq.write_table(table, temporary)
        temporary.replace(path)
        files.append(path)
    return SweepTables(manifest["sweep"], manifest["baseline"], *frames, comparison, files, problems)


def _trial_row(sweep: str, folder: Path, places: list[dict[str, Any]], steps: int, evals: pa.Table) -> dict[str, Any]:
    end = trial_end(folder, steps)
    record = read_json(folder / TRIAL) or {}
    seconds = (end.done or {}).get("seconds", {})
    return {
        "sweep": sweep,
        "arm": places[0]["arm"],
        "points": [place["point"] for place in places],
        "seed": places[0]["seed"],
        "trial_id": places[0]["trial_id"],
        "status": end.status,
        "reason": end.reason,
        "step": max(evals.column("step").to_pylist(), default=None),
        "steps": steps,
        "data_digest": record.get("data_digest"),
        "test_digest": record.get("test_digest"),
        "train_seconds": seconds.get("train"),
        "evaluate_seconds": seconds.get("evaluate"),
        "config": json.dumps(places[0]["config"]),
        "provenance": json.dumps(record.get("attempts", [])),
    }

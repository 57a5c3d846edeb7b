"""Trial folders -> tables. Safe at any time: a trial's files are whole or not there."""

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from results.asking import asked_of
from results.compared import COMPARISON_SCHEMA, DIFFERENCES_SCHEMA
from results.comparison import Compared, compare_by_seed
from results.depths import peak
from results.kept import MADE_OF, kept, made_of
from results.looks import Look, all_looks, read_looks, record_looks
from results.pairs import ComparisonError
from results.points import common_point, train_sigma
from results.schema import (
    DIAGNOSIS_SCHEMAS,
    EVALS,
    MANIFEST,
    PARTITION,
    PUZZLES,
    PUZZLES_SCHEMA,
    TRIAL,
    TRIALS,
    VERSION,
    file_schema,
    table_file,
)
from results.storage import Location, remove_leftovers, side_by_side, write_atomically
from results.trial_files import (
    DamagedFileError,
    read_json,
    read_table,
    table_bytes,
    trial_end,
)
from results.trial_tables import trial_table
from results.types import frame, table_of, typed
from results.unchanged import OF_TRIALS, gathered_before, source_of

pc: Any = pyarrow.compute  # makes its functions as it is imported: types are not known


@dataclass(frozen=True)
class SweepTables:
    """The tables of a sweep (columns in results.schema), the files that hold their rows, and what could not be read.

    `folder` is the sweep's own. `unwritten` says why the files could not be written, "" if they were.
    """

    sweep: str
    baseline: str
    trials: pd.DataFrame
    evals: pd.DataFrame
    diagnostics: pd.DataFrame
    comparison: pd.DataFrame
    differences: pd.DataFrame
    files: list[Location]
    problems: list[str]
    folder: Location
    puzzles: pd.DataFrame = field(default_factory=pd.DataFrame)
    windows: pd.DataFrame = field(default_factory=pd.DataFrame)
    depths: pd.DataFrame = field(default_factory=pd.DataFrame)
    restarts: pd.DataFrame = field(default_factory=pd.DataFrame)
    robustness: pd.DataFrame = field(default_factory=pd.DataFrame)
    unwritten: str = ""


def gather(
    sweep_folder: Location,
    manifest: dict[str, Any] | None = None,
    *,
    write: bool = True,
    tables_in: Location | None = None,
) -> SweepTables:
    """Read every trial of a sweep, compare, and write its part of the storage's tables (results.schema).

    The sweep is called as its folder is. `manifest` says which trials belong to it; the default is what its last run
    wrote (sweep.json). Only what the sweep asks for is taken: its trials, and their evaluations up to the steps asked
    for. A trial whose files are those of the last time is taken from the tables. A trial with a damaged file has no
    evaluations, is `unreadable` and named in `problems`. Without `write` nothing is written; a storage that cannot be
    written is read all the same. `tables_in` is a storage of the caller's own, in which the tables are kept from one
    call to the next; the sweep's storage is then left as it is. Raises FileNotFoundError if the folder holds no sweep.
    """
    manifest = manifest or read_json(sweep_folder / MANIFEST)
    if manifest is None:
        raise FileNotFoundError(f"{sweep_folder}: no {MANIFEST}; run the sweep first")
    cells: dict[str, list[dict[str, Any]]] = {}
    for cell in manifest["cells"]:
        cells.setdefault(cell["trial_id"], []).append(cell)
    folder, sweep = sweep_folder / TRIALS, sweep_folder.name
    listed = side_by_side(folder, lambda name: source_of(folder / name, cells[name]), cells)
    sources = dict(zip(cells, listed, strict=True))
    homes = [sweep_folder] if tables_in is None else [tables_in / sweep, sweep_folder]
    own = homes[0]
    before = max((gathered_before(home, sources) for home in homes), key=lambda found: len(found["trials"]))
    rows = {row["trial_id"]: row for row in before["trials"].to_pylist()}
    parts, problems = {name: [before[name]] for name in OF_TRIALS}, []
    changed = [trial_id for trial_id in cells if trial_id not in rows]
    read = side_by_side(folder, lambda name: _read_trial(folder / name, cells[name]), changed)
    for trial_id, found in zip(changed, read, strict=True):
        if isinstance(found, DamagedFileError):
            problems.append(str(found))
            # Without a source it is read again the next time.
            unreadable = {"status": "unreadable", "reason": str(found), "provenance": "[]", "source": ""}
            rows[trial_id] = _planned_row(cells[trial_id]) | unreadable
            continue
        row, of_trial = found
        # A running trial is read again: its process may die and leave its files as they are.
        rows[trial_id] = row | {"source": "" if row["status"] == "running" else sources[trial_id]}
        for name, rows_of_trial in of_trial.items():
            parts[name].append(rows_of_trial)
    order = [trial_id for trial_id in cells if trial_id in rows]
    if write:
        remove_leftovers(own)
    written_by = {b"gathering": uuid.uuid4().hex.encode()} | VERSION
    tables = {
        "trials": pa.Table.from_pylist([rows[trial_id] for trial_id in order], schema=file_schema("trials")),
        **{name: _in_order(pa.concat_tables(tables), order) for name, tables in parts.items()},
    }
    frames = {name: frame(table) for name, table in tables.items()}
    for each in frames.values():
        each.insert(0, PARTITION, pd.Series(sweep, each.index, dtype="str"))
    looks = _looks(sweep_folder, problems)
    how = asked_of(manifest)
    compared_rows = [rows[trial_id] for trial_id in order]
    try:
        digest = made_of(compared_rows, how, looks)
        compared = next((stored for home in homes if (stored := kept(home, digest)) is not None), None)
        if compared is None:
            named = {name: frames[name] for name in ("trials", "evals", "diagnostics")}
            compared = compare_by_seed(**named, **how, looks=looks)
        looked = None if looks is None else all_looks(looks, *compared)
        written_by[MADE_OF] = made_of(compared_rows, how, looked)
    except ComparisonError as error:  # such as a baseline of which no trial can be read: the rest is shown
        problems.append(f"the comparison, for {error}")
        compared, looked = Compared(typed([], COMPARISON_SCHEMA), typed([], DIFFERENCES_SCHEMA)), looks
    for name, table in compared._asdict().items():
        tables[name] = table_of(table, file_schema(name))
    tables["puzzles"] = _puzzles(sweep_folder / PUZZLES, frames["trials"].test_digest.dropna().unique(), problems)
    files: list[Location] = []
    unwritten = ""
    try:
        for name, table in tables.items() if write else ():
            path = _write(table.replace_schema_metadata(written_by), name, own)
            files += [path] if len(table) else []
        if write and tables_in is None and looks is not None and looked is not None:
            record_looks(sweep_folder, looks, looked)
    except OSError as error:
        unwritten = f"{error.filename or sweep_folder.parent}: {error.strerror or error}"
    return SweepTables(
        sweep,
        manifest["baseline"],
        comparison=compared.comparison,
        differences=compared.differences,
        files=files,
        problems=problems,
        folder=sweep_folder,
        puzzles=frame(tables["puzzles"]),
        unwritten=unwritten,
        **frames,
    )


def _read_trial(
    folder: Location, places: list[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, pa.Table]] | DamagedFileError:
    """A trial's row, its evaluations and its diagnoses up to the steps asked for; or what is wrong with its files."""
    steps = places[0]["config"]["train"]["steps"]
    try:
        found = {"evals": _up_to(steps, trial_table(folder, "evals"))}
        evals = found["evals"]
        for name in DIAGNOSIS_SCHEMAS:
            if name == "diagnostics" or len(found["diagnostics"]):  # without it there are no others to ask for
                found[name] = _up_to(steps, trial_table(folder, name))
        for name, table in found.items():
            if others := set(pc.unique(table["trial_id"]).to_pylist()) - {folder.name}:
                raise DamagedFileError(
                    f"{folder / name}.parquet: holds rows of another trial, {min(others)}; move it away"
                )
        row = _trial_row(folder, places, steps, evals)
        if row["status"] == "done" and not len(evals):
            raise DamagedFileError(f"{folder / EVALS}: holds no rows of a trial that is done; move it away")
        return row, found
    except DamagedFileError as error:
        return error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # unforeseen by the records
        return DamagedFileError(f"{folder}: cannot be read ({type(error).__name__}: {error}); move it away")


def _looks(folder: Location, problems: list[str]) -> list[Look] | None:
    """The looks at the sweep before, None if they cannot be read."""
    try:
        return read_looks(folder)
    except DamagedFileError as error:
        problems.append(f"p and the verdicts, for {error}")
        return None


def _puzzles(folder: Location, digests: Iterable[str], problems: list[str]) -> pa.Table:
    """The test puzzles of the trials; of those that an earlier version trained there are none."""
    parts = [PUZZLES_SCHEMA.empty_table()]
    for digest in digests:
        try:
            parts.append(read_table(folder / f"{digest}.parquet", PUZZLES_SCHEMA))
        except DamagedFileError as error:
            problems.append(str(error))
    return pa.concat_tables(parts)


def _up_to(steps: int, table: pa.Table) -> pa.Table:
    # Most tables end there anyway, and a filter costs as much as reading them.
    return table if (pc.max(table["step"]).as_py() or 0) <= steps else table.filter(pc.field("step") <= steps)


def _in_order(table: pa.Table, trial_ids: list[str]) -> pa.Table:
    places = {trial_id: place for place, trial_id in enumerate(trial_ids)}
    return table.take(np.argsort([places[name] for name in table["trial_id"].to_pylist()], kind="stable"))


def _write(table: pa.Table, name: str, sweep_folder: Location) -> Location:
    path = table_file(sweep_folder.parent, name, sweep_folder.name)
    for folder in (path.parent, sweep_folder):
        folder.mkdir(parents=True, exist_ok=True)
    # What a kill leaves of a file must not stand in the data set: polars refuses a folder that holds other files.
    write_atomically(path, table_bytes(table), scratch=sweep_folder)
    return path


def _planned_row(places: list[dict[str, Any]]) -> dict[str, Any]:
    """What a trial's row says of it before it starts."""
    config = places[0]["config"]
    return {
        "arm": places[0]["arm"],
        "point": common_point([place["point"] for place in places]),
        "points": [place["point"] for place in places],
        "seed": places[0]["seed"],
        "trial_id": places[0]["trial_id"],
        "model": config["model"]["arch"],
        "task": config["task"]["name"],
        "objective": config["objective"],
        "rollout": config["rollout"],
        "rollouts": (config["perturb"] or {}).get("rollouts", 1),
        "train_sigma": train_sigma(config),
        "steps": config["train"]["steps"],
        "config": json.dumps(config),
    }


def _trial_row(folder: Location, places: list[dict[str, Any]], steps: int, evals: pa.Table) -> dict[str, Any]:
    end = trial_end(folder, steps)
    if end.status == "unreadable":
        raise DamagedFileError(end.reason)
    record = read_json(folder / TRIAL) or {}
    attempts = record.get("attempts", [])
    last_attempt = attempts[-1] if attempts else {}
    seconds = (end.done or {}).get("seconds", {})
    spent = sum(seconds.get(name, 0) for name in ("train", "evaluate"))
    evaluations = len(set(evals["step"].to_pylist()))
    step = max(evals["step"].to_pylist(), default=None)
    flops = record.get("flops_per_act_step")
    peak_depth, decays = peak(_accuracy_by_depth(evals, step))
    return _planned_row(places) | {
        "status": end.status,
        "reason": end.reason,
        "started": _time(attempts[0].get("started")) if attempts else None,
        "ended": _time(end.ended),
        "step": step,
        "peak_depth": peak_depth,
        "decays": decays,
        "data_digest": record.get("data_digest"),
        "test_digest": record.get("test_digest"),
        "parameters": record.get("parameters"),
        "commit": last_attempt.get("commit"),
        "device": last_attempt.get("device"),
        "flops_per_act_step": flops,
        "flops_per_step": _flops_spent(evals, flops) / step if flops and step else None,
        "train_seconds": seconds.get("train"),
        "evaluate_seconds": seconds.get("evaluate"),
        "evaluate_share": seconds["evaluate"] / spent if spent else None,
        "device_hours": _device_hours(seconds, last_attempt),
        "seconds_per_evaluation": seconds["evaluate"] / evaluations if seconds and evaluations else None,
        "provenance": json.dumps(attempts),
    }


def _flops_spent(evals: pa.Table, of_act_step: int) -> float:
    """FLOPs of the training before the last evaluation. Evaluations of older versions say ACT steps alone."""
    read = evals.select(["act_steps", "train_flops"]).to_pylist()
    last = max(read, key=lambda row: row["act_steps"])
    return of_act_step * last["act_steps"] if last["train_flops"] is None else last["train_flops"]


def _accuracy_by_depth(evals: pa.Table, step: int | None) -> dict[int, float]:
    """The clean run's on test, at a step."""
    read = evals.select(["split", "sigma", "step", "depth", "exact_accuracy"]).to_pylist()
    clean = (row for row in read if row["split"] == "test" and row["sigma"] == 0 and row["step"] == step)
    return {row["depth"]: row["exact_accuracy"] for row in clean}


def _time(text: str | None) -> datetime | None:
    """A time of the form 2026-01-31T23:59:59Z."""
    try:
        return datetime.strptime(text or "", "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except (TypeError, ValueError):  # of an older version, or edited by hand
        return None


def _device_hours(seconds: dict[str, float], attempt: dict[str, Any]) -> float | None:
    if not seconds or "threads" not in attempt:
        return None
    devices = len(attempt.get("workers") or [None]) * (1 if attempt.get("on_gpu") else attempt["threads"])
    return (seconds["train"] + seconds["evaluate"]) / 3600 * devices

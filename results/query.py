"""The tables of all sweeps that are gathered in a storage, as DataFrames."""

import json
from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from results.diagnosis_schema import DIAGNOSIS_SCHEMAS
from results.rows import rows_of, unpack_correct, with_when
from results.schema import PARTITION, TABLE_SCHEMAS, TABLES, TRIALS, UNROLLS, UNROLLS_SCHEMA, check_version
from results.storage import Location, location, on_filesystem
from results.trial_files import read_table
from results.types import POINT, frame

_OF_TRIAL = ("arm", "point", "seed", "model", "task", "objective", "status")
_TRIAL = [PARTITION, "trial_id"]  # the same trial may stand in several sweeps

Value = str | int | float


def load(
    table: str, storage: str | Location = "runs", columns: list[str] | None = None, **filters: Value | Iterable[Value]
) -> pd.DataFrame:
    """A table of every sweep gathered in `storage`, a folder or s3://bucket/prefix.

    The tables are those of results.schema, TABLE_SCHEMAS; the first column is the sweep. `columns` leaves out the
    others. Each filter is a column and the value, or the values, that it may have:
    `load("evals", sweep="quickstart", arm=["baseline", "multi4"], split="test", sigma=0)`. They are pushed down: only
    the files of these sweeps are opened, and only what fits is read. evals and the tables of diagnoses have the columns
    arm, point, seed, model, task, objective and status of their trial beside their own; puzzles are found by those of
    the trials that were scored on them. A trial that several grid points share is found by each of them; its own
    `point` is what they agree in. Types are those of results.types. Rows of a sweep that is not gathered yet are not
    there: `rrm results gather SWEEP` gathers it.

    Raises KeyError for a table or column that there is not, FileNotFoundError if nothing in `storage` is gathered,
    OldTableError for tables of an earlier version, StorageError if S3 does not answer, PlaceError if `storage` is no
    place.
    """
    if table not in TABLE_SCHEMAS:
        raise KeyError(f"{table}: no such table; there are {', '.join(TABLE_SCHEMAS)}")
    schema = TABLE_SCHEMAS[table]
    of_trial = {name: value for name, value in filters.items() if name not in schema.names and name in _OF_TRIAL}
    needs_trials = table == "evals" or table in DIAGNOSIS_SCHEMAS
    known = [*schema.names, *(_OF_TRIAL if needs_trials else ())]
    unknown = [name for name in (*filters, *(columns or ())) if name not in known]
    if table == "puzzles":
        unknown = [name for name in unknown if name not in of_trial]
    if unknown:
        raise KeyError(f"{', '.join(unknown)}: no column of {table}; it has {', '.join(known)}")
    own = {name: value for name, value in filters.items() if name in schema.names}
    place = location(storage)
    if table == "trials":
        at, also = own.pop(POINT, None), [] if columns is None or "points" in columns else ["points"]
        found = _at_points(_scan(place, table, own, None if columns is None else [*columns, *also]), at)
        return frame(found.drop_columns(also))
    if not needs_trials and not of_trial:
        return frame(_scan(place, table, own, columns))
    named = {name: value for name, value in own.items() if name in (*_TRIAL, "test_digest")}
    at = of_trial.pop(POINT, None)
    trials = _at_points(_scan(place, "trials", of_trial | named, [*_TRIAL, *_OF_TRIAL, "points", "test_digest"]), at)
    if table == "puzzles":
        scored = frame(trials.select([PARTITION, "test_digest"])).drop_duplicates()
        return frame(_scan(place, table, own, None)).merge(scored).reindex(columns=columns or known)
    if of_trial or at is not None:
        own |= {name: trials[name].unique().to_pylist() for name in _TRIAL}
    read = None if columns is None else [*_TRIAL, *(name for name in columns if name in schema.names[2:])]
    both = frame(trials.drop_columns(["points", "test_digest"])).merge(frame(_scan(place, table, own, read)), on=_TRIAL)
    return both.reindex(columns=columns or known)


def _at_points(trials: pa.Table, points: Value | Iterable[Value] | None) -> pa.Table:
    """The trials that stand for one of the points."""
    if points is None:
        return trials
    wanted = {points} if isinstance(points, str) or not isinstance(points, Iterable) else set(points)
    return trials.filter(pa.array([not wanted.isdisjoint(mine) for mine in trials["points"].to_pylist()], pa.bool_()))


def _scan(
    storage: Location, table: str, filters: dict[str, Value | Iterable[Value]], columns: list[str] | None
) -> pa.Table:
    """The rows of a table that fit."""
    schema, fits = TABLE_SCHEMAS[table], None
    for name, value in filters.items():
        values = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
        kind = schema.field(name).type
        # Not isin for a number: pyarrow 26 finds no 0.0 by it where a file's statistics say -0.0 to 0.0.
        is_one = [ds.field(name) == pa.scalar(one, kind) for one in values] if pa.types.is_floating(kind) else []
        one = reduce(or_, is_one) if is_one else ds.field(name).isin(pa.array(values, kind))
        fits = one if fits is None else fits & one
    partitioning = ds.partitioning(pa.schema([schema.field(PARTITION)]), flavor="hive")

    def read(files: Any, name: str) -> pa.Table:
        # The schema is given, so that a column that an older sweep's table lacks is null.
        data = ds.dataset(name, schema=schema, filesystem=files, format="parquet", partitioning=partitioning)
        for part in data.get_fragments(filter=fits):
            check_version(part.physical_schema, part.path)
        return data.to_table(columns=columns, filter=fits)

    folder = storage / TABLES / table
    try:
        return on_filesystem(folder, read)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder}: not there; gather a sweep first: rrm results gather SWEEP") from error


def unroll(storage: str | Location, sweep: str, trial_id: str) -> pd.DataFrame:
    """What a trial's last evaluation answered to the first test puzzles after every ACT step, clean and perturbed.

    Read from the trial's own folder, gathered or not. The columns are those of
    UNROLLS_SCHEMA, a row an example and sigma; none before the first evaluation. Raises DamagedFileError; OSError.
    """
    path = location(storage) / sweep / TRIALS / trial_id / UNROLLS
    return read_table(path, UNROLLS_SCHEMA).to_pandas()


def unpack(evals: pd.DataFrame) -> pd.DataFrame:
    """Whether each example is solved: a row a row of the evals table, example and rollout (first rollout 0).

    Columns sweep, trial_id, step, split, when, sigma, depth, example, rollout, solved. With the trials' test_digest,
    the rows of test join to the puzzles table by sweep, test_digest and example.
    """
    keys = ["sweep", "trial_id", "step", "split", "when", "sigma", "depth"]
    sizes = (evals.n * evals.rollouts).to_numpy(dtype=int)
    packed = rows_of(evals.loc[:, ["correct", "n", "rollouts"]])
    solved = [unpack_correct(row.correct, row.n, row.rollouts) for row in packed]
    found = with_when(evals).loc[evals.index.repeat(sizes), keys].reset_index(drop=True)
    places = [np.indices(one.shape).reshape(2, -1) for one in solved]
    example, rollout = np.concatenate(places, axis=1) if places else np.empty((2, 0), int)
    bits = np.concatenate([one.ravel() for one in solved]) if solved else np.empty(0, bool)
    return found.assign(example=example, rollout=rollout, solved=bits).astype(
        {"example": "Int64", "rollout": "Int64", "solved": "boolean"}
    )


def configs(trials: pd.DataFrame) -> pd.DataFrame:
    """The configuration of each trial [trials], a column a field, such as optim.lr; trial_id is the index."""
    flat = pd.json_normalize([json.loads(config) for config in trials.config])
    return flat.set_index(pd.Index(trials.trial_id, name="trial_id"))

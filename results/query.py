"""The gathered tables of all sweeps under a storage, as DataFrames."""

import json
from collections.abc import Iterable
from functools import reduce
from operator import or_
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from results.schema import (
    COMPARISON_SCHEMA,
    DIAGNOSTICS_SCHEMA,
    EVALS_SCHEMA,
    TABLES,
    TRIALS,
    TRIALS_SCHEMA,
    UNROLLS,
    UNROLLS_SCHEMA,
    read_table,
)
from results.storage import location

_SCHEMAS = {
    "trials": TRIALS_SCHEMA,
    "evals": EVALS_SCHEMA,
    "diagnostics": DIAGNOSTICS_SCHEMA,
    "comparison": COMPARISON_SCHEMA,
}
_OF_TRIAL = ("sweep", "arm", "seed", "model", "task", "status")

Value = str | int | float


def load(
    table: str, storage: str | Path = "runs", columns: list[str] | None = None, **filters: Value | Iterable[Value]
) -> pd.DataFrame:
    """A table of every gathered sweep under `storage`: trials, evals, diagnostics or comparison.

    `columns` leaves out the others. Each filter is a column and the value, or the values, that it may have:
    `load("evals", sweep="quickstart", arm=["baseline", "multi4"], split="test", sigma=0)`. They are pushed down: only
    what fits is read. evals and diagnostics have the columns sweep, arm, seed, model, task and status of their trial
    beside their own. Rows of a sweep that is not gathered yet are not there: `rrm results SPEC` gathers it.

    Raises KeyError for a table or column that there is not, FileNotFoundError if nothing under `storage` is gathered.
    """
    if table not in _SCHEMAS:
        raise KeyError(f"{table}: no such table; there are {', '.join(_SCHEMAS)}")
    schema = _SCHEMAS[table]
    of_trial = {name: value for name, value in filters.items() if name not in schema.names and name in _OF_TRIAL}
    needs_trials = table in ("evals", "diagnostics")
    known = [*schema.names, *(_OF_TRIAL if needs_trials else ())]
    unknown = [name for name in (*filters, *(columns or ())) if name not in known]
    if unknown:
        raise KeyError(f"{', '.join(unknown)}: no column of {table}; it has {', '.join(known)}")
    own = {name: value for name, value in filters.items() if name in schema.names}
    if not needs_trials:
        return _scan(table, Path(storage), own, columns)
    trials = _scan("trials", Path(storage), of_trial, ["trial_id", *_OF_TRIAL])
    read = None if columns is None else ["trial_id", *(name for name in columns if name in schema.names)]
    frames = []
    for sweep, members in trials.groupby("sweep", sort=False):
        rows = _scan(table, Path(storage) / str(sweep), own | {"trial_id": members.trial_id.tolist()}, read)
        frames.append(members.merge(rows, on="trial_id"))
    joined = pd.concat(frames) if frames else trials.merge(schema.empty_table().to_pandas(), on="trial_id")
    return joined.reset_index(drop=True).reindex(columns=columns or known)


def _scan(
    table: str, folder: Path, filters: dict[str, Value | Iterable[Value]], columns: list[str] | None
) -> pd.DataFrame:
    """The rows of a table under a storage, or a sweep's own folder, that fit."""
    pattern = f"{TABLES}/{table}.parquet"
    files = sorted(str(path) for path in (*folder.glob(pattern), *folder.glob(f"*/{pattern}")))
    if not files:
        raise FileNotFoundError(f"{folder}: no {pattern}; gather a sweep first: rrm results SPEC")
    fits = None
    for name, value in filters.items():
        values = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
        kind = _SCHEMAS[table].field(name).type
        # Not isin for a number: pyarrow 26 finds no 0.0 by it where a file's statistics say -0.0 to 0.0.
        is_one = [ds.field(name) == pa.scalar(one, kind) for one in values] if pa.types.is_floating(kind) else []
        one = reduce(or_, is_one) if is_one else ds.field(name).isin(pa.array(values, kind))
        fits = one if fits is None else fits & one
    # The schema is given, so that a column that an older sweep's table lacks is null.
    data = ds.dataset(files, schema=_SCHEMAS[table], format="parquet")
    return data.to_table(columns=columns, filter=fits).to_pandas()


def unroll(storage: str | Path, sweep: str, trial_id: str) -> pd.DataFrame:
    """What a trial's last evaluation answered to the first test puzzles after every ACT step, clean and perturbed.

    Read from the trial's own folder, gathered or not; `storage` may be an s3:// URL. The columns are those of
    UNROLLS_SCHEMA, a row an example and sigma; none before the first evaluation. Raises DamagedFileError; OSError.
    """
    path = location(str(storage)) / sweep / TRIALS / trial_id / UNROLLS
    return read_table(path, UNROLLS_SCHEMA).to_pandas()


def configs(trials: pd.DataFrame) -> pd.DataFrame:
    """The configuration of each trial [trials], a column a field, such as optim.lr; trial_id is the index."""
    flat = pd.json_normalize([json.loads(config) for config in trials.config])
    return flat.set_index(pd.Index(trials.trial_id, name="trial_id"))

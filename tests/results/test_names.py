"""A sweep's name is a partition's: refused where one of the readers would take it for another thing than text."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from results.names import sweep_name_problem

READ_AS_TEXT = [
    "quickstart",
    "sigma-ladder",
    "4x4-trm",
    "9x9",
    "run.3",
    "2024-01-15-ladder",
    "v1.2",
    "1h",
    "null",
    "e5",
]
REFUSED = [
    *(
        "001",
        "01",
        "7",
        "2024",
        "20240115",
        "9999999999999999999999",
        "0x10",
        "0b1",
        "1.0",
        "1.",
        "1e5",
        "1e-5",
        "1e+5",
    ),
    *("true", "True", "FALSE", "NaN", "inf", "Infinity", "epoch"),
    *("2024-01-15", "2024-1-5", "15.01.2024", "15-1-24", "1.2.3", "10-10-10", "00001-01-01", "20240115T101010"),
    *("20240115T101010Z", "2024-01-15T101010"),
]


def read_by_all(folder: Path) -> dict[str, list[str]]:
    """The sweeps that each reader finds, where it takes them for text; else what it takes them for."""
    duckdb, polars = (pytest.importorskip(name, reason=f"{name} is not installed") for name in ("duckdb", "polars"))
    found = pd.read_parquet(folder).sweep
    by_arrow = ds.dataset(folder, partitioning="hive").to_table()["sweep"]
    by_polars = polars.read_parquet(folder)["sweep"]
    query = f"select typeof(sweep), sweep from read_parquet('{folder}/*/*.parquet')"
    by_duckdb = duckdb.connect().execute(query).fetchall()
    return {
        "pandas": found.astype(object).tolist() if not pd.api.types.is_numeric_dtype(found) else ["a number"],
        "pyarrow": by_arrow.to_pylist() if pa.types.is_string(by_arrow.type) else [str(by_arrow.type)],
        "polars": by_polars.to_list() if by_polars.dtype == polars.String else [str(by_polars.dtype)],
        "duckdb": [name if kind == "VARCHAR" else kind for kind, name in by_duckdb],
    }


def partitions(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / f"sweep={name}").mkdir()
        pq.write_table(pa.table({"x": [1]}), folder / f"sweep={name}" / "t.parquet")
    return folder


@pytest.mark.parametrize("name", READ_AS_TEXT)
def test_what_is_allowed_is_text_to_every_reader(name, tmp_path):
    assert sweep_name_problem(name) is None
    for reader, found in read_by_all(partitions(tmp_path, name)).items():
        assert found == [name], reader


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_no_text_to_one_of_them(name, tmp_path):
    mend = f"put a word into it, such as sweep-{name}"
    problem = f"{name!r} is a number, a date or a truth value to pandas, pyarrow, polars or duckdb; {mend}"
    assert sweep_name_problem(name) == problem
    assert sweep_name_problem(f"sweep-{name}") is None
    assert any(found != [name] for found in read_by_all(partitions(tmp_path, name)).values())


def test_names_that_are_allowed_stay_text_together(tmp_path):
    for reader, found in read_by_all(partitions(tmp_path, *READ_AS_TEXT)).items():
        assert sorted(found) == sorted(READ_AS_TEXT), reader

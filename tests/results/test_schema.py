"""Reading a trial's files while the trial writes them."""

import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from results.columns import completed
from results.schema import EVALS_SCHEMA
from results.trial_files import DamagedFileError, read_table

# Tables of one row and of two thousand, by turns, each written whole and renamed, as a trial does.
REPLACE_AGAIN_AND_AGAIN = """
import sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from results.schema import EVALS_SCHEMA
path = Path(sys.argv[1])
while True:
    for n in (1, 2000):
        rows = [{"trial_id": "x" * (i % 7), "step": i, "correct": bytes([i % 251]) * (i % 90)} for i in range(n)]
        pq.write_table(pa.Table.from_pylist(rows, schema=EVALS_SCHEMA), path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
"""


def test_a_table_that_is_replaced_while_it_is_read_is_the_old_or_the_new_one(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(EVALS_SCHEMA.empty_table(), path)
    writer = subprocess.Popen([sys.executable, "-c", REPLACE_AGAIN_AND_AGAIN, str(path)])
    seen, reads, until = set(), 0, time.monotonic() + 60
    try:
        while (reads < 300 or not seen >= {1, 2000}) and time.monotonic() < until:
            seen.add(read_table(path, EVALS_SCHEMA).num_rows)
            reads += 1
    finally:
        writer.kill()
        writer.wait()
    assert seen - {0} == {1, 2000}


def test_a_table_of_an_older_version_is_read_with_what_came_later(tmp_path):
    path = tmp_path / "rows.parquet"
    newer = [field.name for field in EVALS_SCHEMA if b"before" in field.metadata]
    pq.write_table(EVALS_SCHEMA.empty_table().drop_columns(newer), path)
    assert read_table(path, EVALS_SCHEMA).schema.equals(EVALS_SCHEMA)
    row = dict.fromkeys(EVALS_SCHEMA.names, 0) | {"correct": b"", "trial_id": "x", "split": "test"}
    table = pa.Table.from_pylist([row], schema=pa.schema([(f.name, f.type) for f in EVALS_SCHEMA if f.name == "step"]))
    assert "winner_entropy" in newer
    assert completed(table, table.schema.append(EVALS_SCHEMA.field("winner_entropy")))["winner_entropy"].null_count == 1
    pq.write_table(EVALS_SCHEMA.empty_table().drop_columns(["step"]), path)
    with pytest.raises(DamagedFileError, match="not a table of rows"):
        read_table(path, EVALS_SCHEMA)

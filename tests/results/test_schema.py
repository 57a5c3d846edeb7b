"""Reading a trial's files while the trial writes them."""

import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from results import diagnosis
from results.columns import completed
from results.diagnosed import judged_by
from results.diagnosis_schema import DIAGNOSTICS_SCHEMA
from results.schema import EVALS_SCHEMA
from results.trial_files import DamagedFileError, read_table
from results.types import frame

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


# The columns that evals and diagnostics began with, as they are in the storages of then.
FIRST_EVALS = [
    "trial_id",
    "step",
    "optimizer_steps",
    "act_steps",
    "train_loss",
    "train_sigma",
    "noise_rms_z_H",
    "noise_rms_z_L",
    "split",
    "sigma",
    "depth",
    "rollouts",
    "n",
    "exact_accuracy",
    "all_exact_accuracy",
    "any_exact_accuracy",
    "best_q_exact_accuracy",
    "majority_exact_accuracy",
    "token_accuracy",
    "valid_accuracy",
    "shortest_accuracy",
    "lm_loss",
    "correct",
    "best_q_correct",
    "majority_correct",
]
FIRST_DIAGNOSTICS = {
    "trial_id": "x", "step": 4, "example": 0, "solved": True, "q_halt": 1.0, "sub_updates": 4,
    "exponents": [0.1, -0.1], "late_exponents": [0.1, -0.1], "lambda_1": 0.1, "spectral_mean": 0.0, "n_pos0": 1,
    "n_pos": 1, "late_drift": 0.5, "relative_late_drift": 0.1, "settled": True,
}  # fmt: skip


def test_a_diagnosis_of_an_older_version_is_read_with_what_came_later(tmp_path):
    path = tmp_path / "diagnostics.parquet"
    rows = [FIRST_DIAGNOSTICS | {"example": n, "solved": n < 2, "exponents": [0.1 * n, -0.1]} for n in range(4)]
    schema = pa.schema([(name, DIAGNOSTICS_SCHEMA.field(name).type) for name in FIRST_DIAGNOSTICS])
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    read = read_table(path, DIAGNOSTICS_SCHEMA)
    assert read["act_steps"].null_count == read["valid"].null_count == 4
    examples = frame(read)
    assert judged_by(examples) == ["solved"]
    cells = diagnosis.two_by_two(examples)
    assert cells.n.tolist() == [2, 2, 0, 0]
    assert cells.token_accuracy.isna().all()
    assert diagnosis.auc(examples, measures=["-lambda_1"], resamples=20).auc.tolist() == [1.0]
    assert not len(diagnosis.fates(examples))


def test_a_table_of_an_older_version_is_read_with_what_came_later(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(EVALS_SCHEMA.empty_table().select(FIRST_EVALS), path)
    assert read_table(path, EVALS_SCHEMA).schema.equals(EVALS_SCHEMA)
    row = dict.fromkeys(EVALS_SCHEMA.names, 0) | {"correct": b"", "trial_id": "x", "split": "test"}
    table = pa.Table.from_pylist([row], schema=pa.schema([(f.name, f.type) for f in EVALS_SCHEMA if f.name == "step"]))
    assert completed(table, table.schema.append(EVALS_SCHEMA.field("winner_entropy")))["winner_entropy"].null_count == 1
    pq.write_table(EVALS_SCHEMA.empty_table().drop_columns(["step"]), path)
    with pytest.raises(DamagedFileError, match="not a table of rows"):
        read_table(path, EVALS_SCHEMA)

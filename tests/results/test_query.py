"""Questions to the tables of several sweeps, as a notebook asks them."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import results
from results.schema import EVALS_SCHEMA, TRIALS_SCHEMA, UNROLLS_SCHEMA, DamagedFileError
from results.storage import location, write_atomically


@pytest.fixture
def storage(tmp_path):
    """Two sweeps, two arms, two seeds, two steps on two splits; the older sweep's evals lack a column."""
    for sweep, model in (("first", "hrm"), ("second", "trm")):
        trials, evals = [], []
        for arm in ("baseline", "multi"):
            for seed in (0, 1):
                trial_id = f"{sweep}-{arm}-{seed}"
                config = f'{{"optim": {{"lr": 0.{seed + 1}}}}}'
                trials.append({"sweep": sweep, "arm": arm, "points": [""], "seed": seed, "trial_id": trial_id})
                trials[-1] |= {"model": model, "status": "done", "rollout": "parallel_fixed", "config": config}
                for step, accuracy in ((0, 0.25), (10, 0.5 + 0.125 * (arm == "multi"))):
                    for split in ("validation", "test"):
                        row = {"trial_id": trial_id, "step": step, "split": split, "sigma": 0.0, "depth": 4}
                        evals.append(row | {"exact_accuracy": accuracy, "n": 4, "rollouts": 1})
        folder = tmp_path / sweep / "tables"
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(trials, schema=TRIALS_SCHEMA), folder / "trials.parquet")
        table = pa.Table.from_pylist(evals, schema=EVALS_SCHEMA)
        pq.write_table(table.drop_columns(["train_sigma"]) if sweep == "first" else table, folder / "evals.parquet")
    return tmp_path


def test_every_sweep_under_a_storage_is_one_table(storage):
    assert len(results.load("trials", storage)) == 8
    evals = results.load("evals", storage)
    assert len(evals) == 32
    assert evals.groupby("sweep").model.unique().map(list).to_dict() == {"first": ["hrm"], "second": ["trm"]}
    assert evals.train_sigma.isna().all()


def test_filters_of_the_table_and_of_its_trials(storage):
    evals = results.load("evals", storage, sweep="second", arm="multi", split="test", step=[10, 20])
    assert evals[["sweep", "arm", "split", "step"]].drop_duplicates().values.tolist() == [
        ["second", "multi", "test", 10]
    ]
    assert evals.seed.tolist() == [0, 1]
    assert results.load("evals", storage, model="hrm", sigma=0).sweep.unique().tolist() == ["first"]
    few = results.load("evals", storage, ["arm", "exact_accuracy"], seed=1)
    assert few.columns.tolist() == ["arm", "exact_accuracy"]
    assert len(few) == 16
    assert len(results.load("evals", storage, arm="nobody")) == 0


def test_what_is_asked_for_and_is_not_there_is_named(storage, tmp_path):
    with pytest.raises(KeyError, match="sigmas: no column of evals; it has trial_id, step"):
        results.load("evals", storage, sigmas=1)
    with pytest.raises(KeyError, match="no such table; there are trials"):
        results.load("eval", storage)
    with pytest.raises(FileNotFoundError, match="gather a sweep first: rrm results SPEC"):
        results.load("trials", tmp_path / "nothing")


def test_the_seed_tables_line_comes_out_of_a_stored_table(storage):
    trials, evals = (results.load(name, storage, sweep="first", seed=0) for name in ("trials", "evals"))
    assert results.sentences(results.snapshot(trials, evals)).tolist() == [
        "HRM fixed baseline: initial 0.2500, best 0.5000 @ 10, final 0.5000",
        "HRM fixed multi: initial 0.2500, best 0.6250 @ 10, final 0.6250",
    ]
    curve = results.curve(trials, evals)
    assert curve[(curve.arm == "multi") & (curve.split == "test")]["mean"].tolist() == [0.25, 0.625]


def test_configs_are_columns(storage):
    trials = results.load("trials", storage, arm="multi", sweep="first")
    assert results.configs(trials)["optim.lr"].to_dict() == {"first-multi-0": 0.1, "first-multi-1": 0.2}


UNROLL = {
    "trial_id": "x",
    "step": 10,
    "example": 0,
    "sigma": 0.5,
    "question": "1..",
    "answer": "123",
    "predicted": ["1??", "123"],
    "q_halt": [-1.0, 2.5],
}


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_trials_unrolls_are_read_from_its_own_folder(kind, tmp_path, request):
    storage = str(tmp_path) if kind == "folder" else request.getfixturevalue("bucket") + "/a/prefix"
    assert results.unroll(storage, "first", "x").columns.tolist() == UNROLLS_SCHEMA.names
    assert len(results.unroll(storage, "first", "x")) == 0
    folder = location(storage) / "first" / "trials" / "x"
    folder.mkdir(parents=True)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([UNROLL], schema=UNROLLS_SCHEMA), sink)
    write_atomically(folder / "unrolls.parquet", sink.getvalue().to_pybytes())
    (row,) = results.unroll(storage, "first", "x").to_dict("records")
    assert {name: list(value) if name in ("predicted", "q_halt") else value for name, value in row.items()} == UNROLL
    write_atomically(folder / "unrolls.parquet", b"PAR1")
    with pytest.raises(DamagedFileError, match=r"x/unrolls\.parquet: not a table of unrolls .* move it away"):
        results.unroll(storage, "first", "x")


def test_import_results_is_cheap_and_names_what_it_has():
    script = "import sys, results; print([m for m in ('torch', 'ray', 'rrm', 'pandas', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = results.nothing

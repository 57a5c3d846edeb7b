"""Questions to the tables of several sweeps, as a notebook asks them."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import results
from results.schema import TABLE_SCHEMAS, UNROLLS_SCHEMA, VERSION, OldTableError, file_schema, table_file
from results.storage import location, write_atomically
from results.trial_files import DamagedFileError


def write(rows: list[dict], storage, name: str, sweep: str, without: tuple[str, ...] = (), version=VERSION) -> None:
    """Write a sweep's part of a table, without some columns."""
    sink, path = pa.BufferOutputStream(), table_file(storage, name, sweep)
    table = pa.Table.from_pylist(rows, schema=file_schema(name)).drop_columns(list(without))
    pq.write_table(table.replace_schema_metadata(version), sink)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, sink.getvalue().to_pybytes())


POINTS = ["perturb.sigma=0.001", "perturb.sigma=1e-05"]


@pytest.fixture(params=["folder", "s3"])
def storage(request, tmp_path):
    """Two sweeps, two arms, two seeds, two steps on two splits; the older sweep's evals lack a column."""
    place = tmp_path if request.param == "folder" else location(request.getfixturevalue("bucket")) / "runs"
    for sweep, model in (("first", "hrm"), ("second", "trm")):
        trials, evals = [], []
        for arm in ("baseline", "multi"):
            for seed in (0, 1):
                trial_id = f"{sweep}-{arm}-{seed}"
                config = f'{{"optim": {{"lr": 0.{seed + 1}}}}}'
                points = POINTS if arm == "baseline" else POINTS[seed : seed + 1]
                trials.append({"arm": arm, "points": points, "seed": seed, "trial_id": trial_id})
                trials[-1] |= {"point": "" if arm == "baseline" else points[0], "objective": f"of {arm}"}
                trials[-1] |= {"model": model, "status": "done", "rollout": "parallel_fixed", "config": config}
                trials[-1]["test_digest"] = f"of {arm}"
                for step, accuracy in ((0, 0.25), (10, 0.5 + 0.125 * (arm == "multi"))):
                    for split in ("validation", "test"):
                        row = {"trial_id": trial_id, "step": step, "split": split, "sigma": 0.0, "depth": 4}
                        evals.append(row | {"exact_accuracy": accuracy, "n": 4, "rollouts": 1})
        write(trials, place, "trials", sweep)
        write(evals, place, "evals", sweep, ("train_sigma",) if sweep == "first" else ())
    return str(place)


def test_every_sweep_under_a_storage_is_one_table(storage):
    trials, evals = (results.load(name, storage) for name in ("trials", "evals"))
    assert len(trials) == 8
    assert (trials.columns[0], evals.columns[0]) == ("sweep", "sweep")
    assert evals.columns[-7:].tolist() == ["arm", "point", "seed", "model", "task", "objective", "status"]
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
    assert results.load("evals", storage, trial_id="first-multi-1").trial_id.tolist() == ["first-multi-1"] * 4
    assert (
        results.load("trials", storage, ["sweep"], seed=0, sweep=["second", "third"]).sweep.tolist() == ["second"] * 2
    )


def test_points_are_scalars_by_value_and_filter_every_table(storage):
    trials = results.load("trials", storage, sweep="first")
    assert trials.groupby("point").size().to_dict() == {"": 2, POINTS[1]: 1, POINTS[0]: 1}
    assert trials.point.cat.categories.tolist() == ["", POINTS[1], POINTS[0]]  # 1e-05 before 0.001
    found = results.load("evals", storage, sweep="first", point=POINTS[1])
    assert found.trial_id.unique().tolist() == ["first-baseline-0", "first-baseline-1", "first-multi-1"]
    assert results.load("trials", storage, sweep="first", point=POINTS[1], arm="multi").seed.tolist() == [1]
    assert results.load("trials", storage, ["seed"], point=POINTS, arm="multi").columns.tolist() == ["seed"]
    assert set(results.load("evals", storage, objective="of multi").arm) == {"multi"}


def test_differences_and_puzzles_are_found_by_what_their_trials_are(storage):
    compared = {"arm": "multi", "baseline": "baseline", "metric": "best", "seed": 0}
    for sweep, model in (("first", "hrm"), ("second", "trm")):
        rows = [compared | {"point": at, "model": model, "objective": "of multi"} for at in POINTS]
        write(rows, location(storage), "differences", sweep)
        digests = [(f"of {arm}", example) for arm in ("baseline", "multi", "nobody") for example in (0, 1)]
        puzzles = [{"test_digest": digest, "example": example, "question": "1..."} for digest, example in digests]
        write(puzzles, location(storage), "puzzles", sweep)
    found = results.load("differences", storage, model="trm", objective="of multi", point=POINTS[1], arm="multi")
    assert found[["sweep", "point"]].values.tolist() == [["second", POINTS[1]]]
    assert len(results.load("differences", storage, objective="of baseline")) == 0
    puzzles = results.load("puzzles", storage, model="trm", objective="of multi")
    assert puzzles[["sweep", "test_digest", "example"]].values.tolist() == [["second", "of multi", i] for i in (0, 1)]
    by_point = results.load("puzzles", storage, ["question", "test_digest"], sweep="first", point=POINTS[0], seed=1)
    assert by_point.values.tolist() == [["1...", "of baseline"]] * 2
    assert by_point.dtypes.to_dict() == results.load("puzzles", storage, ["question", "test_digest"]).dtypes.to_dict()
    assert len(results.load("puzzles", storage)) == 12
    with pytest.raises(KeyError, match="arm: no column of puzzles"):
        results.load("puzzles", storage, ["arm"])


@pytest.mark.parametrize("storage", ["folder"], indirect=True)
@pytest.mark.parametrize("table", TABLE_SCHEMAS)
def test_every_table_is_filtered_by_model_objective_arm_and_point(table, storage):
    place, own = location(storage), file_schema(table).names
    for sweep, model in (("first", "hrm"), ("second", "trm")):
        of = {"model": model, "objective": "of multi", "arm": "multi", "test_digest": "of multi"}
        rows = [of | {"trial_id": f"{sweep}-multi-{seed}", "point": POINTS[seed], "seed": seed} for seed in (0, 1)]
        if table not in ("trials", "evals"):
            write([{name: row[name] for name in row if name in own} for row in rows], place, table, sweep)
    for filters in ({"model": "trm"}, {"model": "trm", "objective": "of multi", "arm": "multi", "point": POINTS[1]}):
        found = results.load(table, storage, **filters)
        assert len(found) > 0
        assert set(found.sweep) == {"second"}
    if table == "puzzles":
        assert set(found.test_digest) == {"of multi"}
    elif "trial_id" in found:  # a row a trial, example or seed: those of the point alone
        assert set(found.trial_id) == {"second-multi-1"}
    for name, value in (("model", "srm"), ("objective", "of nobody"), ("arm", "nobody"), ("point", "lr=7")):
        assert len(results.load(table, storage, **{name: value})) == 0


def test_types_do_not_depend_on_what_is_there(storage):
    whole, none = (results.load("trials", storage, sweep=sweep) for sweep in ("first", "nowhere"))
    assert len(none) == 0
    assert none.dtypes.drop("point").to_dict() == whole.dtypes.drop("point").to_dict()
    assert str(whole.steps.dtype) == "Int64"  # nobody has any here: not floats of nan


def test_tables_of_an_earlier_version_are_refused_by_name(storage):
    write([], location(storage), "comparison", "first", version={})
    with pytest.raises(
        OldTableError, match=r"first/comparison\.parquet: version 1 .* reads version 4; gather first again"
    ):
        results.load("comparison", storage)
    assert len(results.load("trials", storage)) == 8


def test_only_the_files_of_the_sweeps_asked_for_are_opened(storage):
    table_file(location(storage), "evals", "first").unlink()
    broken = table_file(location(storage), "evals", "broken")
    broken.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(broken, b"PAR1 not really")
    assert len(results.load("evals", storage, sweep="second")) == 16
    with pytest.raises(pa.ArrowInvalid, match="broken"):
        results.load("evals", storage)


def test_the_same_trial_in_two_sweeps_counts_once_in_each(storage):
    """A longer sweep has the trial too, with an evaluation more."""
    place, rows = location(storage), {}
    for name in ("trials", "evals"):
        rows[name] = pq.read_table(pa.BufferReader(table_file(place, name, "second").read_bytes())).to_pylist()
    more = [row | {"step": 20, "exact_accuracy": 0.75} for row in rows["evals"] if row["step"] == 10]
    write(rows["trials"], place, "trials", "longer")
    write(rows["evals"] + more, place, "evals", "longer")
    trials, evals = (results.load(name, storage, sweep=["second", "longer"]) for name in ("trials", "evals"))
    assert len(evals) == 16 + 24
    runs = results.snapshot(trials, evals)
    assert runs.groupby("sweep").final_step.unique().map(list).to_dict() == {"longer": [20], "second": [10]}
    assert set(results.curve(trials, evals).query("arm == 'baseline'").n_seeds) == {2}


def test_what_is_asked_for_and_is_not_there_is_named(storage):
    with pytest.raises(KeyError, match="sigmas: no column of evals; it has sweep, trial_id, step"):
        results.load("evals", storage, sigmas=1)
    with pytest.raises(KeyError, match="no such table; there are trials"):
        results.load("eval", storage)
    with pytest.raises(FileNotFoundError, match="gather a sweep first: rrm results gather SWEEP"):
        results.load("trials", f"{storage}/nothing")


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
    "question": "1...",
    "answer": "1234",
    "predicted": ["1???", "1234"],
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
    there = "print([m for m in ('torch', 'ray', 'rrm', 'pandas', 'scipy') if m in sys.modules])"
    later = "import results.report; print([m for m in ('torch', 'ray', 'scipy.stats') if m in sys.modules])"
    script = f"import sys, results; {there}; {later}"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n[]\n"
    script = "import results; print(results.diagnosis.two_by_two.__module__, results.plots.solving.__name__)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    assert shown == "results.diagnosis solving\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = results.nothing


def test_unpacked_bits_are_a_row_an_example_and_rollout():
    bits = np.random.default_rng(0).random((2, 3, 4)) < 0.5
    keys = {"sweep": "s", "step": 10, "split": "test", "depth": 4, "n": 3, "rollouts": 4}
    rows = [
        keys | {"trial_id": name, "sigma": sigma, "correct": np.packbits(one).tobytes()}
        for name, sigma, one in zip("ab", (0.1, 0.3), bits, strict=True)
    ]
    found = results.unpack(pd.DataFrame(rows, index=[7, 3]))
    assert found[["trial_id", "sigma"]].drop_duplicates().values.tolist() == [["a", 0.1], ["b", 0.3]]
    assert found.solved.to_numpy(bool).reshape(2, 3, 4).tolist() == bits.tolist()
    (row,) = found[(found.trial_id == "b") & (found.example == 1) & (found.rollout == 2)].itertuples()
    assert row.solved == bits[1, 1, 2]
    assert results.unpack(pd.DataFrame(rows).iloc[:0]).columns.tolist() == found.columns.tolist()

"""Trial folders as they may be found: whole, waiting, damaged."""

import json
import math
import shutil
import subprocess
import sys

import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from holding import held_elsewhere
from tiny import tiny_sweep, write_spec

import results
from launch.cli import main
from results import gather as gathering
from results import trial_tables
from results.gather import gather
from results.looks import read_looks
from results.points import train_sigma
from results.schema import table_file
from results.trial_files import read_table
from tune.job import TrialJob
from tune.plan import manifest, plan, write_manifest
from tune.spec import load_sweep
from tune.trial import TrialRun


def planned(folder):
    """A sweep in this folder, of which nothing is trained yet."""
    spec = tiny_sweep(storage=str(folder / "runs"), base={"train": {"steps": 8}})
    loaded = load_sweep(write_spec(folder, spec))
    write_manifest(loaded)
    return loaded


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The trials of seed 0."""
    sweep = planned(tmp_path_factory.mktemp("gather"))
    for cell in sweep.cells:
        if cell.seed == 0:
            train(sweep, cell)
    return sweep.folder


@pytest.fixture
def sweep(trained, tmp_path):
    """Two arms with one seed, both trained here; and one seed that waits."""
    shutil.copytree(trained, tmp_path / "runs" / trained.name)
    return planned(tmp_path)


def train(sweep, cell):
    """Train a trial of a sweep to its end."""
    folder = str(sweep.folder / "trials" / cell.trial_id)
    job = TrialJob(cell.arm, cell.seed, cell.trial_id, cell.config.model_dump(mode="json"), folder, 1, 60)
    run = TrialRun(job, torch.device("cpu"))
    while not run.advance(seconds=1.0).finished:
        pass
    run.close()


def test_waiting_trials_stand_beside_done_ones(sweep):
    tables = gather(sweep.folder)
    assert tables.trials.groupby("seed").status.unique().map(list).to_dict() == {0: ["done"], 1: ["waiting"]}
    assert tables.problems == []
    assert set(tables.comparison.n_seeds) == {1}
    assert json.loads(tables.trials.config[0])["train"]["steps"] == 8
    assert tables.trials.train_seconds.gt(0).tolist() == [True, False, True, False]


def test_the_sigma_of_the_training_is_a_number_of_each_trial(tmp_path):
    spec = tiny_sweep(storage=str(tmp_path / "runs"), seeds=[0], grid={"perturb.sigma": [1.0, 1e-05, 0.01]})
    spec["arms"] = {"baseline": {}, "single": {"objective": "single_perturbed_ce"}}
    sweep = load_sweep(write_spec(tmp_path, spec))
    write_manifest(sweep)
    gather(sweep.folder)
    trials = results.load("trials", sweep.folder.parent, ["arm", "point", "train_sigma"]).sort_values("train_sigma")
    assert trials.arm.tolist() == ["single"] * 3 + ["baseline"]
    assert trials.train_sigma.tolist() == pytest.approx([1e-05, 0.01, 1.0, math.nan], nan_ok=True)
    assert trials.point.tolist() == [*(f"perturb.sigma={value}" for value in ("1e-05", "0.01", "1.0")), ""]
    assert train_sigma({"perturb": {"sigma": [0.01, 1.0]}}) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("evals.parquet", "PAR1 not really"),
        ("done.json", "{not json"),
        ("done.json", '{"step": "x"}'),
        ("failed.json", '{"a": 1}'),
        ("trial.json", "[]"),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_is_shown(sweep, name, content, tmp_path, capsys):
    damaged = sweep.folder / "trials" / sweep.cells[0].trial_id / name
    if name == "failed.json":
        (damaged.parent / "done.json").unlink()
    damaged.write_text(content)
    tables = gather(sweep.folder)
    assert tables.trials.status.tolist() == ["unreadable", "waiting", "done", "waiting"]
    assert tables.trials.reason[0] == tables.problems[0]
    assert len(tables.problems) == 1
    assert tables.problems[0].startswith(f"{damaged}: ")
    assert "move it away" in tables.problems[0]
    assert main(["results", "show", str(tmp_path / "sweep.yaml")]) == 0
    assert f"left out: {damaged}" in capsys.readouterr().out
    if name in ("done.json", "failed.json"):
        assert main(["plan", str(tmp_path / "sweep.yaml")]) == 0  # the others would be trained
        assert str(damaged) in capsys.readouterr().out


def test_a_baseline_of_which_nothing_can_be_read_leaves_its_reason(sweep, tmp_path, capsys):
    for cell in sweep.cells:
        if cell.arm == "baseline":
            folder = sweep.folder / "trials" / cell.trial_id
            folder.mkdir(exist_ok=True)
            (folder / "evals.parquet").write_bytes(b"PAR1")
    assert gather(sweep.folder).comparison.verdict.tolist() == ["interim, 0 of 2 seeds"]  # an arm's seed waits
    alone = manifest(sweep)
    alone["cells"] = [cell for cell in alone["cells"] if cell["seed"] == 0]
    (row,) = gather(sweep.folder, alone).comparison.itertuples()
    assert row.verdict == "incomplete: 1 of 1 seeds unpaired"
    assert row.unpaired_seeds.tolist() == [0]
    (sweep.folder / "sweep.json").write_text(json.dumps(manifest(sweep) | {"baseline": "basline"}))
    assert main(["results", "show", str(sweep.folder)]) == 0
    printed = capsys.readouterr().out
    assert "No comparison could be made" in printed
    assert "left out: the comparison, for baseline: 'basline' is not an arm of tiny" in printed
    assert main(["results", "report", str(sweep.folder)]) == 0
    assert "No comparison could be made." in (page := (sweep.folder / "report.html").read_text())
    assert "is the only arm" not in page
    assert main(["results", "show", str(tmp_path / "sweep.yaml"), "--format", "latex"]) == 0


@pytest.mark.parametrize("gone", [True, False])
def test_a_lost_table_of_evaluations_is_written_again_from_the_state(sweep, gone, tmp_path, capsys):
    lost = sweep.folder / "trials" / sweep.cells[0].trial_id / "evals.parquet"
    before = lost.read_bytes()
    if gone:
        lost.unlink()
    else:
        lost.write_bytes(b"PAR1")
    assert main(["results", "show", str(tmp_path / "sweep.yaml")]) == 0
    assert {trial.end.status for trial in plan(sweep) if trial.cell.seed == 0} == {"done", "unfinished"}
    assert main(["train", str(tmp_path / "sweep.yaml"), "--arm", "baseline", "--seed", "0"]) == 0
    assert lost.read_bytes() == before


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path, capsys):
    path = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "[red]runs[" / "x]")))
    for command in (["plan"], ["results", "show"]):
        assert main([*command, path]) == 0
        assert "[red]runs[/x]" in capsys.readouterr().out


def test_fewer_steps_than_were_trained_cut_the_tables(sweep, tmp_path):
    shorter = load_sweep(str(tmp_path / "sweep.yaml"), ["base.train.steps=4"])
    assert set(shorter.trials) == set(sweep.trials)
    assert gather(sweep.folder).evals.step.max() == 8
    write_manifest(shorter)
    tables = gather(shorter.folder)
    assert tables.evals.step.max() == 4
    assert set(tables.trials.step.dropna()) == {4}
    assert tables.trials.groupby("seed").status.first().tolist() == ["done", "waiting"]


def read_files(monkeypatch) -> list[str]:
    """The names of the trial folders whose tables are read from now on."""
    read: list[str] = []

    def noted(path, schema):
        nonlocal read
        read += [path.parent.name] * (path.parent.name != "puzzles")
        return read_table(path, schema)

    for module in (gathering, trial_tables):
        monkeypatch.setattr(module, "read_table", noted)
    return read


def test_only_trials_whose_files_changed_are_read_again(sweep, monkeypatch):
    first, trial_ids = gather(sweep.folder), [cell.trial_id for cell in sweep.cells]
    read = read_files(monkeypatch)
    again = gather(sweep.folder)
    assert read == []
    for name in ("trials", "evals", "diagnostics", "comparison"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(first, name))
    changed = sweep.folder / "trials" / trial_ids[0]
    table = pq.read_table(changed / "evals.parquet")
    pq.write_table(table.slice(0, len(table) - 4), changed / "evals.parquet")  # an evaluation less
    third = gather(sweep.folder)
    assert set(read) == {trial_ids[0]}
    assert len(third.evals) == len(first.evals) - 4
    assert third.evals.trial_id.unique().tolist() == first.evals.trial_id.unique().tolist()
    assert third.trials.step.tolist()[0] == 4


def test_tables_of_an_older_version_or_damaged_ones_are_made_anew(sweep, monkeypatch):
    first = gather(sweep.folder)
    trials, evals = (table_file(sweep.folder.parent, name, "tiny") for name in ("trials", "evals"))
    read = read_files(monkeypatch)
    pq.write_table(pq.ParquetFile(trials).read().drop_columns(["model"]), trials)
    pd.testing.assert_frame_equal(gather(sweep.folder).trials, first.trials)
    assert len(set(read)) == 4
    read.clear()
    pq.write_table(pq.ParquetFile(evals).read().replace_schema_metadata({}), evals)  # its columns meant something else
    pd.testing.assert_frame_equal(gather(sweep.folder).evals, first.evals)
    assert len(set(read)) == 4
    evals.write_bytes(b"PAR1")
    read.clear()
    pd.testing.assert_frame_equal(gather(sweep.folder).evals, first.evals)
    assert len(set(read)) == 4


def test_what_two_gatherings_at_once_have_mixed_is_read_again(sweep, tmp_path):
    """The later writer of a table may be the one that read a trial before its end."""
    trial = sweep.folder / "trials" / sweep.cells[0].trial_id
    trial.rename(tmp_path / "not-yet")
    early = gather(sweep.folder)
    evals = next(path for path in early.files if path.stem == "evals")
    content = evals.read_bytes()
    (tmp_path / "not-yet").rename(trial)
    whole = gather(sweep.folder)
    assert len(whole.evals) > len(early.evals)
    evals.write_bytes(content)
    pd.testing.assert_frame_equal(gather(sweep.folder).evals, whole.evals)


def test_a_damaged_file_is_named_every_time(sweep):
    (sweep.folder / "trials" / sweep.cells[0].trial_id / "evals.parquet").write_bytes(b"PAR1")
    assert [len(gather(sweep.folder).problems) for _ in range(2)] == [1, 1]


def test_running_interrupted_and_waiting_trials_are_told_apart(sweep, tmp_path, capsys):
    longer = ["--set", "base.train.steps=12"]
    show = ["results", "show", str(tmp_path / "sweep.yaml"), *longer]
    folders = [sweep.folder / "trials" / cell.trial_id for cell in sweep.cells]
    assert main(show) == 0
    assert "tiny: 4 trials, 2 unfinished, 2 waiting" in capsys.readouterr().out
    with held_elsewhere(folders[0] / ".lock"), held_elsewhere(folders[1] / ".lock"):
        assert main(show) == 0
        printed = capsys.readouterr().out
        assert "tiny: 4 trials, 2 running, 1 unfinished, 1 waiting" in printed
        assert "baseline  running @ 8        0  " in printed
        assert "baseline  running            1\n" in printed
        assert "multi2    unfinished @ 8     0  " in printed
        assert main(["results", "report", str(tmp_path / "sweep.yaml"), *longer]) == 0
        page = (sweep.folder / "report.html").read_text()
        assert "Interim: the sweep is not at its end (2 running, 1 unfinished, 1 waiting)" in page
        trials, evals = (results.load(name, sweep.folder.parent) for name in ("trials", "evals"))
        lines = results.sentences(results.snapshot(trials, evals))
        assert [line[line.index(" (") :] for line in lines if "running" in line] == [" (running @ 8)", " (running)"]
        assert main(["plan", str(tmp_path / "sweep.yaml"), *longer]) == 0
        assert capsys.readouterr().out.count("running  ") == 2
        assert {trial.is_left(retry_failed=False) for trial in plan(sweep) if trial.end.status == "running"} == {True}
    assert main(show) == 0
    assert "tiny: 4 trials, 2 unfinished, 2 waiting" in capsys.readouterr().out


def test_sweeps_are_one_data_set_that_opens_as_it_is(sweep):
    """A sweep is called as its folder: a copy under another name is another one."""
    duckdb, polars = (pytest.importorskip(name, reason=f"{name} is not installed") for name in ("duckdb", "polars"))
    shutil.copytree(sweep.folder, sweep.folder.with_name("copy"))
    frames = [gather(sweep.folder.with_name(name)) for name in ("tiny", "copy")]
    for name in ("trials", "evals", "diagnostics", "comparison"):
        folder, rows = sweep.folder.parent / "tables" / name, len(getattr(frames[0], name))
        columns = set(getattr(frames[0], name))
        assert set(pq.ParquetFile(frames[0].files[0]).schema_arrow.names) & {"sweep"} == set()
        expected = {"tiny": rows, "copy": rows} if rows else {}
        for opened in (
            results.load(name, sweep.folder.parent),
            pd.read_parquet(folder).astype({"sweep": str}),
            ds.dataset(folder, partitioning="hive").to_table().to_pandas(),
            duckdb.sql(f"select * from read_parquet('{folder}/*/*.parquet')").df(),
            polars.read_parquet(folder).to_pandas(),
        ):
            assert columns <= set(opened)
            assert opened.groupby("sweep", observed=True).size().to_dict() == expected


def test_a_gathering_that_is_killed_leaves_the_data_set_as_it_was(sweep):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    before = gather(sweep.folder)
    (sweep.folder / "trials" / sweep.cells[0].trial_id / "done.json").touch()
    script = """
import os, sys
from pathlib import Path
Path.replace = lambda *_: os.kill(os.getpid(), 9)
from results.gather import gather
gather(Path(sys.argv[1]))
"""
    assert subprocess.run([sys.executable, "-c", script, sweep.folder], check=False).returncode == -9
    assert [path.name for path in sweep.folder.glob(".*.tmp")] != []
    assert len(polars.read_parquet(sweep.folder.parent / "tables" / "evals")) == len(before.evals)
    pd.testing.assert_frame_equal(gather(sweep.folder).evals, before.evals)


def test_report_writes_a_page_where_it_is_asked_to(sweep, tmp_path, capsys):
    assert main(["results", "report", str(tmp_path / "sweep.yaml")]) == 0
    default = sweep.folder / "report.html"
    assert capsys.readouterr().out == f"  {default}\n"
    assert "2 done, 2 waiting" in default.read_text()
    assert (
        main(["results", "report", str(tmp_path / "sweep.yaml"), "--output", str(tmp_path / "new" / "page.html")]) == 0
    )
    assert "Interim: the sweep is not at its end" in (tmp_path / "new" / "page.html").read_text()


def test_what_is_asked_and_what_was_looked_at_lie_in_the_sweeps_folder(sweep, tmp_path):
    """A complete comparison is a look; of two seeds one that no later p is held to."""
    changes = {"primary": {"metric": "perturbed", "sigma": 0.5}, "margin": 0.05, "base": {"train": {"steps": 8}}}
    one = load_sweep(write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), seeds=[0], **changes), "one.yaml"))
    assert set(one.trials) <= set(sweep.trials)
    tables = gather(sweep.folder, manifest(one))
    (primary,) = tables.comparison[tables.comparison.primary].itertuples()
    assert (primary.metric, primary.sigma, primary.margin) == ("perturbed", 0.5, 0.05)
    assert read_looks(sweep.folder) == []  # one pair of runs is no test
    second = [cell for cell in sweep.cells if cell.seed == 1]
    for cell in second:
        train(sweep, cell)
    two = gather(sweep.folder)
    (look,) = read_looks(sweep.folder)
    assert (look.arm, look.point, look.margin, look.planned, look.needed, len(look.pairs)) == (
        "multi2",
        "",
        0.02,
        2,
        6,
        2,
    )
    gather(sweep.folder)
    assert read_looks(sweep.folder) == [look]
    assert set(two.comparison.looks) == {0}
    how = results.asked(tmp_path / "runs", "tiny")
    assert how == {"baseline": "baseline", "primary": ("best", 0.0), "margin": 0.02, "looks": [look]}
    again = results.compare(two.trials, two.evals, two.diagnostics, **how)
    pd.testing.assert_frame_equal(again, two.comparison)
    with pytest.raises(FileNotFoundError, match=r"nowhere: no sweep\.json; run the sweep first"):
        results.asked(tmp_path / "runs", "nowhere")
    more = load_sweep(
        write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), seeds=[0, 1, 2], base=changes["base"]))
    )
    for cell in more.cells[2::3]:
        train(more, cell)
    assert set(gather(more.folder, manifest(more)).comparison.looks) == {0}
    assert [len(look.pairs) for look in read_looks(sweep.folder)] == [2, 3]


def test_times_are_utc_and_types_do_not_depend_on_what_waits(sweep):
    tables = gather(sweep.folder)
    done = tables.trials[tables.trials.status == "done"]
    assert str(tables.trials.started.dtype) == "datetime64[us, UTC]"
    assert (done.started <= done.ended).all()
    assert (pd.Timestamp.now("UTC") - done.ended < pd.Timedelta("1h")).all()
    assert tables.trials.ended.isna().sum() == 2
    for name in ("trials", "evals", "comparison", "differences"):
        loaded = results.load(name, sweep.folder.parent)
        pd.testing.assert_frame_equal(loaded[getattr(tables, name).columns], getattr(tables, name))
        waiting = results.load(name, sweep.folder.parent, seed=[]) if name in ("trials", "evals") else loaded.iloc[:0]
        assert waiting.dtypes.drop("point").to_dict() == loaded.dtypes.drop("point").to_dict()

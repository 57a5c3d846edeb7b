"""Trial folders as they may be found: whole, waiting, damaged."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from tiny import tiny_sweep, write_spec

from launch.cli import main
from results import gather as gathering
from results.gather import gather
from results.schema import read_table
from tune.plan import plan, write_manifest
from tune.spec import load_sweep
from tune.trial import TrialJob, TrialRun


@pytest.fixture
def sweep(tmp_path):
    """Two arms with one seed, both trained here; and one seed that waits."""
    spec = tiny_sweep(storage=str(tmp_path / "runs"), base={"train": {"steps": 8}})
    loaded = load_sweep(write_spec(tmp_path, spec))
    write_manifest(loaded)
    for cell in loaded.cells:
        if cell.seed == 0:
            folder = str(loaded.folder / "trials" / cell.trial_id)
            job = TrialJob(cell.arm, 0, cell.trial_id, cell.config.model_dump(mode="json"), folder, 1, 60)
            run = TrialRun(job, torch.device("cpu"))
            while not run.advance(seconds=1.0).finished:
                pass
            run.close()
    return loaded


def test_waiting_trials_stand_beside_done_ones(sweep):
    tables = gather(sweep.folder)
    assert tables.trials.groupby("seed").status.unique().map(list).to_dict() == {0: ["done"], 1: ["waiting"]}
    assert tables.problems == []
    assert set(tables.comparison.n_seeds) == {1}
    assert json.loads(tables.trials.config[0])["train"]["steps"] == 8
    assert tables.trials.train_seconds.gt(0).tolist() == [True, False, True, False]


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
    assert len(tables.trials) == 3
    assert len(tables.problems) == 1
    assert tables.problems[0].startswith(f"{damaged}: ")
    assert "move it away" in tables.problems[0]
    assert main(["results", str(tmp_path / "sweep.yaml")]) == 0
    assert f"left out: {damaged}" in capsys.readouterr().out
    if name in ("done.json", "failed.json"):
        assert main(["plan", str(tmp_path / "sweep.yaml")]) == 2
        assert str(damaged) in capsys.readouterr().err


@pytest.mark.parametrize("gone", [True, False])
def test_a_lost_table_of_evaluations_is_written_again_from_the_state(sweep, gone, tmp_path, capsys):
    lost = sweep.folder / "trials" / sweep.cells[0].trial_id / "evals.parquet"
    before = lost.read_bytes()
    if gone:
        lost.unlink()
    else:
        lost.write_bytes(b"PAR1")
    assert main(["results", str(tmp_path / "sweep.yaml")]) == 0
    assert {trial.end.status for trial in plan(sweep) if trial.cell.seed == 0} == {"done", "unfinished"}
    assert main(["train", str(tmp_path / "sweep.yaml"), "--arm", "baseline", "--seed", "0"]) == 0
    assert lost.read_bytes() == before


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path, capsys):
    path = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "[red]runs[" / "x]")))
    for command in ("plan", "results"):
        assert main([command, path]) == 0
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
        read.append(path.parent.name)
        return read_table(path, schema)

    monkeypatch.setattr(gathering, "read_table", noted)
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
    tables, read = sweep.folder / "tables", read_files(monkeypatch)
    pq.write_table(pq.read_table(tables / "trials.parquet").drop_columns(["model"]), tables / "trials.parquet")
    pd.testing.assert_frame_equal(gather(sweep.folder).trials, first.trials)
    assert len(set(read)) == 4
    (tables / "evals.parquet").write_bytes(b"PAR1")
    read.clear()
    pd.testing.assert_frame_equal(gather(sweep.folder).evals, first.evals)
    assert len(set(read)) == 4


def test_a_damaged_file_is_named_every_time(sweep):
    (sweep.folder / "trials" / sweep.cells[0].trial_id / "evals.parquet").write_bytes(b"PAR1")
    assert [len(gather(sweep.folder).problems) for _ in range(2)] == [1, 1]


def test_report_writes_a_page_where_it_is_asked_to(sweep, tmp_path, capsys):
    assert main(["report", str(tmp_path / "sweep.yaml")]) == 0
    default = sweep.folder / "report.html"
    assert capsys.readouterr().out == f"  {default}\n"
    assert "2 done, 2 waiting" in default.read_text()
    assert main(["report", str(tmp_path / "sweep.yaml"), "--output", str(tmp_path / "new" / "page.html")]) == 0
    assert "The sweep is not at its end" in (tmp_path / "new" / "page.html").read_text()

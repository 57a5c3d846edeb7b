"""A sweep on a real local Ray: run, return at once, extend, diverge, refuse a second run."""

import json
import os
import platform
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from filelock import FileLock
from tiny import MULTI, tiny_sweep, write_spec

from launch.cli import main
from results.gather import gather
from results.storage import location, sizes
from rrm import checkpoint
from rrm.presets import merge
from tune.connection import session_folder
from tune.experiment import RunRefused, run_sweep
from tune.plan import plan
from tune.spec import load_sweep

pytestmark = pytest.mark.usefixtures("local_ray")


def sweep(folder: Path, **changes):
    return load_sweep(write_spec(folder, tiny_sweep(storage=str(folder / "runs"), **changes)))


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of the trials, by name, with its age and size: what a run touched."""
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.name != ".lock"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    loaded = sweep(folder)
    assert run_sweep(loaded) == 0
    return loaded


def test_a_finished_sweep_trains_nothing_more(finished):
    before = files(finished.folder / "trials")
    attempts = len(list((finished.folder / "attempts").iterdir()))
    assert run_sweep(finished) == 0
    assert files(finished.folder / "trials") == before
    assert len(list((finished.folder / "attempts").iterdir())) == attempts


def test_a_damaged_record_is_said_and_counts_as_failed_and_the_others_are_trained(finished, tmp_path, capsys):
    raw = tiny_sweep(storage=str(tmp_path), seeds=[0, 1, 2])
    del raw["arms"]["multi2"]
    spec = write_spec(tmp_path, raw)
    loaded = load_sweep(spec)
    shutil.copytree(finished.folder / "trials", loaded.folder / "trials")
    done, record, new = (loaded.folder / "trials" / cell.trial_id for cell in loaded.cells)
    text = (done / "done.json").read_text()
    (done / "done.json").write_text(text.replace('"train"', '"trained"'))
    (record / "trial.json").write_text('{"attempts": "x"}')
    said = {
        done.name: f"{done / 'done.json'}: its field seconds.train is missing; move it away",
        record.name: f"{record / 'trial.json'}: its field config is missing; move it away",
    }
    for command, code in (("plan", 0), ("run", 3)):
        assert main([command, spec]) == code
        printed = capsys.readouterr().out
        assert all(f"{loaded.trials[trial_id].name}: {reason}\n" in printed for trial_id, reason in said.items())
        assert f"3 trials, {'1 would be trained' if command == 'plan' else '1 done, 2 unreadable'}" in printed
    assert sorted(path.name for path in done.parent.iterdir() if (path / "failed.json").exists()) == []
    assert json.loads((new / "done.json").read_text())["step"] == 12
    assert main(["status", "tiny", "--storage", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("tiny: 3 trials, 2 unreadable, 1 done; not running; ")
    assert all(f"\n  {trial_id} unreadable: {reason}\n" in printed for trial_id, reason in said.items())


def test_a_run_leaves_its_log_and_nothing_that_grows_with_its_reports(finished):
    (attempt,) = (finished.folder / "attempts").iterdir()
    assert {path.name for path in attempt.iterdir()} == {"log.txt", "spec.yaml"}
    assert not [path for path in session_folder().glob("artifacts/*/*") if path.name == attempt.name]


def test_the_tables_and_the_comparison(finished):
    tables = gather(finished.folder)
    assert tables.trials.status.tolist() == ["done"] * 4
    assert len(tables.evals) == 4 * 4 * 4  # trials x evaluations x (two splits, clean and one sigma)
    assert {"final", "last_k", "best", "perturbed", "perturbed_all"} <= set(tables.comparison.metric)
    assert set(tables.comparison.n_seeds) == {2}
    of_accuracy = tables.comparison[tables.comparison.metric.isin(["final", "last_k", "best", "perturbed"])]
    assert set(of_accuracy.paired_by) == {"seed and puzzle"}
    assert set(tables.comparison.compute_ratio) == {2.0}
    assert [path.stem for path in tables.files] == [
        *("trials", "evals", "comparison", "differences", "puzzles")  # no diagnoses were asked for
    ]
    for path in tables.files:
        assert len(pd.read_parquet(path)) > 0


def test_train_without_ray_gives_the_same_bits(finished, tmp_path, capsys):
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs")))
    assert main(["train", spec, "--arm", "multi2", "--seed", "1"]) == 0
    assert "multi2 seed=1: done" in capsys.readouterr().out
    trial_id = next(cell.trial_id for cell in finished.cells if (cell.arm, cell.seed) == ("multi2", 1))
    alone, on_ray = (root / "trials" / trial_id for root in (tmp_path / "runs" / "tiny", finished.folder))
    weights = [checkpoint.load(folder / "final.pt") for folder in (alone, on_ray)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert (alone / "evals.parquet").read_bytes() == (on_ray / "evals.parquet").read_bytes()
    assert main(["train", spec, "--arm", "multi2", "--seed", "1"]) == 0
    assert "multi2 seed=1: already done" in capsys.readouterr().out


def test_workers_are_reused_between_trials(finished):
    """Four trials, one at a time: one process, or more where it was slow to become free."""
    records = [json.loads(path.read_text()) for path in (finished.folder / "trials").glob("*/trial.json")]
    workers = {attempt["pid"] for record in records for attempt in record["attempts"]}
    assert len(records) == 4
    assert len(workers) < 4
    assert os.getpid() not in workers
    assert {attempt["visible_gpus"] for record in records for attempt in record["attempts"]} == {"0"}


def test_more_seeds_arms_and_steps_train_only_what_is_new(tmp_path):
    small = sweep(tmp_path, seeds=[0])
    for arm in small.spec.arms:
        assert main(["train", small.path, "--arm", arm, "--seed", "0"]) == 0
    before = files(small.folder / "trials")
    assert len(before) > 0
    wider = sweep(tmp_path, arms={"multi3": merge(MULTI, {"perturb": {"rollouts": 3}})})
    assert [trial.end.status for trial in plan(wider)].count("done") == 2
    assert run_sweep(wider) == 0
    after = files(wider.folder / "trials")
    assert before.items() <= after.items()
    assert len(plan(wider)) == 6
    longer = sweep(tmp_path, base={"train": {"steps": 16}}, seeds=[0])
    assert {trial.end.status for trial in plan(longer)} == {"unfinished"}
    assert run_sweep(longer) == 0
    steps = gather(longer.folder).evals.groupby("trial_id").step.unique()
    assert [list(s) for s in steps] == [[0, 4, 8, 12, 16]] * 2
    assert gather(longer.folder).trials.status.tolist() == ["done"] * 2


def test_a_diverging_trial_fails_with_its_reason_and_the_others_finish(tmp_path, capsys):
    spec = tiny_sweep(
        storage=str(tmp_path / "runs"),
        arms={"too-fast": {"objective": "clean", "optim": {"lr": 1e30, "warmup_steps": 0}}},
        seeds=[0],
    )
    path = write_spec(tmp_path, spec)
    assert main(["run", path]) == 3
    printed = capsys.readouterr().out
    assert "3 trials, 2 done, 1 failed" in printed
    assert "the training loss is NaN at step" in printed
    tables = gather(tmp_path / "runs" / "tiny")
    failed = tables.trials[tables.trials.status == "failed"].iloc[0]
    assert failed.arm == "too-fast"
    assert failed.reason.startswith("the training loss is NaN at step")
    recorded = json.loads((tmp_path / "runs" / "tiny" / "trials" / failed.trial_id / "failed.json").read_text())
    assert recorded["reason"] == failed.reason
    reasons = tables.comparison[tables.comparison.primary].set_index("arm").verdict.to_dict()
    assert reasons == {"multi2": "too few seeds (1 of 7)", "too-fast": "no pair to compare: 1 of 1 seeds failed"}
    before = files(tmp_path / "runs" / "tiny" / "trials")
    assert main(["run", path]) == 3  # the same config diverges again: nothing is trained
    assert files(tmp_path / "runs" / "tiny" / "trials") == before
    assert main(["run", path, "--retry-failed"]) == 3
    assert files(tmp_path / "runs" / "tiny" / "trials") != before


def test_an_error_is_retried_and_then_recorded(tmp_path):
    """A folder that cannot be locked: every attempt fails, the reason stands in the table, mending it is enough."""
    loaded = sweep(tmp_path, seeds=[0], max_failures=1)
    in_the_way = loaded.folder / "trials" / loaded.cells[0].trial_id / ".lock"
    in_the_way.mkdir(parents=True)
    assert run_sweep(loaded) == 3
    (error,) = (loaded.folder / "attempts").glob("*/*/error.txt")
    assert "Is a directory" in error.read_text()
    tables = gather(loaded.folder)
    assert tables.trials.status.tolist() == ["failed", "done"]
    assert tables.trials.reason[0].startswith("its worker failed 2 times without getting further: ")
    assert "Is a directory" in tables.trials.reason[0]
    in_the_way.rmdir()
    assert run_sweep(loaded) == 0


WORKERS = {"resources": {"workers": 4}, "base": {"train": {"shards": 4}}}
NO_NODE = r"resources: cpu 64, gpu 1 fit no node \(the largest that is up has cpu 2"
NO_PLACES = r"resources.workers: 4 with cpu 1, gpu 0 each, and the nodes that are up hold 2; ask for fewer, or start"
HELD = "tiny: already being run by process 4711 on there since today; wait for it"


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"resources": {"cpu": 64, "gpu": 1}}, NO_NODE), (WORKERS, NO_PLACES), ({}, HELD)],
    ids=["no node", "too few places", "held"],
)
def test_a_refused_run_leaves_a_finished_sweep_as_it_is(finished, tmp_path, changes, said):
    held = FileLock(finished.folder / ".run.lock")
    if said == HELD:
        held.acquire()
        (finished.folder / "run.json").write_text(json.dumps({"pid": 4711, "host": "there", "since": "today"}))
    before = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    assert finished.folder / "sweep.json" in before
    wider = tiny_sweep(storage=finished.spec.storage, seeds=[0, 1, 2], **changes)
    with pytest.raises(RunRefused, match=said):
        run_sweep(load_sweep(write_spec(tmp_path, wider)))
    held.release()
    after = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_refused_run_of_a_sweep_that_never_ran_leaves_nothing(place, request, tmp_path):
    storage = str(tmp_path / "not" / "there") if place == "folder" else request.getfixturevalue("bucket") + "/a"
    path = write_spec(tmp_path, tiny_sweep(storage=storage, resources={"cpu": 64, "gpu": 1}))
    with pytest.raises(RunRefused, match=NO_NODE):
        run_sweep(load_sweep(path))
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.yaml"]
    assert sizes(location(storage) / "tiny") == {}


@pytest.mark.parametrize(("resources", "visible"), [({"cpu": 0.5, "gpu": 0.5}, "0"), ({"cpu": 2}, "")])
def test_a_trial_sees_the_gpus_it_was_given(tmp_path, resources, visible):
    """Two at a time on one, and one at a time on none."""
    raw = tiny_sweep(storage=str(tmp_path), resources=resources, base={"train": {"steps": 4}}, seeds=[0])
    loaded = load_sweep(write_spec(tmp_path, raw))
    assert run_sweep(loaded) == 0
    records = [json.loads(path.read_text()) for path in (loaded.folder / "trials").glob("*/trial.json")]
    attempts = [attempt for record in records for attempt in record["attempts"]]
    assert [attempt["visible_gpus"] for attempt in attempts] == [visible] * 2
    assert {attempt["threads"] for attempt in attempts} == {max(1, int(resources.get("cpu", 1)))}


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "runs").write_text("a file")
    path = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs")))
    assert main(["run", path]) == 2
    assert f"{tmp_path}/runs" in capsys.readouterr().err


def test_storage_that_a_node_does_not_see_is_named_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    """A path that is another folder in each process, as one that is mounted on the driver's machine alone."""
    monkeypatch.chdir(tmp_path)
    spec = write_spec(tmp_path, tiny_sweep(storage="/proc/self/cwd/unshared", seeds=[0], max_failures=0))
    assert main(["run", spec]) == 3
    said = f"node {platform.node()} does not see the sweep's storage: /proc/self/cwd/unshared/tiny/run.json: "
    assert capsys.readouterr().out.count(f"{said}there is no such file here; mount it there at this path") >= 2
    trials = list((tmp_path / "unshared" / "tiny" / "trials").iterdir())
    assert [[path.name for path in trial.iterdir()] for trial in trials] == [["failed.json"]] * 2
    assert not (Path("/proc") / str(os.getppid()) / "cwd" / "unshared").exists()

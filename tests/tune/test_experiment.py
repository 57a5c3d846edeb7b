"""A sweep on a real local Ray: run, return at once, extend, diverge, refuse a second run."""

import json
import os
import platform
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
    """On both cores and without the GPU, which a trial must not see then."""
    small = sweep(tmp_path, seeds=[0])
    for arm in small.spec.arms:
        assert main(["train", small.path, "--arm", arm, "--seed", "0"]) == 0
    before = files(small.folder / "trials")
    assert len(before) > 0
    shorter = ["--set", "seeds=[1]", "--set", "base.train.steps=8"]
    for arm in small.spec.arms:
        assert main(["train", small.path, "--arm", arm, "--seed", "1", *shorter]) == 0
    more = {"arms": {"multi3": merge(MULTI, {"perturb": {"rollouts": 3}})}, "resources": {"cpu": 2}}
    wider = sweep(tmp_path, **more)
    assert sorted(trial.end.status for trial in plan(wider)) == ["done"] * 2 + ["unfinished"] * 2 + ["waiting"] * 2
    assert run_sweep(wider) == 0
    after = files(wider.folder / "trials")
    assert before.items() <= after.items()
    tables = gather(wider.folder)
    assert tables.trials.status.tolist() == ["done"] * 6
    steps = tables.evals.groupby("trial_id").step.unique()
    assert [list(s) for s in steps] == [[0, 4, 8, 12]] * 6
    attempts = [
        json.loads((wider.folder / "trials" / cell.trial_id / "trial.json").read_text())["attempts"]
        for cell in wider.cells
    ]
    assert [len(of_trial) for of_trial in attempts] == [1, 2, 1, 2, 1, 1]  # by arm and seed
    of_run = [attempts[number][-1] for number in (1, 3, 4, 5)]
    assert [(attempt["visible_gpus"], attempt["threads"]) for attempt in of_run] == [("", 2)] * 4


def test_what_goes_wrong_with_some_trials_keeps_no_other_from_its_end(tmp_path, capsys):
    """One diverges; the folder of one cannot be locked, so that every attempt fails; later two have damaged records."""
    arms = {
        "too-fast": {"objective": "clean", "optim": {"lr": 1e30, "warmup_steps": 0}},
        "locked": merge(MULTI, {"perturb": {"rollouts": 3}}),
    }
    path = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), arms=arms, seeds=[0], max_failures=1))
    loaded = load_sweep(path)
    trials = {cell.arm: loaded.folder / "trials" / cell.trial_id for cell in loaded.cells}
    in_the_way = trials["locked"] / ".lock"
    in_the_way.mkdir(parents=True)
    assert main(["run", path]) == 3
    printed = capsys.readouterr().out
    assert "4 trials, 2 done, 2 failed" in printed
    assert "the training loss is NaN at step" in printed
    (error,) = (loaded.folder / "attempts").glob("*/*/error.txt")
    assert "Is a directory" in error.read_text()
    tables = gather(loaded.folder)
    reasons = tables.trials.set_index("arm").reason
    assert tables.trials.set_index("arm").status.to_dict() == dict.fromkeys(loaded.spec.arms, "done") | dict.fromkeys(
        arms, "failed"
    )
    assert reasons["too-fast"].startswith("the training loss is NaN at step")
    assert json.loads((trials["too-fast"] / "failed.json").read_text())["reason"] == reasons["too-fast"]
    assert reasons["locked"].startswith("its worker failed 2 times without getting further: ")
    assert "Is a directory" in reasons["locked"]
    verdicts = tables.comparison[tables.comparison.primary].set_index("arm").verdict.to_dict()
    assert verdicts == {"multi2": "too few seeds (1 of 7)"} | dict.fromkeys(
        arms, "no pair to compare: 1 of 1 seeds failed"
    )

    in_the_way.rmdir()
    done, record = trials["baseline"] / "done.json", trials["multi2"] / "trial.json"
    done.write_text(done.read_text().replace('"train"', '"trained"'))
    record.write_text('{"attempts": "x"}')
    said = {
        "baseline": f"{done}: its field seconds.train is missing; move it away",
        "multi2": f"{record}: its field config is missing; move it away",
    }
    before = files(trials["too-fast"])
    for command, code in (("plan", 0), ("run", 3)):
        assert main([command, path]) == code
        printed = capsys.readouterr().out
        assert all(f"{arm} seed=0: {reason}\n" in printed for arm, reason in said.items())
        assert f"4 trials, {'1 would be trained' if command == 'plan' else '1 done, 1 failed, 2 unreadable'}" in printed
    assert files(trials["too-fast"]) == before  # the same config diverges again: it is not trained
    assert json.loads((trials["locked"] / "done.json").read_text())["step"] == 12
    assert [arm for arm, trial in trials.items() if (trial / "failed.json").exists()] == ["too-fast"]
    assert main(["status", "tiny", "--storage", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("tiny: 4 trials, 2 unreadable, 1 failed, 1 done; not running; ")
    assert all(f"\n  {trials[arm].name} unreadable: {reason}\n" in printed for arm, reason in said.items())

    assert main(["run", path, "--retry-failed"]) == 3
    assert files(trials["too-fast"]) != before


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


def test_two_trials_share_a_gpu(tmp_path):
    raw = tiny_sweep(storage=str(tmp_path), resources={"cpu": 0.5, "gpu": 0.5}, base={"train": {"steps": 4}}, seeds=[0])
    loaded = load_sweep(write_spec(tmp_path, raw))
    assert run_sweep(loaded) == 0
    records = [json.loads(path.read_text()) for path in (loaded.folder / "trials").glob("*/trial.json")]
    attempts = [attempt for record in records for attempt in record["attempts"]]
    assert [(attempt["visible_gpus"], attempt["threads"]) for attempt in attempts] == [("0", 1)] * 2


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "runs").write_text("a file")
    path = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs")))
    assert main(["run", path]) == 2
    assert f"{tmp_path}/runs" in capsys.readouterr().err


def test_storage_that_a_node_does_not_see_is_named_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    """A path that is another folder in each process, as one that is mounted on the driver's machine alone."""
    monkeypatch.chdir(tmp_path)
    raw = tiny_sweep(storage="/proc/self/cwd/unshared", seeds=[0], max_failures=0)
    del raw["arms"]["multi2"]
    assert main(["run", write_spec(tmp_path, raw)]) == 3
    said = f"node {platform.node()} does not see the sweep's storage: /proc/self/cwd/unshared/tiny/run.json: "
    assert f"{said}there is no such file here; mount it there at this path" in capsys.readouterr().out
    trials = list((tmp_path / "unshared" / "tiny" / "trials").iterdir())
    assert [[path.name for path in trial.iterdir()] for trial in trials] == [["failed.json"]]
    assert not (Path("/proc") / str(os.getppid()) / "cwd" / "unshared").exists()

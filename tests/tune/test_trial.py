"""A trial's folder: what is in it, what a kill at any moment leaves, damaged states, failures."""

import dataclasses
import json
import platform
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray
import torch
from filelock import FileLock
from logs import tensorboard_scalars
from tiny import MULTI, tiny_config

from results import storage
from results.schema import EVALS_SCHEMA, UNROLLS_SCHEMA
from results.storage import Location, location, write_atomically
from results.trial_files import DamagedFileError, lost_files, read_table, trial_end
from results.trial_tables import part_numbers, trial_table
from rrm import checkpoint
from tune import growing, held_folder
from tune.held_folder import BusyError, HeldFolder, NotSharedError, write_failed
from tune.job import TrialJob
from tune.trainable import RecursiveTrial
from tune.trial import TrialRun

CPU = torch.device("cpu")


def job(folder: Location, save_seconds: float = 60, **changes) -> TrialJob:
    config = tiny_config(**(MULTI | changes))
    return TrialJob("multi2", 0, config.trial_id(), config.model_dump(mode="json"), str(folder), 1, save_seconds)


def finish(run: TrialRun, seconds: float = 1.0):
    messages = []
    for _ in range(200):
        progress = run.advance(seconds)
        messages += progress.messages
        if progress.finished or progress.failed:
            run.close()
            return progress, messages
    raise AssertionError("the trial does not end")


def results_of(folder: Location) -> tuple[dict, dict, list, list]:
    """What a trial comes to: its final weights, its best weights, its evaluations, what the last one unrolled."""
    rows = trial_table(folder, "evals").to_pylist()
    unrolls = read_table(folder / "unrolls.parquet", UNROLLS_SCHEMA).to_pylist()
    return load(folder / "final.pt"), load(folder / "best.pt"), rows, unrolls


def load(path: Location) -> dict:
    return checkpoint.loads(path.read_bytes(), path)


def assert_same_results(a: Location, b: Location) -> None:
    ours, theirs = results_of(a), results_of(b)
    for x, y in zip(ours[:2], theirs[:2], strict=True):
        assert x.keys() == y.keys()
        assert all(torch.equal(x[name], y[name]) for name in x)
    assert ours[2:] == theirs[2:]


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path) -> Location:
    """Where trials may be stored."""
    return tmp_path if request.param == "folder" else location(request.getfixturevalue("bucket") + "/a/prefix")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    finish(TrialRun(job(folder), CPU))
    return folder


def test_a_finished_trials_folder(unbroken):
    names = {path.name for path in unbroken.iterdir()} - {".lock"}
    assert names == {
        "trial.json",
        "latest_state.pt",
        "previous_state.pt",
        "best_state.pt",
        "final_state.pt",
        "best.pt",
        "final.pt",
        "evals.parquet",
        "unrolls.parquet",
        "done.json",
        "saved.json",
    }
    record = json.loads((unbroken / "trial.json").read_text())
    assert (record["arm"], record["seed"]) == ("multi2", 0)
    assert record["config"] == tiny_config(**MULTI).model_dump(mode="json")
    assert {"commit", "torch", "device", "threads"} <= record["attempts"][0].keys()
    assert pq.read_schema(unbroken / "evals.parquet").equals(EVALS_SCHEMA)
    assert pq.read_schema(unbroken / "unrolls.parquet").equals(UNROLLS_SCHEMA)
    done = json.loads((unbroken / "done.json").read_text())
    assert done["step"] == 12
    final, best = checkpoint.load(unbroken / "final_state.pt"), checkpoint.load(unbroken / "best_state.pt")
    assert (final["step"], best["step"]) == (12, done["best"]["step"])


def test_the_unrolls_are_those_of_the_last_evaluation_and_of_the_state(unbroken):
    rows = read_table(unbroken / "unrolls.parquet", UNROLLS_SCHEMA).to_pylist()
    assert [(row["step"], row["example"], row["sigma"]) for row in rows] == [
        (12, example, sigma) for example in (0, 1) for sigma in (0, 0.5)
    ]
    trial_id = {"trial_id": json.loads((unbroken / "trial.json").read_text())["trial_id"]}
    assert rows == [trial_id | row for row in load(unbroken / "final_state.pt")["unrolls"]]


def test_dropped_at_any_moment_it_goes_on_to_the_same_bits(place, unbroken):
    """As after SIGKILL: nothing is closed, the next process finds what was on disk."""
    attempts = 0
    while trial_end(place, 12).status != "done":
        run = TrialRun(job(place, save_seconds=1e-9), CPU)
        for _ in range(2 + attempts % 3):
            if run.advance(seconds=0.0).finished:
                break
        run._held.release()  # the operating system does this for a dead process
        attempts += 1
    assert attempts > 3
    assert_same_results(place, unbroken)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_a_damaged_state_is_set_aside_and_the_one_before_is_used(place, unbroken, damage):
    run = TrialRun(job(place), CPU)
    while run.trainer.step < 8:
        run.advance(seconds=0.0)
    run.close()
    latest = place / "latest_state.pt"
    content = latest.read_bytes()
    if damage == "foreign":
        content = checkpoint.serialise({"trial_id": "another", "step": 3})
    damaged = {"truncated": content[: len(content) // 2], "empty": b"", "foreign": content}[damage]
    storage.write_atomically(latest, damaged)
    run = TrialRun(job(place), CPU)
    assert run.trainer.step == 4
    progress, messages = finish(run)
    assert progress.finished
    assert len(messages) == 1
    assert f"{latest} cannot be used" in messages[0]
    reason = "a state of trial another, not of" if damage == "foreign" else "not a whole state file"
    assert reason in messages[0]
    assert "set aside as latest_state.pt.set-aside-" in messages[0]
    assert len(list(place.glob("latest_state.pt.set-aside-*"))) == 1
    assert_same_results(place, unbroken)


@pytest.mark.parametrize("lost", ["ema", "history", "optimizer", "a weight"])
def test_nothing_of_a_refused_state_stays(tmp_path, unbroken, lost):
    """A state that fails halfway through loading: training starts from the first step, with the first weights."""
    run = TrialRun(job(tmp_path), CPU)
    while run.trainer.step < 8:
        run.advance(seconds=0.0)
    run.close()
    state = checkpoint.load(tmp_path / "latest_state.pt")
    if lost == "a weight":
        del state["model"]["lm_head.weight"]
    else:
        state[lost] = 3
    (tmp_path / "latest_state.pt").write_bytes(checkpoint.serialise(state))
    (tmp_path / "previous_state.pt").unlink()
    run = TrialRun(job(tmp_path), CPU)
    assert run.trainer.step == 0
    _, messages = finish(run)
    assert "set aside as latest_state.pt.set-aside-" in messages[0]
    assert_same_results(tmp_path, unbroken)


THRICE = {"eval": {"every": 6}}  # evaluated: a first, a middle and a last save


def killed_after_every_write(place: Location, monkeypatch) -> list[Location]:
    """What a trial's folder holds after each write, one folder a write: as a kill there would leave it."""
    left = []

    def copied(operation):
        def copying(held: HeldFolder, *arguments) -> None:
            operation(held, *arguments)
            left.append(place / str(len(left)))
            left[-1].mkdir(parents=True)
            for name in storage.sizes(held.path):
                storage.copy(held.path / name, left[-1] / name)
            write_atomically(left[-1] / ".lock", json.dumps({"released": True} | held.fence).encode())

        return copying

    with monkeypatch.context() as patch:
        patch.setattr(HeldFolder, "write", copied(HeldFolder.write))
        patch.setattr(HeldFolder, "copy", copied(HeldFolder.copy))
        finish(TrialRun(job(place / "whole", **THRICE), CPU))
    return left


def test_a_kill_after_any_write_ends_in_the_same_bits(place, tmp_path, monkeypatch):
    """Each evaluation is sealed once the next is there: at any moment each that was written is read, and once."""
    finish(TrialRun(job(tmp_path / "unbroken", **THRICE), CPU))
    whole, seen = results_of(tmp_path / "unbroken")[2], 0
    monkeypatch.setattr(growing, "PART", 1)
    folders = killed_after_every_write(place, monkeypatch)
    for folder in folders:
        rows = trial_table(folder, "evals").to_pylist()
        assert rows == whole[: len(rows)]
        assert len(rows) >= seen
        seen = len(rows)
        finish(TrialRun(job(folder, **THRICE), CPU))
        assert_same_results(folder, tmp_path / "unbroken")
        assert part_numbers(storage.sizes(folder)) == {f"evals-{number}.parquet": number for number in range(2)}
        best = load(folder / "best_state.pt")
        assert best["step"] == load(folder / "final_state.pt")["best"]["step"]
    assert len(folders) > 12


DIAGNOSED = {"diagnose": {"every": 4, "n": 2, "k": 1, "depth": 6}}


def test_old_evaluations_stand_in_no_state_and_are_written_once(tmp_path, monkeypatch):
    """Of a folder, too, whose state an earlier version wrote; a diagnosis's rows go with them. Logs have them all."""
    ours, whole = tmp_path / "ours", tmp_path / "whole"
    finish(TrialRun(job(whole, **DIAGNOSED), CPU))
    until_8(ours)
    state = checkpoint.load(ours / "latest_state.pt")
    assert state.pop("sealed") == {}
    write_atomically(ours / "latest_state.pt", checkpoint.serialise(state))
    monkeypatch.setattr(growing, "PART", 1)
    write_atomically(ours / "evals-7.parquet", b"of a process that was killed")
    finish(TrialRun(job(ours, **DIAGNOSED), CPU))
    state = checkpoint.load(ours / "final_state.pt")
    assert {row["step"] for row in state["history"]} == {12}
    assert {row["step"] for row in state["diagnoses"]["rows"]} == {12}
    assert_same_tables(ours, whole)
    assert len(part_numbers(storage.sizes(ours))) == 9
    finish(TrialRun(replace(job(ours, **DIAGNOSED), tensorboard=True), CPU))
    (events,) = (ours / "tensorboard").iterdir()
    assert {step for _, step, _ in tensorboard_scalars(events)} == {0, 4, 8, 12}


def test_a_damaged_state_that_names_parts_costs_no_row(tmp_path, monkeypatch):
    """The state before names fewer: their rows are trained again."""
    ours, whole = tmp_path / "ours", tmp_path / "whole"
    finish(TrialRun(job(whole, **DIAGNOSED), CPU))
    monkeypatch.setattr(growing, "PART", 1)
    until_8(ours)
    assert [len(load(ours / f"{name}_state.pt")["sealed"]) for name in ("previous", "latest")] == [3, 6]
    write_atomically(ours / "latest_state.pt", b"")
    run = TrialRun(job(ours, **DIAGNOSED), CPU)
    assert {row["step"] for row in trial_table(ours, "evals").to_pylist()} == {0, 4}
    finish(run)
    assert_same_tables(ours, whole)


@pytest.mark.parametrize("name", ["evals", "diagnostics", "windows"])
def test_a_part_that_is_lost_is_never_passed_over(tmp_path, monkeypatch, name):
    monkeypatch.setattr(growing, "PART", 1)
    finish(TrialRun(job(tmp_path, **DIAGNOSED), CPU))
    part = tmp_path / f"{name}-1.parquet"
    content = part.read_bytes()
    for left in (None, content[:-1]):
        part.unlink() if left is None else part.write_bytes(left)
        with pytest.raises(DamagedFileError, match=f"{part}: "):
            trial_table(tmp_path, name)
        with pytest.raises(DamagedFileError, match=f"{part}: lost, or cut, and no state holds its rows; put it back"):
            TrialRun(job(tmp_path, **DIAGNOSED), CPU)
        assert trial_end(tmp_path, 12).status == "unfinished"
    part.write_bytes(content)
    assert trial_end(tmp_path, 12).status == "done"
    rest = tmp_path / f"{name}.parquet"
    named = pq.read_table(rest).replace_schema_metadata({"parts": "../evals-0.parquet"})
    pq.write_table(named, rest)
    with pytest.raises(DamagedFileError, match=r"names '../evals-0.parquet' as a part of it; move it away"):
        trial_table(tmp_path, name)


def until_8(folder: Path) -> None:
    """A trial that is diagnosed, at its second last evaluation."""
    run = TrialRun(job(folder, **DIAGNOSED), CPU)
    while run.trainer.step < 8:
        run.advance(seconds=0.0)
    run.close()


def assert_same_tables(a: Path, b: Path) -> None:
    for name in ("evals", "diagnostics", "windows", "depths"):
        assert trial_table(a, name).to_pylist() == trial_table(b, name).to_pylist()


def test_done_at_fewer_steps_stays_done_when_more_steps_failed(place):
    finish(TrialRun(job(place), CPU))
    write_failed(place, "diverged", "the training loss is NaN at step 13", 13)
    assert trial_end(place, 12).status == "done"
    assert trial_end(place, 20).status == "failed"


def test_a_machine_without_git_trains_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    finish(TrialRun(job(tmp_path), CPU))
    assert json.loads((tmp_path / "trial.json").read_text())["attempts"][0]["commit"] is None


def test_a_kill_between_the_two_renames_of_a_save_loses_one_save_only(tmp_path, unbroken):
    run = TrialRun(job(tmp_path), CPU)
    while run.trainer.step < 8:
        run.advance(seconds=0.0)
    run.close()
    (tmp_path / "latest_state.pt").replace(tmp_path / "previous_state.pt")
    finish(TrialRun(job(tmp_path), CPU))
    assert_same_results(tmp_path, unbroken)


def test_more_steps_go_on_from_the_end(tmp_path):
    finish(TrialRun(job(tmp_path / "grown"), CPU))
    longer = {"train": {"steps": 20}}
    assert trial_end(tmp_path / "grown", 20).status == "unfinished"
    run = TrialRun(job(tmp_path / "grown", **longer), CPU)
    assert run.trainer.step == 12
    finish(run)
    finish(TrialRun(job(tmp_path / "at_once", **longer), CPU))
    assert_same_results(tmp_path / "grown", tmp_path / "at_once")
    assert len(json.loads((tmp_path / "grown" / "trial.json").read_text())["attempts"]) == 2


def test_a_diverging_trial_fails_with_its_reason_and_keeps_its_last_good_state(tmp_path):
    run = TrialRun(job(tmp_path, optim={"lr": 1e30, "warmup_steps": 0}), CPU)
    progress, _ = finish(run)
    assert progress.failed is not None
    assert progress.failed.startswith("the training loss is NaN at step")
    failed = json.loads((tmp_path / "failed.json").read_text())
    assert (failed["kind"], failed["reason"]) == ("diverged", progress.failed)
    end = trial_end(tmp_path, 12)
    assert (end.status, end.deterministic) == ("failed", True)
    assert checkpoint.load(tmp_path / "latest_state.pt")["step"] == 0


def test_an_error_leaves_its_reason_and_is_raised_again(tmp_path, monkeypatch):
    run = TrialRun(job(tmp_path), CPU)

    def out_of_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(held_folder, "write_atomically", out_of_disk)
    monkeypatch.setattr(run._held, "write_failed", lambda kind, reason, step: recorded.append((kind, reason)))
    recorded = []
    with pytest.raises(OSError, match="No space left"):
        finish(run)
    assert recorded == [("error", "OSError: [Errno 28] No space left on device")]
    run.close()


def out_of_memory_on_a_gpu(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory")


def out_of_memory_here(*_, **__):
    torch.empty(2**47, dtype=torch.float64)


@pytest.mark.parametrize("when", ["torch.load", "rrm.train.Trainer.load_state_dict"])
@pytest.mark.parametrize("full", [out_of_memory_on_a_gpu, out_of_memory_here])
def test_too_little_memory_is_no_damage(tmp_path, monkeypatch, full, when):
    """The state is whole: it is not set aside, and the next attempt takes it up."""
    finish(TrialRun(job(tmp_path), CPU))
    before = (tmp_path / "latest_state.pt").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(when, full)
        with pytest.raises(torch.OutOfMemoryError, match=r"out of memory.*: raise train\.shards \(1\).*the next run"):
            TrialRun(job(tmp_path), CPU)
    failed = json.loads((tmp_path / "failed.json").read_text())
    assert (failed["kind"], trial_end(tmp_path, 13).deterministic) == ("out_of_memory", False)
    assert (tmp_path / "latest_state.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.set-aside-*"))
    assert TrialRun(job(tmp_path), CPU).trainer.step == 12


def test_a_folder_has_one_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(held_folder, "LOCK_SECONDS", 0.1)
    with FileLock(tmp_path / ".lock"):
        for record in ("", '{"config": {}}', '{"config": {}, "attempts": [{"host": "h"}]}'):
            (tmp_path / "trial.json").write_text(record)
            who = r"process \? on h" if "host" in record else r"process \? on \?"
            with pytest.raises(BusyError, match=rf"another process is training this trial \({who}\); wait for it"):
                TrialRun(job(tmp_path), CPU)


def test_who_has_lost_the_folder_removes_nothing_of_it(tmp_path, unbroken, monkeypatch):
    folder = Path(shutil.copytree(unbroken, tmp_path / "trial"))
    run = TrialRun(job(folder), CPU)
    monkeypatch.setattr(run._held, "is_held", lambda: False)
    for name in ("latest_state.pt", "best.pt", "evals-7.parquet"):  # damaged, without its state, named by none
        (folder / name).write_bytes(b"")
    run.trainer.best = {"step": 3}
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for removes in (run._mend, run._tables.remove_unnamed, run._resume, lambda: run._held.unlink("best.pt")):
        with pytest.raises(BusyError, match="held no longer"):
            removes()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    run._held.release()


def test_states_are_saved_by_time_too(tmp_path):
    run = TrialRun(job(tmp_path, save_seconds=0.01, eval={"every": 12}), CPU)
    run.advance(seconds=0.0)
    time.sleep(0.02)
    run.advance(seconds=0.0)
    run._held.release()
    assert 0 < checkpoint.load(tmp_path / "latest_state.pt")["step"] < 12


def config_of(trial: TrialJob) -> dict[str, Any]:
    """What Tune gives to the worker of a trial."""
    return {"job": ray.put(trial.as_dict()), "gpu": False, "workers": 1}


@pytest.mark.usefixtures("local_ray")
def test_a_worker_that_is_set_up_and_given_away_touches_nothing(tmp_path):
    """Tune starts more workers than it uses: one that opened a failed trial's folder would forget the failure."""
    finish(TrialRun(job(tmp_path, optim={"lr": 1e30, "warmup_steps": 0}), CPU))
    assert trial_end(tmp_path, 12).status == "failed"
    spare = RecursiveTrial(config_of(job(tmp_path)))
    assert spare.reset_config(config_of(job(tmp_path / "other")))
    spare.cleanup()
    assert trial_end(tmp_path, 12).status == "failed"
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("local_ray")
def test_the_trainable_names_its_trial_and_takes_up_another(tmp_path, capsys):
    first = replace(job(tmp_path / "a"), sweep="tiny", name="multi2 seed=0")
    trainable = RecursiveTrial(config_of(first))
    assert repr(trainable) == f"tiny: first trial multi2 seed=0 ({first.trial_id})"
    while not trainable.step()["done"]:
        pass
    other = replace(job(tmp_path / "b", seed=1), sweep="tiny", name="multi2 seed=1")
    assert trainable.reset_config(config_of(other))
    report = trainable.train()
    assert report["config"] == {"gpu": False, "workers": 1}  # not the trial's, again and again
    assert report["train_step"] == 0  # the first evaluation; nothing of the other trial is left
    assert [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()] == [
        f"multi2 seed=0 ({first.trial_id}): from step 0 on cpu",
        f"multi2 seed=0 ({first.trial_id}): done at step 12",
        f"multi2 seed=1 ({other.trial_id}): from step 0 on cpu",
    ]
    trainable.cleanup()
    finish(TrialRun(job(tmp_path / "b", seed=1), CPU))
    finish(TrialRun(job(tmp_path / "c", seed=1), CPU))
    assert_same_results(tmp_path / "b", tmp_path / "c")


def test_the_weights_of_every_evaluation_are_kept_on_request(tmp_path):
    finish(TrialRun(dataclasses.replace(job(tmp_path), keep_evaluations=True), CPU))
    assert sorted(path.name for path in tmp_path.glob("step_*.pt")) == [
        "step_0.pt",
        "step_12.pt",
        "step_4.pt",
        "step_8.pt",
    ]
    kept, final = checkpoint.load(tmp_path / "step_12.pt"), checkpoint.load(tmp_path / "final.pt")
    assert all(torch.equal(kept[name], final[name]) for name in final)
    earlier = checkpoint.load(tmp_path / "step_4.pt")
    assert not all(torch.equal(earlier[name], final[name]) for name in final)


LASTING = ("final.pt", "final_state.pt", "best.pt", "best_state.pt", "evals.parquet", "unrolls.parquet")


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("names", [*((name,) for name in LASTING), LASTING, ("best.pt", "latest_state.pt")])
def test_what_a_done_trial_has_lost_is_made_again(tmp_path, names, cut):
    """Two saves, so that the states of both evaluations are there."""
    short = job(tmp_path, train={"steps": 4})
    finish(TrialRun(short, CPU))
    whole = {name: load(tmp_path / name) for name in names if name.endswith(".pt")}
    tables = {name: (tmp_path / name).read_bytes() for name in names if name not in whole}
    listed = json.loads((tmp_path / "done.json").read_text())["files"]
    assert lost_files(tmp_path, listed) == []
    for name in names:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        if cut:
            (tmp_path / name).write_bytes(content[:-1])
    assert set(lost_files(tmp_path, listed)) == set(names) & set(LASTING)
    finish(TrialRun(short, CPU))
    for name, before in whole.items():
        again = load(tmp_path / name)
        before, again = (state.get("model", state) for state in (before, again))
        assert all(torch.equal(before[key], again[key]) for key in before), name
    assert {name: (tmp_path / name).read_bytes() for name in tables} == tables
    assert lost_files(tmp_path, json.loads((tmp_path / "done.json").read_text())["files"]) == []


def test_what_cannot_be_made_again_is_said_once(tmp_path):
    finish(TrialRun(job(tmp_path), CPU))
    if checkpoint.load(tmp_path / "best_state.pt")["step"] in (8, 12):
        pytest.fail("choose a trial whose best evaluation is not among its last two saves")
    for name in ("best.pt", "best_state.pt"):
        (tmp_path / name).unlink()
    _, messages = finish(TrialRun(job(tmp_path), CPU))
    (message,) = messages
    assert message.startswith(f"{tmp_path / 'best.pt'} and {tmp_path / 'best_state.pt'}: lost, and no state of step ")
    assert lost_files(tmp_path, json.loads((tmp_path / "done.json").read_text())["files"]) == []


def test_a_worker_proves_that_it_sees_what_the_driver_wrote(place, monkeypatch):
    monkeypatch.setattr(held_folder, "SHARED_SECONDS", 0.0)
    trial = place / "trials" / "one"
    mine, sees = replace(job(trial), nonce="1234"), {"pid": 1, "host": "h", "since": "s"}
    run = place / "run.json"
    for content, what in (
        (None, f"does not see the sweep's storage: {run}: there is no such file here; mount it there at "),
        (sees | {"nonce": "99"}, f"sees another run of the sweep: {run}: process 1 on h since s; this trial's run "),
        (
            sees | {"pid": "x"},
            f"cannot tell whether it sees the sweep's storage: {run}: its field pid is 'x'; stop ",
        ),
    ):
        if content:
            write_atomically(run, json.dumps(content).encode())
        with pytest.raises(NotSharedError, match=f"^node {platform.node()} {re.escape(what)}"):
            TrialRun(mine, CPU)
        assert not (trial / ".lock").exists()
    write_atomically(run, json.dumps(sees | {"nonce": "1234"}).encode())
    TrialRun(mine, CPU).close()

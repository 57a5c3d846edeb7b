"""A trial's folder: what is in it, what a kill at any moment leaves, damaged states, failures."""

import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock
from tiny import MULTI, tiny_config

from results.schema import EVALS_SCHEMA, trial_end
from rrm import checkpoint
from tune import trial as trial_module
from tune.trainable import RecursiveTrial
from tune.trial import TrialBusyError, TrialJob, TrialRun, write_failed

CPU = torch.device("cpu")


def job(folder: Path, save_seconds: float = 60, **changes) -> TrialJob:
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


def results_of(folder: Path) -> tuple[dict, dict, list]:
    """What a trial comes to: its final weights, its best weights, its evaluations."""
    rows = pq.read_table(folder / "evals.parquet").to_pylist()
    return checkpoint.load(folder / "final.pt"), checkpoint.load(folder / "best.pt"), rows


def assert_same_results(a: Path, b: Path) -> None:
    for x, y in zip(results_of(a)[:2], results_of(b)[:2], strict=True):
        assert x.keys() == y.keys()
        assert all(torch.equal(x[name], y[name]) for name in x)
    assert results_of(a)[2] == results_of(b)[2]


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
        "done.json",
    }
    record = json.loads((unbroken / "trial.json").read_text())
    assert (record["arm"], record["seed"]) == ("multi2", 0)
    assert record["config"] == tiny_config(**MULTI).model_dump(mode="json")
    assert {"commit", "torch", "device", "threads"} <= record["attempts"][0].keys()
    assert pq.read_schema(unbroken / "evals.parquet").equals(EVALS_SCHEMA)
    done = json.loads((unbroken / "done.json").read_text())
    assert done["step"] == 12
    final, best = checkpoint.load(unbroken / "final_state.pt"), checkpoint.load(unbroken / "best_state.pt")
    assert (final["step"], best["step"]) == (12, done["best"]["step"])


def test_dropped_at_any_moment_it_goes_on_to_the_same_bits(tmp_path, unbroken):
    """As after SIGKILL: nothing is closed, the next process finds what was on disk."""
    attempts = 0
    while trial_end(tmp_path, 12).status != "done":
        run = TrialRun(job(tmp_path, save_seconds=1e-9), CPU)
        for _ in range(2 + attempts % 3):
            if run.advance(seconds=0.0).finished:
                break
        run._lock.release()  # the operating system does this for a dead process
        attempts += 1
    assert attempts > 3
    assert_same_results(tmp_path, unbroken)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_a_damaged_state_is_set_aside_and_the_one_before_is_used(tmp_path, unbroken, damage):
    run = TrialRun(job(tmp_path), CPU)
    while run.trainer.step < 8:
        run.advance(seconds=0.0)
    run.close()
    latest = tmp_path / "latest_state.pt"
    content = latest.read_bytes()
    if damage == "foreign":
        content = checkpoint.serialise({"trial_id": "another", "step": 3})
    latest.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "foreign": content}[damage])
    run = TrialRun(job(tmp_path), CPU)
    assert run.trainer.step == 4
    progress, messages = finish(run)
    assert progress.finished
    assert len(messages) == 1
    assert f"{latest} cannot be used" in messages[0]
    reason = "a state of trial another, not of" if damage == "foreign" else "not a whole state file"
    assert reason in messages[0]
    assert "set aside as latest_state.pt.set-aside-" in messages[0]
    assert len(list(tmp_path.glob("latest_state.pt.set-aside-*"))) == 1
    assert_same_results(tmp_path, unbroken)


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


class Killed(BaseException):
    """As SIGKILL: nothing after it runs."""


def killed_at(write: int, after: bool, folder: Path, monkeypatch) -> bool:
    """Train until the write of this number, and die before or after it; False if there are fewer writes."""
    writes = 0

    def counted(path: Path, content: bytes) -> None:
        nonlocal writes
        writes += 1
        if writes == write and not after:
            raise Killed
        checkpoint.write_atomically(path, content)
        if writes == write:
            raise Killed

    run = None
    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "write_atomically", counted)
        try:
            run = TrialRun(job(folder), CPU)
            finish(run)
        except Killed:
            if run is not None:
                run._lock.release()
            return True
    return False


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_write_ends_in_the_same_bits(tmp_path, unbroken, monkeypatch, after):
    write = 1
    while killed_at(write, after, tmp_path / str(write), monkeypatch):
        folder = tmp_path / str(write)
        finish(TrialRun(job(folder), CPU))
        assert_same_results(folder, unbroken)
        best = checkpoint.load(folder / "best_state.pt")
        assert best["step"] == checkpoint.load(folder / "final_state.pt")["best"]["step"]
        write += 1
    assert write > 12


def test_done_at_fewer_steps_stays_done_when_more_steps_failed(tmp_path):
    finish(TrialRun(job(tmp_path), CPU))
    write_failed(tmp_path, "diverged", "the training loss is NaN at step 13", 13)
    assert trial_end(tmp_path, 12).status == "done"
    assert trial_end(tmp_path, 20).status == "failed"


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

    monkeypatch.setattr(trial_module, "write_atomically", out_of_disk)
    monkeypatch.setattr(run, "_write_failed", lambda kind, reason: recorded.append((kind, reason)))
    recorded = []
    with pytest.raises(OSError, match="No space left"):
        finish(run)
    assert recorded == [("error", "OSError: [Errno 28] No space left on device")]
    run.close()


def test_a_folder_has_one_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(trial_module, "LOCK_SECONDS", 0.1)
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(TrialBusyError, match="another process is training this trial"),
    ):
        TrialRun(job(tmp_path), CPU)


def test_states_are_saved_by_time_too(tmp_path):
    run = TrialRun(job(tmp_path, save_seconds=0.01, eval={"every": 12}), CPU)
    run.advance(seconds=0.0)
    time.sleep(0.02)
    run.advance(seconds=0.0)
    run._lock.release()
    assert 0 < checkpoint.load(tmp_path / "latest_state.pt")["step"] < 12


def test_a_worker_that_is_set_up_and_given_away_touches_nothing(tmp_path):
    """Tune starts more workers than it uses: one that opened a failed trial's folder would forget the failure."""
    finish(TrialRun(job(tmp_path, optim={"lr": 1e30, "warmup_steps": 0}), CPU))
    assert trial_end(tmp_path, 12).status == "failed"
    spare = RecursiveTrial({"job": job(tmp_path).as_dict(), "gpu": False})
    assert spare.reset_config({"job": job(tmp_path / "other").as_dict(), "gpu": False})
    spare.cleanup()
    assert trial_end(tmp_path, 12).status == "failed"
    assert not (tmp_path / "other").exists()


def test_the_trainable_names_its_trial_and_takes_up_another(tmp_path):
    trainable = RecursiveTrial({"job": job(tmp_path / "a").as_dict(), "gpu": False})
    assert repr(trainable) == f"multi2 seed=0 {job(tmp_path).trial_id}"
    while not trainable.step()["done"]:
        pass
    other = job(tmp_path / "b", seed=1)
    assert trainable.reset_config({"job": other.as_dict(), "gpu": False})
    assert repr(trainable).endswith(other.trial_id)
    assert trainable.step()["train_step"] == 0  # the first evaluation; nothing of the other trial is left
    trainable.cleanup()
    finish(TrialRun(job(tmp_path / "b", seed=1), CPU))
    finish(TrialRun(job(tmp_path / "c", seed=1), CPU))
    assert_same_results(tmp_path / "b", tmp_path / "c")

"""Trials of several workers on a real Ray: the same folder as of one, and what happens when a worker fails."""

import json
import re
from pathlib import Path

import pytest
import torch
from tiny import MULTI, tiny_sweep, write_spec

import results
from launch.cli import main
from rrm import checkpoint
from tune.experiment import run_sweep
from tune.spec import Sweep, load_sweep

pytestmark = pytest.mark.usefixtures("local_ray")
DIAGNOSE = {"every": 4, "n": 6, "k": 2, "batch_size": 12, "depth": 4, "restarts": 2}
BASE = {
    "train": {"shards": 2},
    "eval": {"batch_size": 4},
    "diagnose": DIAGNOSE,
}
ARMS = {
    "multi2": MULTI,
    "serial": {"rollout": "serial_act", "model": {"halt_max_steps": 3}, "optim": {"warmup_steps": 13}},
    "masked": {"rollout": "act_mask", "train": {"optimizer_step": "rollout"}},
}


def sweep(folder: Path, **changes) -> Sweep:
    return load_sweep(write_spec(folder, tiny_sweep(storage=str(folder / "runs"), base=BASE, seeds=[0], **changes)))


def assert_same_trials(ours: Path, theirs: Path) -> None:
    """The same weights, training states and tables; time spent, and where, is not part of a result."""
    names = sorted(path.name for path in ours.iterdir())
    assert names == sorted(path.name for path in theirs.iterdir())
    for name in names:
        for weights in ("best.pt", "final.pt"):
            a, b = checkpoint.load(ours / name / weights), checkpoint.load(theirs / name / weights)
            assert all(torch.equal(a[key], b[key]) for key in a | b), f"{name}/{weights}"
        a, b = (checkpoint.load(folder / name / "final_state.pt") for folder in (ours, theirs))
        assert [str(x) for x in a["slots"]] == [str(x) for x in b["slots"]]
        for table in ("evals", "diagnostics", "depths", "restarts", "unrolls"):
            pair = [(folder / name / f"{table}.parquet").read_bytes() for folder in (ours, theirs)]
            assert pair[0] == pair[1], f"{name}/{table}"


def test_two_workers_end_in_the_folder_that_one_does(tmp_path, capsys):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    one = sweep(tmp_path / "one", arms=ARMS)
    for arm in one.spec.arms:  # without Ray, all shards in one process
        assert main(["train", one.path, "--arm", arm, "--seed", "0"]) == 0
    two = sweep(tmp_path / "two", arms=ARMS, resources={"workers": 2})
    by_one = capsys.readouterr().out
    assert run_sweep(two) == 0
    log = capsys.readouterr().out
    assert all(len(re.findall(rf"{arm} seed=0: done", log)) == 1 for arm in two.spec.arms)
    never = "serial: optim.warmup_steps 13 is more than the 12 optimizer steps of the whole training: the learning rate"
    assert (by_one.count(never), log.count(never)) == (1, 1)
    assert_same_trials(two.folder / "trials", one.folder / "trials")
    records = [json.loads(path.read_text()) for path in (two.folder / "trials").glob("*/trial.json")]
    workers = [attempt["workers"] for record in records for attempt in record["attempts"]]
    assert len(records) == len(workers) == 4
    assert all(len({worker["pid"] for worker in of_trial}) == 2 for of_trial in workers)
    assert len({worker["pid"] for of_trial in workers for worker in of_trial}) == 2  # both are used for every trial
    for each in (one, two):
        assert main(["results", "gather", each.path]) == 0
    hours = [results.load("trials", each.folder.parent).set_index("trial_id") for each in (one, two)]
    seconds = hours[1].train_seconds + hours[1].evaluate_seconds
    assert hours[1].device_hours.tolist() == pytest.approx((seconds / 3600 * 2).tolist())
    assert hours[1].flops_per_step.equals(hours[0].flops_per_step)


def test_a_trial_that_diverges_at_both_workers_is_said_once(tmp_path, capsys):
    loaded = sweep(tmp_path, resources={"workers": 2}, arms={"multi2": {"optim": {"lr": 1e30, "warmup_steps": 0}}})
    assert run_sweep(loaded) == 3
    assert (
        len(re.findall(r"multi2 seed=0: failed: the training loss is NaN at step \d+\n", capsys.readouterr().out)) == 1
    )
    ends = [path.name for end in ("done", "failed", "stopped") for path in loaded.folder.glob(f"trials/*/{end}.json")]
    assert ends == ["done.json", "failed.json"]

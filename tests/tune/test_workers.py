"""Trials of several workers on a real Ray: the same folder as of one, and what happens when a worker fails."""

import json
import re
from pathlib import Path

import pytest
import ray
import torch
from ray.exceptions import RayTaskError
from tiny import MULTI, tiny_sweep, write_spec

import results
from launch.cli import main
from rrm import checkpoint
from rrm.presets import merge
from rrm.torch_setup import MemoryRanOutError, out_of_memory_is
from rrm.workers import WorkerLostError
from tune.experiment import run_sweep
from tune.spec import Sweep, load_sweep
from tune.workers import lost

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


def test_a_trial_that_diverges_or_does_not_fit_is_said_once_and_the_next_has_its_workers(tmp_path, capsys):
    arms = {
        "large": merge(MULTI, {"perturb": {"rollouts": 2**40, "when": "act_step"}}),  # no address space holds them
        "baseline": {"objective": "clean"},
        "diverges": {"optim": {"lr": 1e30, "warmup_steps": 0}},
    }
    raw = tiny_sweep(storage=str(tmp_path / "runs"), base=BASE, seeds=[0], resources={"workers": 2}) | {"arms": arms}
    assert main(["run", write_spec(tmp_path, raw)]) == 3
    out = capsys.readouterr().out
    too_much = r"out of memory.*: raise train.shards \(2\), or lower .* \(4 x 1099511627776 rollouts\), or .*"
    of_large = rf"{too_much}; the next run tries it again as it is"
    for arm, said in (("large", of_large), ("diverges", r"the training loss is NaN at step \d+")):
        assert len(re.findall(rf"{arm} seed=0: failed: {said}\n", out)) == 1, out
    assert "starting it again" not in out
    assert "3 trials, 1 done, 2 failed" in out
    trials = {row.arm: row for row in results.load("trials", tmp_path / "runs").itertuples()}
    assert {arm: (row.status, len(json.loads(row.provenance))) for arm, row in trials.items()} == {
        "large": ("failed", 1),
        "baseline": ("done", 1),
        "diverges": ("failed", 1),
    }
    assert trials["large"].reason in out
    assert main(["plan", str(tmp_path / "sweep.yaml")]) == 0
    left = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "would train" in line]
    assert left == ["large"]


@pytest.mark.parametrize(
    ("cause", "kind", "said"),
    [
        (MemoryRanOutError("out of memory: mend"), MemoryRanOutError, "worker 1 of 2: out of memory: mend"),
        (ValueError("x"), WorkerLostError, "worker 1 of 2 is gone: ValueError: x"),
    ],
)
def test_what_another_worker_raised_is_said_by_the_first(cause, kind, said):
    def fail() -> None:
        raise cause

    with pytest.raises(RayTaskError) as raised:
        ray.get(ray.remote(fail).options(num_cpus=0).remote())
    found = lost("worker 1 of 2", raised.value)
    assert type(found) is kind
    assert str(found).startswith(said)
    with pytest.raises(kind, match=f"^{said}"), out_of_memory_is(lambda: "of the first"):
        raise found

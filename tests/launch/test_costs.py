"""What a sweep costs is said before it runs, and a trial that a GPU cannot hold is refused before anything starts."""

import re
import sys

import pytest
import torch
from rich.console import Console
from tiny import MULTI, tiny_config, tiny_sweep, write_spec

from launch.cli import main
from results.schema import FAILED
from results.trial_files import read_json
from rrm import fidelity
from rrm.flops import flops_of_evaluations, flops_per_act_step
from rrm.memory import kept_bytes, needed_bytes
from tune import memory
from tune.trial import TrialJob, TrialRun


def test_plan_says_what_each_configuration_costs(tmp_path, capsys):
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path), base={"train": {"shards": 2}}))
    assert main(["plan", spec, "--gpu", "l4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heading = next(i for i, line in enumerate(lines) if "GB kept" in line)
    assert "hours on l4" in lines[heading]
    rows = [line.split() for line in lines[heading + 1 : heading + 3]]  # one for both seeds
    for row, arm in zip(rows, ({}, MULTI), strict=True):
        config = tiny_config(train={"shards": 2}, **arm)
        step = flops_per_act_step(config) * 4 * config.rollouts * 2
        numbers = [float(x.replace(",", "")) for x in row[3:]]
        total = 12 * step + flops_of_evaluations(config)
        expected = 2, kept_bytes(config) / 1e9, needed_bytes(config) / 1e9, step / 1e9, total / 1e18
        assert numbers[:5] == pytest.approx(expected, rel=5e-3)
        assert numbers[5] == pytest.approx(total / 30.3e12 / 3600, rel=5e-3)
    assert main(["plan", spec, "--gpu", "h1000"]) == 2
    assert "--gpu h1000: no such GPU here; give one of h200, h100" in capsys.readouterr().err


def test_plan_cuts_nothing_of_the_costs_on_a_narrow_terminal(tmp_path, capsys, monkeypatch):
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path), grid={"optim.lr": [1e-3, 1e-4]}))

    def words(width: int) -> set[str]:
        monkeypatch.setattr("launch.costs.console", lambda: Console(file=sys.stdout, width=width))
        assert main(["plan", spec]) == 0
        costs = capsys.readouterr().out.split("ACT steps\n\n")[1]
        assert max(map(len, costs.split("GB kept:")[0].splitlines())) <= width
        return set(costs.split())

    assert words(80) == words(50) == words(200)
    assert {"optim.lr=0.0001", "parameters", "precision", "float32"} < words(80)


def test_plan_warns_of_a_long_warm_up_and_of_noise_that_the_precision_drowns(tmp_path, capsys):
    base = {"optim": {"warmup_steps": 25}, "train": {"forward_dtype": "bfloat16"}}
    small = {"multi2": {"perturb": {"sigma": 1e-4}}}
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path), base=base, arms=small))
    measured = fidelity._at_start.cache_info().misses
    assert main(["plan", spec, "--set", "grid={optim.lr: [1e-3, 1e-4], optim.weight_decay: [0.0, 1.0]}"]) == 0
    assert fidelity._at_start.cache_info().misses == measured + 1  # of four points one: their noise is the same
    out, err = capsys.readouterr()
    assert err == "measuring what the precision leaves of the noise\n"
    assert "baseline: optim.warmup_steps 25 is more than the 24 optimizer steps of the whole training" in out
    assert "multi2: train.forward_dtype bfloat16 drowns the noise of perturb.sigma 0.0001: noise_fidelity" in out
    assert "baseline: train.forward_dtype" not in out


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("here", "batch_size", "has"),
    [(int(needed_bytes(tiny_config(train={"shards": 2})) / 0.85) + 1, 4, ""), (None, 2**17, "24 GB; ")],
    ids=["this machine's", "a node's, by its name"],
)
def test_what_a_gpu_cannot_hold_is_refused_before_anything_starts(here, batch_size, has, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "gpu_memory", lambda: here)
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path), base={"train": {"batch_size": batch_size}}))
    assert main(["run", spec]) == 2
    assert "train.shards: 1 needs about" in (text := capsys.readouterr().err)
    assert f"{has}set train.shards: 2" in text
    assert not list(tmp_path.glob("tiny/trials/*"))


def test_the_smallest_gpu_of_a_cluster_counts_where_it_is_known(monkeypatch):
    monkeypatch.setattr(memory, "gpu_memory", lambda: 50)

    def node(name: str, gpus: int = 1, alive: bool = True) -> dict:
        return {"NodeID": name, "Alive": alive, "Resources": {"GPU": gpus, f"accelerator_type:{name}": 1.0}}

    known = node("H100"), node("GeForce-RTX-4090"), node("L4", alive=False), node("RTX-PRO-6000")
    assert memory.cluster_memory(known, "L4") == 24 * 10**9
    assert memory.cluster_memory(known, "H100") == 50
    assert memory.cluster_memory([node("H100", gpus=0), node("RTX-PRO-6000")], "H100") is None


@pytest.mark.parametrize(
    ("device", "mend"),
    [
        ("cuda", "train.* of a GPU's memory .* set train.shards: 2"),
        ("cpu", r"raise train.shards \(1\)"),
    ],
)
def test_out_of_memory_in_a_run_says_what_to_change_of_the_device_it_trains_on(device, mend, tmp_path, monkeypatch):
    config = tiny_config()
    job = TrialJob("a", 0, config.trial_id(), config.model_dump(mode="json"), str(tmp_path), 1, 60.0)
    run = TrialRun(job, torch.device("cpu"))
    monkeypatch.setattr(memory, "gpu_memory", lambda: 10**9)

    def full():
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(run.trainer, "train_step", full)
    run.advance(60)  # the evaluation of step 0
    monkeypatch.setattr(run.trainer, "device", torch.device(device))
    with pytest.raises(torch.OutOfMemoryError, match=f"out of memory: {mend}"):
        run.advance(60)
    assert re.search(mend, (read_json(tmp_path / FAILED) or {})["reason"])
    run.close()

"""Malformed sweeps: one message with field, value and mend, all problems at once, exit code 2, no Ray."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_sweep, write_spec

from launch.cli import main

BAD: dict[str, tuple[dict[str, Any] | str, list[str]]] = {
    "unknown key": (
        tiny_sweep(base={"train": {"stepz": 10}}),
        ["base.train.stepz: unknown field with value 10 (did you mean steps?); fields: steps, batch_size"],
    ),
    "unknown key of the sweep": (
        tiny_sweep(resource="auto"),
        ["resource: unknown field with value 'auto' (did you mean resources?)"],
    ),
    "wrong type": (
        tiny_sweep(base={"train": {"steps": "many"}}),
        ["base.train.steps: 'many' is not a whole number; give a whole number"],
    ),
    "sigma below 0": (
        tiny_sweep(arms={"multi2": {"perturb": {"sigma": -0.1}}}),
        ["arms.multi2.perturb.sigma: -0.1 is below 0; give 0 or more"],
    ),
    "unknown arm as baseline": (
        tiny_sweep(baseline="basline"),
        ["baseline: 'basline' is not an arm (did you mean baseline?); arms: baseline, multi2"],
    ),
    "the name of the tables' folder": (
        tiny_sweep(name="tables"),
        ["name: 'tables' is the folder of all sweeps' tables in a storage; give another name"],
    ),
    "duplicate seed": (tiny_sweep(seeds=[0, 1, 1]), ["seeds: 1 stands more than once; give each seed once"]),
    "missing file": (
        tiny_sweep(
            base={"task": {"generate": None, "train": "nowhere.csv", "test": "neither.csv"}, "train": {"batch_size": 0}}
        ),
        [
            "base.train.batch_size: 0 is below 1",
            "nowhere.csv: No such file or directory; give the path of a file that exists",
            "neither.csv: No such file or directory",
        ],
    ),
    "bad YAML": (
        "name: a\nbase: {train: [1, 2\narms:",
        ["line 3, column 5: not valid YAML", "mend the syntax there"],
    ),
    "a key twice": ("name: a\nname: b\n", ["line 2, column 1: not valid YAML", 'duplicate key "name"']),
    "not a mapping": ("- 1\n- 2\n", ["holds [1, 2]; give a mapping with name, base, arms, baseline and seeds"]),
    "empty arms": (tiny_sweep() | {"arms": {}}, ["arms: {} is empty; give at least one"]),
    "grid over a field that does not exist": (
        tiny_sweep(grid={"perturb.sgima": [0.1, 0.2]}),
        ["grid.perturb.sgima: no such field (did you mean sigma?); fields of perturb: sigma, where, when, rollouts"],
    ),
    "batch size 0": (
        tiny_sweep(base={"train": {"batch_size": 0}}),
        ["base.train.batch_size: 0 is below 1; give 1 or more"],
    ),
    "unknown preset": (
        tiny_sweep(base={"preset": "sudoku-4x4-trm-mpl"}),
        ["base.preset: 'sudoku-4x4-trm-mpl' is no preset (did you mean sudoku-4x4-trm-mlp?); presets: "],
    ),
    "unknown objective": (
        tiny_sweep(arms={"multi2": {"objective": "multi_perturbed"}}),
        ["arms.multi2.objective: 'multi_perturbed' is not one of", "(did you mean multi_perturbed_ce?)"],
    ),
    "noise in a clean arm": (
        tiny_sweep(arms={"baseline": {"perturb": {"sigma": 0.1}}}),
        ["arms.baseline.perturb: {'sigma': 0.1} with the objective clean, which adds no noise; remove it or choose"],
    ),
    "one rollout in a multi arm": (
        tiny_sweep(arms={"multi2": {"perturb": {"rollouts": 1}}}),
        ["arms.multi2.perturb.rollouts: 1 with multi_perturbed_ce, whose rollout 0 is clean; give 2 or more"],
    ),
    "no noise in a perturbed arm": (
        tiny_sweep() | {"arms": {"baseline": {"objective": "clean"}, "x": {"objective": "single_perturbed_ce"}}},
        ["perturb: single_perturbed_ce needs one; give perturb: {sigma: ...}"],
    ),
    "last step not evaluated": (
        tiny_sweep(base={"train": {"steps": 10}}),
        ["base.train.steps: 10 is not a multiple of eval.every 4; use 8 or 12, so that the last step is evaluated"],
    ),
    "two arms that are one": (
        tiny_sweep(arms={"control": {"objective": "clean"}}),
        ["arms.control: the same trial as arms.baseline in every field; change a field or remove one of the two"],
    ),
    "pairs of trajectories that streaming tears apart": (
        tiny_sweep(
            base={"rollout": "serial_act"},
            arms={"multi2": {"perturb": {"rollouts": 3, "antithetic": True, "sigma_per": "example"}}},
        ),
        [
            "arms.multi2.perturb.antithetic: true with rollout serial_act, whose trajectories are soon at different",
            "arms.multi2.perturb.sigma_per: example with rollout serial_act",
        ],
    ),
    "a grid that an arm overrides": (
        tiny_sweep(grid={"perturb.sigma": [0.1]}),
        ["grid.perturb.sigma: [0.1] is crossed with every arm, but arms.multi2 sets perturb.sigma too; remove one"],
    ),
    "heads that do not divide": (
        tiny_sweep(base={"model": {"mlp_t": False, "num_heads": 3}}),
        ["base.model.hidden_size: 8 does not divide into num_heads 3 heads of even size; use a multiple of 6"],
    ),
    "unknown architecture": (
        tiny_sweep(base={"model": {"arch": "hmr"}}),
        ["base.model.arch: 'hmr' is not one of trm, hrm, srm (did you mean hrm?)"],
    ),
    "unknown task": (
        tiny_sweep(base={"task": {"name": "mazes"}}),
        ["base.task.name: 'mazes' is not one of sudoku, maze (did you mean maze?)"],
    ),
    "a list for a task": (
        tiny_sweep(base={"preset": "sudoku-4x4-trm-mlp", "task": {"name": ["maze"]}}),
        ["base.task.name: ", "is not one of sudoku, maze"],
    ),
    "a field of another task": (
        tiny_sweep(base={"task": {"name": "maze", "side": 6}}),
        [
            "base.task.box: unknown field with value 2; fields: name, generate, data, train, validation, test",
            "base.task.generate.blanks: unknown field with value 6; fields: puzzles, seed, min_path",
            "base.task.generate.min_path: missing; give a value",
        ],
    ),
    "a folder without puzzles": (
        tiny_sweep(base={"task": {"generate": None, "data": "/etc"}}),
        ["base.task.data: ", "/etc: no train and no test there; give a folder with train.csv and test.csv"],
    ),
    "a field of another architecture": (
        tiny_sweep(base={"model": {"arch": "hrm"}}),
        ["base.model.mlp_t: unknown field with value True; fields: hidden_size, H_cycles"],
    ),
    "a latent the model has not": (
        tiny_sweep(base={"model": {"single_z": True}}),
        ["arms.multi2.perturb.where: z_H is no latent of this model; it has z_L"],
    ),
    "infinite": (
        tiny_sweep(arms={"multi2": {"perturb": {"sigma": float("inf")}}}),
        ["arms.multi2.perturb.sigma: inf is not finite; give a number"],
    ),
    "grid value out of range": (
        tiny_sweep(grid={"train.batch_size": [4, 0]}),
        ["grid.train.batch_size: 0 is below 1; give 1 or more"],
    ),
    "missing fields": ({"name": "tiny"}, ["base: missing", "arms: missing", "baseline: missing", "seeds: missing"]),
    "resources": (
        tiny_sweep(resources={"cpu": 0}),
        ["resources.cpu: 0 is below 0.01; give 0.01 or more"],
    ),
    "one and a half GPUs": (
        tiny_sweep(resources={"gpu": 1.5}),
        ["resources.gpu: 1.5 is more than the one that a process uses; give gpu: 1 and workers: 2"],
    ),
    "three GPUs": (
        tiny_sweep(resources={"gpu": 3}),
        ["resources.gpu: 3 is more than the one that a process uses; give gpu: 1 and workers: 4"],
    ),
    "workers that share a GPU": (
        tiny_sweep(resources={"gpu": 0.5, "workers": 2}, base={"train": {"shards": 2}}),
        ["resources.gpu: 0.5 with 2 workers, each of which needs a whole one; give 1"],
    ),
    "workers that no tree has": (
        tiny_sweep(resources={"workers": 3}),
        ["resources.workers: 3 is no power of two, into which shards are handed out; give 1, 2 or 4, say"],
    ),
    "more workers than shards": (
        tiny_sweep(resources={"workers": 4}, arms={"multi2": {"train": {"shards": 2}}}),
        [
            "resources.workers: 4 with train.shards 1, and each computes whole shards; give train.shards: 4",
            "resources.workers: 4 with train.shards 2, and each computes whole shards; give train.shards: 4, which is",
        ],
    ),
    "shards that no batch has": (
        tiny_sweep(arms={"multi2": {"train": {"shards": 8}}}),
        ["arms.multi2.train.shards: 8 cuts no batch of 4 into equal shards", "give a power of two that divides it, 4"],
    ),
    "resources by another name": (
        tiny_sweep(resources="all"),
        ["resources: 'all' is neither auto nor a mapping; give auto or {cpu: ..., gpu: ...}"],
    ),
    "steps in the grid": (
        tiny_sweep(grid={"train.steps": [4, 8]}),
        ["grid.train.steps: 4, 8 are one trial, trained less or longer; give the longest in base and read"],
    ),
    "arms that differ in steps alone": (
        tiny_sweep(arms={"longer": {"objective": "clean", "train": {"steps": 16}}}),
        ["arms.longer.train.steps: 12, 16 are one trial, trained less or longer"],
    ),
    "arms that differ in how kernels are launched": (
        tiny_sweep(arms={"graphs": {"objective": "clean", "train": {"cuda_graphs": True}}}),
        ["arms.graphs.train.cuda_graphs: true and false are one trial, to the same bits; set it in base"],
    ),
    "a grid of how kernels are launched": (
        tiny_sweep(grid={"train.cuda_graphs": [False, True]}),
        ["grid.train.cuda_graphs: true and false are one trial, to the same bits; set it in base"],
    ),
    "an evaluation of its own": (
        tiny_sweep(arms={"multi2": {"eval": {"rollouts": 1}}}),
        ["arms.multi2.eval: {'rollouts': 1} is set for one arm; arms are compared on the same evaluation: set it in"],
    ),
    "noise that is evaluated nowhere": (
        tiny_sweep(base={"model": {"single_z": True}, "eval": {"where": ["z_H"]}})
        | {"arms": {"baseline": {"objective": "clean"}}},
        ["base.eval.where: z_H is no latent of this model; it has z_L"],
    ),
    "a typo in what a clean arm drops": (
        tiny_sweep(base={"perturb": {"sgima": 0.1}}) | {"arms": {"baseline": {"objective": "clean"}}},
        ["base.perturb.sgima: unknown field with value 0.1 (did you mean sigma?); fields: sigma, where, when, roll"],
    ),
    "an unknown preset beside another problem": (
        tiny_sweep(base={"preset": "none", "train": {"batch_size": 0}}),
        ["base.preset: 'none' is no preset", "base.train.batch_size: 0 is below 1"],
    ),
    "a number where log-uniform takes an interval": (
        tiny_sweep(arms={"multi2": {"perturb": {"sampling": "loguniform"}}}),
        ["arms.multi2.perturb.sigma: 0.5 with sampling loguniform, which takes an interval; give [low, high]"],
    ),
    "an interval where a number is due": (
        tiny_sweep(arms={"multi2": {"perturb": {"sigma": [0.1, 0.2]}}}),
        ["arms.multi2.perturb.sigma: [0.1, 0.2] with sampling fixed, which takes one number; give one, or choose samp"],
    ),
    "an interval that ends before it begins": (
        tiny_sweep(arms={"multi2": {"perturb": {"sampling": "loguniform", "sigma": [3e-3, 3e-5]}}}),
        ["arms.multi2.perturb.sigma: [0.003, 3e-05] is no interval; give [low, high] with 0 < low < high"],
    ),
    "an interval of three": (
        tiny_sweep(arms={"multi2": {"perturb": {"sampling": "loguniform", "sigma": [1, 2, 3]}}}),
        ["arms.multi2.perturb.sigma: [1.0, 2.0, 3.0] is no interval; give [low, high] with 0 < low < high"],
    ),
    "a word in an interval": (
        tiny_sweep(arms={"multi2": {"perturb": {"sampling": "loguniform", "sigma": [0.1, "high"]}}}),
        ["arms.multi2.perturb.sigma[1]: 'high' is not a number; give a number"],
    ),
    "noise by a name that is none": (
        tiny_sweep(arms={"multi2": {"perturb": {"sampling": "log_uniform"}}}),
        ["arms.multi2.perturb.sampling: 'log_uniform' is not one of", "(did you mean loguniform?)"],
    ),
    "a band that is not sampled": (
        tiny_sweep(arms={"multi2": {"perturb": {"band": 3.0}}}),
        ["arms.multi2.perturb.band: 3 with sampling fixed; remove it or choose sampling: band"],
    ),
    "a mixture of clean trajectories only": (
        tiny_sweep(arms={"multi2": {"perturb": {"p_clean": 1.0}}}),
        ["arms.multi2.perturb.p_clean: 1.0 is not below 1; give less than 1"],
    ),
    "pairs of one": (
        tiny_sweep(arms={"multi2": {"perturb": {"antithetic": True}}}),
        ["arms.multi2.perturb.antithetic: true with an odd number of perturbed trajectories a puzzle (1); make pairs"],
    ),
    "a warm-up without end": (
        tiny_sweep(arms={"multi2": {"perturb": {"warmup_steps": 12}}}),
        ["arms.multi2.perturb.warmup_steps: 12 leaves none of train.steps 12 to perturb; give fewer"],
    ),
    "an optimizer step an ACT step while rows drop out": (
        tiny_sweep(arms={"multi2": {"rollout": "act_mask"}}),
        ["base.train.optimizer_step: act with rollout act_mask, whose mean is known after its last step only; use"],
    ),
    "a normalisation that makes no difference": (
        tiny_sweep(arms={"multi2": {"train": {"normalise": "slots"}}}),
        ["arms.multi2.train.normalise: slots with rollout parallel_fixed, where every step counts alike; remove it"],
    ),
    "a base whose noise does not fit": (
        tiny_sweep(base={"perturb": {"sigma": 0.1, "sampling": "loguniform"}}, arms={"multi2": {"perturb": None}})
        | {"arms": {"baseline": {"objective": "clean"}, "single": {"objective": "single_perturbed_ce"}}},
        ["base.perturb.sigma: 0.1 with sampling loguniform, which takes an interval; give [low, high]"],
    ),
    "two parts that do not fit": (
        tiny_sweep(base={"train": {"steps": 10}}, arms={"multi2": {"perturb": {"rollouts": 1}}}),
        ["base.train.steps: 10 is not a multiple", "arms.multi2.perturb.rollouts: 1 with multi_perturbed_ce"],
    ),
    "an arm whose name is a number": (
        tiny_sweep(baseline="none") | {"arms": {1: {"objective": "clean"}}},
        [
            'arms: the key 1 is a whole number to YAML; write it as a text: "1"',
            "baseline: 'none' is not an arm; arms: 1",
        ],
    ),
    "a seed beyond 31 bits": (
        tiny_sweep(seeds=[0, 2**64]),
        ["seeds[1]: 18446744073709551616 is above 2147483647; give 2147483647 or less"],
    ),
    "nested without end": ("a: " + "[" * 3000, ["not valid YAML"]),
    "a path that no system takes": (
        tiny_sweep(base={"task": {"generate": None, "train": "a\0b", "test": "a\0b"}}),
        ["base.task.train: 'a\\x00b' is no path; give one", "base.task.test: 'a\\x00b' is no path"],
    ),
    "parts and the whole in one grid": (
        tiny_sweep(grid={"optim": [{"lr": 0.1}], "optim.lr": [0.2]}),
        ["grid.optim.lr: part of optim, which the grid sets too; remove one of the two"],
    ),
    "no storage": (tiny_sweep(storage=""), ["storage: '' is empty; give a text"]),
    "storage that is no place": (
        tiny_sweep(storage="gs://bucket/runs"),
        ["storage: 'gs://bucket/runs' is no place; give a path that every node sees, or s3://bucket/prefix"],
    ),
    "storage in no bucket": (tiny_sweep(storage="s3://"), ["storage: 's3://' names no bucket; give s3://bucket/pref"]),
    "seed in the base": (
        tiny_sweep(base={"seed": 3}),
        ["base.seed: 3 is set here; seeds stand in the list `seeds`"],
    ),
    "everything at once": (
        tiny_sweep(
            seeds=[0, 0, -1],
            baseline="none",
            base={"train": {"batch_size": 0, "stepz": 1}},
            arms={"multi2": {"perturb": {"sigma": -1}}},
            grid={"nothing": [1]},
        ),
        [
            "seeds: 0 stands more than once",
            "seeds[2]: -1 is below 0; give 0 or more",
            "baseline: 'none' is not an arm",
            "base.train.batch_size: 0 is below 1",
            "base.train.stepz: unknown field",
            "arms.multi2.perturb.sigma: -1 is below 0",
            "grid.nothing: no such field",
        ],
    ),
}


def write(folder: Path, spec: dict[str, Any] | str) -> str:
    if isinstance(spec, dict):
        return write_spec(folder, spec)
    (folder / "sweep.yaml").write_text(spec)
    return str(folder / "sweep.yaml")


@pytest.mark.parametrize("kind", BAD)
def test_one_message_with_field_value_and_mend(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    spec, says = BAD[kind]
    path = write(tmp_path, spec)
    assert main(["run", path]) == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    for expected in says:
        assert any(expected in line for line in lines), printed.err
    problems = len(lines) - 1
    assert lines[0] == f"{path}: {problems} problem{'s' if problems > 1 else ''}, nothing was started"
    unexpected = [line for line in lines[1:] if not any(expected in line for expected in says)]
    assert unexpected == []
    assert printed.out == ""
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.yaml"]


def test_bad_specs_start_no_ray_and_what_modules_hold_is_never_looked_at_for_garbage(tmp_path):
    paths = []
    for i, (spec, _) in enumerate(BAD.values()):
        (tmp_path / str(i)).mkdir()
        paths.append(write(tmp_path / str(i), spec))
    script = """
import gc, json, sys
from launch.cli import main
print(json.dumps([main(["run", path]) for path in json.loads(sys.argv[1])]), "ray" in sys.modules)
print(gc.isenabled(), gc.get_freeze_count())
import tune.trainable
print(gc.isenabled(), gc.get_freeze_count())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(paths)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    codes, by_a_command, by_a_worker = done.stdout.splitlines()
    assert codes == f"{json.dumps([2] * len(BAD))} False"
    collects, torch_is_passed_over = by_a_command.split()
    assert (collects, int(torch_is_passed_over) > 100_000) == ("True", True)
    collects, both_are = by_a_worker.split()
    assert (collects, int(both_are) - int(torch_is_passed_over) > 50_000) == ("True", True)


@pytest.mark.parametrize("command", [["run"], ["train", "--arm", "baseline", "--seed", "0"]])
def test_a_missing_compiler_is_told_before_anything_starts(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    path = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), base={"train": {"compile": True}}))
    assert main([command[0], path, *command[1:]]) == 2
    said = capsys.readouterr().err
    assert "train.compile: torch compiles by no-such-compiler, which is not on this machine; install it" in said
    assert not list((tmp_path / "runs").rglob("*.pt"))


@pytest.mark.parametrize("command", [["run"], ["plan"], ["results", "show"]])
def test_a_spec_that_is_not_there(command, tmp_path, capsys):
    assert main([*command, str(tmp_path / "no.yaml")]) == 2
    assert (
        "no.yaml: 1 problem, nothing was started\n  No such file or directory; give the path" in capsys.readouterr().err
    )


def test_train_names_what_it_does_not_know(tmp_path, capsys):
    path = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs")))
    assert main(["train", path, "--arm", "multi4", "--seed", "0"]) == 2
    assert "--arm multi4: no such arm; arms: baseline, multi2" in capsys.readouterr().err
    assert main(["train", path, "--arm", "multi2", "--seed", "7"]) == 2
    assert "--seed 7: not in seeds [0, 1]; give one of them" in capsys.readouterr().err


def test_set_lays_values_over_the_spec_and_checks_them(tmp_path, capsys):
    path = write_spec(tmp_path, tiny_sweep())
    assert main(["plan", path, "--set", "seeds=[5]", "--set", f"storage={tmp_path}/here"]) == 0
    assert "tiny: 2 trials, 2 would be trained" in capsys.readouterr().out
    assert main(["plan", path, "--set", "base.optim.lr=-1"]) == 2
    assert "base.optim.lr: -1 is not above 0; give more than 0" in capsys.readouterr().err
    assert main(["plan", path, "--set", "seeds"]) == 2
    assert "--set seeds: give FIELD=VALUE" in capsys.readouterr().err

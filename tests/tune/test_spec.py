"""Expansion of a sweep: arms x grid x seeds, presets and layers, identity of trials."""

import json

import pytest
from tiny import MULTI, TINY, tiny_sweep, write_spec

from launch.cli import main
from rrm.presets import merge
from tune.plan import manifest, write_manifest
from tune.spec import load_sweep


def sweep(tmp_path, **changes):
    return load_sweep(write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), **changes)))


def test_arms_times_grid_times_seeds(tmp_path):
    cells = sweep(tmp_path, grid={"train.batch_size": [2, 4], "optim.lr": [1.0e-3]}).cells
    assert len(cells) == 2 * 2 * 2
    assert [(c.arm, c.point_name, c.seed) for c in cells[:3]] == [
        ("baseline", "train.batch_size=2 optim.lr=0.001", 0),
        ("baseline", "train.batch_size=2 optim.lr=0.001", 1),
        ("baseline", "train.batch_size=4 optim.lr=0.001", 0),
    ]
    assert [c.config.train.batch_size for c in cells] == [2, 2, 4, 4] * 2
    assert len({c.trial_id for c in cells}) == 8


def test_a_clean_arm_is_one_trial_whatever_noise_the_grid_asks_for(tmp_path):
    base = TINY | {"perturb": {"sigma": 0.1, "rollouts": 2}}
    arms = {"baseline": {"objective": "clean"}, "multi2": {"objective": "multi_perturbed_ce"}}
    raw = tiny_sweep(grid={"perturb.sigma": [0.1, 0.2]}, seeds=[0]) | {"base": base, "arms": arms}
    loaded = load_sweep(write_spec(tmp_path, raw))
    assert len(loaded.cells) == 4
    assert len(loaded.trials) == 3
    assert {c.config.perturb.sigma for c in loaded.cells if c.config.perturb} == {0.1, 0.2}


def test_preset_then_base_then_grid_then_arm(tmp_path):
    raw = {
        "name": "layers",
        "base": {"train": {"steps": 200}, "eval": {"n": 32}},
        "arms": {"baseline": {"objective": "clean"}, "slow": {"optim": {"lr": 1.0e-4}}},
        "baseline": "baseline",
        "grid": {"preset": ["sudoku-4x4-trm-mlp", "sudoku-4x4-hrm"]},
        "seeds": [0],
    }
    configs = [cell.config for cell in load_sweep(write_spec(tmp_path, raw)).cells]
    assert [c.model.arch for c in configs] == ["trm", "hrm", "trm", "hrm"]
    assert [c.optim.lr for c in configs] == [3e-3, 1e-3, 1e-4, 1e-4]
    assert [c.eval.every for c in configs] == [50, 100, 50, 100]
    assert {(c.train.steps, c.train.batch_size, c.eval.n) for c in configs} == {(200, 16, 32)}


def test_of_a_preset_for_another_model_or_task_what_both_have_is_taken(tmp_path, capsys):
    raw = {
        "name": "others",
        "base": {"preset": "sudoku-4x4-trm-mlp"},
        "arms": {
            "baseline": {"objective": "clean"},
            "srm": {"objective": "clean", "model": {"arch": "srm", "L_layers": 2}},
        },
        "baseline": "baseline",
        "seeds": [0],
    }
    trm, srm = (cell.config.model for cell in load_sweep(write_spec(tmp_path, raw)).cells)
    assert (trm.arch, srm.arch, srm.L_layers) == ("trm", "srm", 2)
    assert (srm.hidden_size, srm.halt_max_steps) == (trm.hidden_size, trm.halt_max_steps) == (32, 4)
    raw["base"]["task"] = {"name": "maze", "side": 7, "generate": {"min_path": 5}}
    task = load_sweep(write_spec(tmp_path, raw)).cells[0].config.task
    assert (task.side, task.generate.puzzles) == (7, 1000)
    raw["base"]["model"] = {"mlp_t": True}  # what the file itself says is not left out
    raw["base"]["task"] = {"name": "maze", "box": 2}
    assert main(["plan", write_spec(tmp_path, raw)]) == 2
    printed = capsys.readouterr().err
    assert "base.model.mlp_t: unknown field with value True" in printed
    assert "base.task.box: unknown field with value 2" in printed
    assert "base.task.side: missing; give a value" in printed


def test_numbers_are_numbers_in_every_yaml_notation(tmp_path):
    text = (tmp_path / "s.yaml").write_text
    path = write_spec(tmp_path, tiny_sweep())
    written = (tmp_path / "sweep.yaml").read_text().replace("lr: 0.001", "lr: 1e-3")
    assert "1e-3" in written
    text(written)
    assert load_sweep(str(tmp_path / "s.yaml")).cells[0].trial_id == load_sweep(path).cells[0].trial_id


def test_identity_is_what_the_numbers_depend_on(tmp_path):
    ids = {cell.trial_id for cell in sweep(tmp_path).cells}
    place = {"storage": "/elsewhere", "resources": {"cpu": 2}}
    elsewhere = place | {"name": "other", "save_seconds": 1, "max_failures": 0}
    same = load_sweep(write_spec(tmp_path, tiny_sweep(**elsewhere)))
    assert {cell.trial_id for cell in same.cells} == ids
    for change in ({"optim": {"lr": 0.5}}, {"eval": {"n": 7}}, {"task": {"generate": {"seed": 1}}}):
        assert not {cell.trial_id for cell in sweep(tmp_path, base=change).cells} & ids


def test_trial_ids_do_not_change_between_versions(tmp_path):
    """Written down: another value would orphan the trials of every user's sweep."""
    assert [cell.trial_id for cell in sweep(tmp_path).cells] == IDS


IDS = ["580072ca4764", "15fa907ebefd", "7a66e8a512de", "f16997f783ee"]


def test_manifest_says_which_cell_is_which_trial(tmp_path):
    loaded = sweep(tmp_path, grid={"optim.lr": [0.1, 0.2]})
    write_manifest(loaded)
    manifest = json.loads((loaded.folder / "sweep.json").read_text())
    assert manifest["baseline"] == "baseline"
    assert [(c["arm"], c["point"], c["seed"], c["trial_id"]) for c in manifest["cells"]] == [
        (c.arm, c.point_name, c.seed, c.trial_id) for c in loaded.cells
    ]


def test_the_copy_of_the_spec_is_what_ran(tmp_path):
    path = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs")))
    loaded = load_sweep(path, ["seeds=[7]", "base.optim.lr=0.5"])
    write_manifest(loaded)
    again = load_sweep(str(loaded.folder / "spec.yaml"))
    assert [cell.trial_id for cell in again.cells] == [cell.trial_id for cell in loaded.cells]
    assert {cell.seed for cell in again.cells} == {7}


@pytest.mark.parametrize("name", ["quickstart", "sudoku_extreme"])
def test_shipped_specs_are_valid(name, tmp_path, shared_data, capsys):
    files = [f"--set=base.task.{key}={shared_data}/sudoku_extreme_{key}.csv" for key in ("train", "test")]
    spec = f"{__file__.rpartition('/tests/')[0]}/launch/specs/{name}.yaml"
    assert main(["plan", spec, f"--set=storage={tmp_path}", *(files if name == "sudoku_extreme" else [])]) == 0
    assert "would train" in capsys.readouterr().out


def test_a_seed_more_keeps_the_others(tmp_path):
    few, more = (
        sweep(tmp_path),
        sweep(tmp_path, seeds=[0, 1, 2], arms={"multi3": merge(MULTI, {"perturb": {"rollouts": 3}})}),
    )
    assert set(few.trials) < set(more.trials)
    assert len(more.trials) == 9


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"primary": {"metric": "perturbed"}}, "primary.sigma: missing with perturbed; give one of eval.sigmas"),
        (
            {"primary": {"metric": "best", "sigma": 0.5}},
            "primary.sigma: 0.5 with best, which is of the clean run; remove it",
        ),
        (
            {"primary": {"metric": "perturbed", "sigma": 0.3}},
            "primary.sigma: 0.3 is not evaluated; give one of eval.sigmas: 0.5",
        ),
        ({"primary": "positive_modes"}, "primary.metric: positive_modes with trials that are not diagnosed"),
        ({"primary": "accuracy"}, "primary.metric: "),
        ({"margin": 2}, "margin: "),
    ],
)
def test_a_primary_metric_that_is_not_measured_is_named(tmp_path, capsys, changes, problem):
    assert main(["plan", write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), **changes))]) == 2
    printed = capsys.readouterr().err
    assert "1 problem, nothing was started" in printed
    assert f"\n  {problem}" in printed


def test_what_is_asked_stands_in_the_plan_and_in_the_manifest(tmp_path, capsys):
    asked = {"primary": {"metric": "perturbed", "sigma": 0.5}, "margin": 0.05, "grid": {"optim.lr": [1e-3, 1e-2]}}
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), **asked))
    assert main(["plan", spec]) == 0
    primary = "primary: perturbed success at sigma 0.5; margin: 5 points"
    assert f"{primary}; 2 seeds, and a verdict on 2 arms and points needs 7\n" in capsys.readouterr().out
    written = manifest(load_sweep(spec))
    assert (written["primary"], written["margin"]) == (["perturbed", 0.5], 0.05)
    plain = manifest(load_sweep(write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs")))))
    assert (plain["primary"], plain["margin"]) == (["best", 0.0], 0.02)


def test_that_a_sweep_is_large_is_said_before_its_trials_are_made(tmp_path, capsys, monkeypatch):
    def made(*_: object) -> None:
        raise OSError("made")

    monkeypatch.setattr("launch.cli.MANY_TRIALS", 3)
    monkeypatch.setattr("tune.expand._trial_config", made)
    path = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs")))
    assert main(["plan", path]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"{path}: 4 trials at most; checking them and looking at their folders"
    assert said[1].endswith("made")

"""The specs that the project brings: each is valid as it stands, and its laptop preset trains."""

from pathlib import Path

import pytest
import torch

from launch.cli import main
from results.planning import seeds_needed
from rrm.checkpoint import serialise
from rrm.flops import flops_of_training
from rrm.memory import fits
from rrm.puzzles.build import write_split_csv
from rrm.puzzles.dataset import make_puzzles
from rrm.puzzles.tasks import GenerateSudoku, SudokuTask
from tune.spec import load_sweep

SPECS = sorted((Path(__file__).parents[2] / "launch" / "specs").glob("*.yaml"))
WITH_LAPTOP = [path for path in SPECS if "presets:" in path.read_text()]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Path:
    """A folder with what the full specs name: puzzles and a checkpoint file."""
    folder = tmp_path_factory.mktemp("cluster")
    task = SudokuTask(box=3, generate=GenerateSudoku(puzzles=2, blanks=20))
    for split in ("train", "test"):
        write_split_csv(task, make_puzzles(task, split, 2), folder / "data" / "sudoku-extreme-1k" / f"{split}.csv", "-")
        write_split_csv(task, make_puzzles(task, split, 2), folder / "data" / f"sudoku_extreme_{split}.csv", "-")
    for name in ("hrm/checkpoint", "trm/step_65100"):
        path = folder / "checkpoints" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(serialise({"weight": torch.zeros(1)}))
    return folder


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_spec_is_valid_and_says_what_it_asks(path, cluster, monkeypatch):
    monkeypatch.chdir(cluster)
    sweep = load_sweep(str(path))
    assert sweep.cells
    assert all(fits(cell.config, 24 * 10**9) for cell in sweep.trials.values())
    comment = path.read_text().partition("name:")[0]
    assert "?" in comment
    if path in WITH_LAPTOP:
        assert "ounts as an answer" in comment
        assert sweep.spec.name == path.stem.replace("_", "-")
        # What was searched for is compared in another sweep. Else there must be enough seeds for all that is asked.
        compared = {(cell.arm, cell.point_name) for cell in sweep.cells if cell.arm != sweep.spec.baseline}
        sigmas = max(1, len(sweep.cells[0].config.eval.start_sigmas))
        assert sweep.spec.search or len(sweep.spec.seeds) >= seeds_needed(len(compared) * sigmas)
        laptop = load_sweep(str(path), preset="laptop")
        assert laptop.spec.name == f"{sweep.spec.name}-laptop"
        assert set(laptop.spec.arms) == set(sweep.spec.arms)


@pytest.mark.parametrize("preset", [None, "laptop"])
def test_the_larger_batch_costs_what_the_race_does(preset, cluster, monkeypatch):
    monkeypatch.chdir(cluster)
    sweep = load_sweep(str(next(path for path in SPECS if path.stem == "winner")), preset=preset)
    configs = {cell.arm: cell.config for cell in sweep.cells}
    race, larger = (
        flops_of_training(config, config.train.steps, config.rows_trained)
        for config in (configs["winner4"], configs["winner_compute"])
    )
    assert larger == pytest.approx(race, rel=0.01)


def test_most_specs_have_a_laptop_preset():
    assert len(WITH_LAPTOP) >= 13


@pytest.mark.parametrize("path", WITH_LAPTOP, ids=lambda path: path.stem)
def test_every_laptop_preset_trains_and_has_its_page(path, tmp_path, capsys):
    """Every arm that differs in more than a number, for two steps."""
    overrides = ["base.train.steps=2", "base.train.batch_size=4", "base.eval={every: 2, n: 4}", "seeds=[0]"]
    overrides += ["base.task.generate.puzzles=8", f"storage={tmp_path}"]
    sweep = load_sweep(str(path), preset="laptop")
    if "scheduler" in sweep.raw:
        overrides.append("scheduler=none")  # two steps leave it nothing to do
    if "diagnose" in sweep.raw["base"]:
        overrides.append("base.diagnose={every: 2, n: 2, k: 2}")
    batch_sizes = iter((8, 7, 6, 5))  # two arms must differ
    for arm, changes in sweep.raw["arms"].items():
        for field in ("steps", "batch_size"):
            if field in changes.get("train", {}):
                overrides.append(f"arms.{arm}.train.{field}={2 if field == 'steps' else next(batch_sizes)}")
        if "warmup_steps" in changes.get("perturb", {}):
            overrides.append(f"arms.{arm}.perturb.warmup_steps=1")
    chosen = [word for override in overrides for word in ("--set", override)]
    for arm in sweep.spec.arms:
        point = next(cell.point_name for cell in sweep.cells if cell.arm == arm)
        where = ["--arm", arm, "--seed", "0", *(["--point", point] if point else [])]
        assert main(["train", str(path), "--preset", "laptop", *chosen, *where]) == 0
        assert "done, " in capsys.readouterr().out
    assert main(["results", "report", str(path), "--preset", "laptop", *chosen]) == 0


def test_an_unknown_preset_is_named(capsys):
    path = str(next(path for path in WITH_LAPTOP if path.stem == "locations"))
    assert main(["plan", path, "--preset", "labtop"]) == 2
    assert (
        "--preset labtop: no such preset in the file (did you mean laptop?); its presets: laptop"
        in capsys.readouterr().err
    )
    assert main(["plan", str(SPECS[0].with_name("quickstart.yaml")), "--preset", "laptop"]) == 2
    assert "--preset laptop: no such preset in the file; it has none" in capsys.readouterr().err

"""`init_from` in a sweep file: a trial starts from another's weights; what cannot be is told before anything starts."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny import tiny_sweep, write_spec

from launch.cli import main


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """The folder of a finished trial of the tiny sweep."""
    folder = tmp_path_factory.mktemp("first")
    path = write_spec(folder, tiny_sweep(storage=str(folder / "runs")))
    assert main(["train", path, "--arm", "baseline", "--seed", "0"]) == 0
    (trial,) = (folder / "runs" / "tiny" / "trials").iterdir()
    return trial


def second(folder: Path, **base) -> str:
    return write_spec(folder, tiny_sweep(name="second", storage=str(folder / "runs"), base=base))


def refused(folder: Path, capsys, **base) -> list[str]:
    """What `rrm run` says of a sweep it does not start."""
    path = second(folder, **base)
    assert main(["run", path]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert lines[0] == f"{path}: 1 problem, nothing was started"
    for started in ("trials", "attempts"):
        assert not (folder / "runs" / "second" / started).exists()
    return [line.removeprefix("  ") for line in lines[1:]]


@pytest.mark.parametrize("name", ["best.pt", "final.pt"])
def test_a_trial_starts_from_weights_of_ours(name, first, tmp_path, monkeypatch):
    """Of another seed, with a root relative to the folder the command runs in, and trial.json beside the file."""
    monkeypatch.chdir(first.parent)
    path = second(tmp_path, init_from={"root": first.name, "name": name})
    assert main(["train", path, "--arm", "baseline", "--seed", "1"]) == 0
    (trial,) = (tmp_path / "runs" / "second" / "trials").iterdir()
    config = json.loads((trial / "trial.json").read_text())["config"]
    assert config["init_from"] == {"root": str(first), "name": name, "key": None}
    step = 12 if name == "final.pt" else json.loads((first / "done.json").read_text())["best"]["step"]
    assert clean_losses(trial, 0) == clean_losses(first, step)


def clean_losses(trial: Path, step: int) -> list[float]:
    rows = pq.read_table(trial / "evals.parquet").to_pylist()
    return [row["lm_loss"] for row in rows if row["step"] == step and row["sigma"] == 0]


def test_a_checkpoint_that_is_not_there(first, tmp_path, capsys):
    path = tmp_path / "step_9"
    why = f"{path}: No such file or directory; give the path of a file that exists"
    assert refused(tmp_path, capsys, init_from={"name": str(path)}) == [f"base.init_from.name: {why}"]


def test_a_relative_name_without_its_folder(first, tmp_path, capsys):
    assert refused(tmp_path, capsys, init_from={"name": "best.pt"}) == [
        "base.init_from.root: missing for the name 'best.pt'; give its folder, or an absolute name"
    ]


def test_a_checkpoint_that_does_not_fit(first, tmp_path, capsys):
    start = {"root": str(first), "name": "best.pt"}
    assert refused(tmp_path, capsys, init_from=start, model={"H_cycles": 3, "puzzle_emb_ndim": 4}) == [
        f"init_from: {first}/best.pt: does not fit the model",
        "  shape: puzzle_emb.weights has (1, 8), the model needs (1, 4)",
        "  model.H_cycles: 3, but 2 in trial.json; set model.H_cycles to 2",
        "  model.puzzle_emb_ndim: 4, but 8 in trial.json; set model.puzzle_emb_ndim to 8",
        "  (to change the model on purpose, put the checkpoint in a folder without trial.json)",
    ]


def test_a_truncated_checkpoint_and_one_that_is_a_whole_state(first, tmp_path, capsys):
    cut = tmp_path / "cut.pt"
    cut.write_bytes((first / "best.pt").read_bytes()[:-100])
    assert refused(tmp_path, capsys, init_from={"name": str(cut)}) == [
        f"init_from: {cut}: not a whole state file (File is not a zip file); give a whole file that torch.save wrote "
        "(torch 1.6 or newer), or safetensors"
    ]
    for name in ("best_state.pt", "latest_state.pt"):
        assert refused(tmp_path, capsys, init_from={"root": str(first), "name": name}) == [
            f"init_from: {first}/{name}: a whole training state; give the weights beside it, best.pt or final.pt"
        ]


def test_each_model_of_a_sweep_is_checked_once(first, tmp_path, capsys):
    """Two arms and two seeds at each point of the grid, the first of which fits."""
    start = {"init_from": {"root": str(first), "name": "best.pt"}}
    grid = {"model.H_cycles": [2, 3, 4]}
    path = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), base=start, grid=grid))
    assert main(["run", path]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{path}: 2 problems, nothing was started"
    assert [line.strip() for line in lines if "H_cycles" in line] == [
        f"model.H_cycles: {cycles}, but 2 in trial.json; set model.H_cycles to 2" for cycles in (3, 4)
    ]

"""W&B and TensorBoard files: one run a trial, each evaluation once, however often the trial was killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from logs import tensorboard_scalars, wandb_history
from tiny import tiny_sweep, write_spec

from launch.cli import main
from results.schema import EVALS_SCHEMA, read_table
from rrm.presets import merge
from tune.loggers import scalars

STEPS = {"train": {"steps": 300}, "eval": {"every": 20}}
WATCHED = {"wandb": {"project": "tests", "mode": "offline"}, "tensorboard": True}


def evaluations(trial: Path) -> list[dict]:
    return read_table(trial / "evals.parquet", EVALS_SCHEMA).to_pylist()


def last_step(folder: Path) -> int:
    return max((row["step"] for path in folder.rglob("evals.parquet") for row in evaluations(path.parent)), default=0)


def check_logs(trial: Path, sweep: str, steps: list[int]) -> None:
    """The trial's files hold one run, and the evaluations of its table once each."""
    (run_file,) = (trial / "wandb").glob("offline-run-*/*.wandb")
    run, history = wandb_history(run_file)
    assert (run.run_id, run.run_group, run.project) == (trial.name, sweep, "tests")
    assert [row["_step"] for row in history] == steps
    (event_file,) = (trial / "tensorboard").iterdir()
    board = tensorboard_scalars(event_file)
    assert len({(tag, step) for tag, step, _ in board}) == len(board)
    rows = evaluations(trial)
    for step, row in zip(steps, history, strict=True):
        values = scalars([row for row in rows if row["step"] == step])
        assert row == row | values
        assert {tag: value for tag, at, value in board if at == step} == pytest.approx(values, rel=1e-6)


def test_two_kills_leave_one_run_with_every_step_once(tmp_path):
    spec = write_spec(tmp_path, merge(tiny_sweep(storage=str(tmp_path / "runs"), base=STEPS), WATCHED))
    script = "import sys; from launch.cli import main; sys.exit(main())"
    train = ["train", spec, "--arm", "multi2", "--seed", "0"]
    for evaluated in (60, 160):
        process = subprocess.Popen([sys.executable, "-c", script, *train], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        while not any(
            row["step"] >= evaluated for path in tmp_path.rglob("evals.parquet") for row in evaluations(path.parent)
        ):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert main(train) == 0
    (trial,) = (tmp_path / "runs" / "tiny" / "trials").iterdir()
    check_logs(trial, "tiny", list(range(0, 301, 20)))


def test_names_say_split_noise_and_depth():
    row = {"step": 4, "train_loss": None, "act_steps": 8, "depth": 2, "sigma": 0.0, "lm_loss": 1.5, "correct": b""}
    rows = [row | {"split": "test"}, row | {"split": "test", "sigma": 0.3, "depth": 16}]
    assert scalars(rows) == {"act_steps": 8, "test/lm_loss": 1.5, "test/sigma_0.3/depth_16/lm_loss": 1.5}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"tensorboard": True}, "tensorboard: true needs tensorboardX; pip install 'rrm[tensorboard]'"),
        ({"wandb": {"project": "p"}}, "wandb.mode: online, but there is no API key; set WANDB_API_KEY, or give mode:"),
        ({"wandb": {"project": "p", "mode": "of"}}, "wandb.mode: 'of' is not one of 'online' or 'offline'"),
    ],
)
def test_logs_that_cannot_be_written_are_named_before_the_start(asked, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # as where it is not installed
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), **asked))
    assert main(["run", spec]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("trials/*"))

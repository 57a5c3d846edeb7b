"""W&B and TensorBoard files: one run a trial, each evaluation once, however often the trial was killed."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import wandb
from logs import tensorboard_scalars, wandb_history, wandb_records
from pydantic import ValidationError
from tiny import tiny_config, tiny_sweep, write_spec

from launch.cli import main
from results.schema import EVALS_SCHEMA
from results.trial_files import read_table
from rrm.presets import merge
from tune.job import TrialJob
from tune.loggers import TrialLog, WandbConfig, WandbLog, await_wandb, scalars
from tune.spec import load_sweep
from tune.trial import TrialRun

STEPS = {"train": {"steps": 300}, "eval": {"every": 20}}
WATCHED = {"wandb": {"project": "tests", "mode": "offline"}, "tensorboard": True}


def evaluations(trial: Path) -> list[dict]:
    return read_table(trial / "evals.parquet", EVALS_SCHEMA).to_pylist()


def last_step(folder: Path) -> int:
    return max((row["step"] for path in folder.rglob("evals.parquet") for row in evaluations(path.parent)), default=0)


def wandb_run(trial: Path) -> str:
    return json.loads((trial / "trial.json").read_text())["wandb_run"]


def check_logs(trial: Path, sweep: str, steps: list[int]) -> None:
    """The trial's files hold one run, and the evaluations of its table once each."""
    (run_file,) = (trial / "wandb").glob("offline-run-*/*.wandb")
    run, history = wandb_history(run_file)
    assert (run.run_id, run.run_group, run.project) == (wandb_run(trial), sweep, "tests")
    assert [row["_step"] for row in history] == steps
    (event_file,) = (trial / "tensorboard").iterdir()
    board = tensorboard_scalars(event_file)
    assert len({(tag, step) for tag, step, _ in board}) == len(board)
    rows = evaluations(trial)
    for step, row in zip(steps, history, strict=True):
        values = scalars([row for row in rows if row["step"] == step])
        assert row == row | values
        assert {tag: value for tag, at, value in board if at == step} == pytest.approx(values, rel=1e-6)


def test_a_worker_that_ends_waits_for_what_wandb_writes(tmp_path):
    """Ray kills what a worker has started: W&B's own process, which writes the end after the run has been finished."""
    before = set(psutil.Process().children())
    offline = WandbConfig(project="tests", mode="offline")
    log = WandbLog(tmp_path, offline, run_id="one", sweep="tiny", arm="clean", name="clean seed=0", config={})
    log.close(finished=True)
    started = set(psutil.Process().children()) - before
    await_wandb()
    assert started
    assert not any(process.is_running() for process in started)
    (run_file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert any(record.HasField("exit") for record in wandb_records(run_file))


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


def test_a_trial_of_two_sweeps_is_two_runs(tmp_path, monkeypatch):
    """The environment says that W&B is offline; the file says whose runs they are, and how they are tagged."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_RUN_ID", "of-a-wrapper")
    asked = {"project": "tests", "entity": "team", "tags": ["one", "two words"]}
    runs = []
    for name in ("first", "second"):
        sweep = tiny_sweep(storage=str(tmp_path / "runs"), name=name, wandb=asked, base={"train": {"steps": 4}})
        assert main(["train", write_spec(tmp_path, sweep), "--arm", "baseline", "--seed", "0"]) == 0
        wandb.teardown()  # its own process writes the file
        (trial,) = (tmp_path / "runs" / name / "trials").iterdir()
        (run_file,) = (trial / "wandb").glob("offline-run-*/*.wandb")
        run, _ = wandb_history(run_file)
        assert (run.run_id, run.run_group, run.entity, list(run.tags)) == (
            wandb_run(trial),
            name,
            "team",
            asked["tags"],
        )
        runs.append((trial.name, run.run_id))
    assert runs[0][0] == runs[1][0]
    assert runs[0][1] != runs[1][1]


def test_a_runs_id_that_leads_out_of_its_folder_is_refused(tmp_path, capsys):
    """The run's folder is removed before an offline run is written anew."""
    asked = {"wandb": {"project": "tests", "mode": "offline"}}
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), **asked))
    cell = next(cell for cell in load_sweep(spec).cells if (cell.arm, cell.seed) == ("baseline", 0))
    trial = tmp_path / "runs" / "tiny" / "trials" / cell.trial_id
    (trial / "wandb" / "offline-run-1-a").mkdir(parents=True)
    trial.with_name("victim").mkdir()
    (trial / "trial.json").write_text(json.dumps({"config": {}, "wandb_run": "a/../../../victim"}))
    assert main(["train", spec, "--arm", "baseline", "--seed", "0"]) != 0
    said = f"{trial}/trial.json: its field wandb_run is 'a/../../../victim'; move it away"
    assert said in "".join(capsys.readouterr())
    assert trial.with_name("victim").is_dir()


def test_what_wandb_keeps_of_a_trial_in_a_bucket_goes_with_the_attempt(bucket, tmp_path, monkeypatch):
    folders = []

    class Log(TrialLog):
        """W&B's, without a server."""

        def __init__(self, folder: Path, to: WandbConfig, **run: Any):
            (folder / "wandb").mkdir()
            folders.append(folder)

        def _log(self, step: int, values: dict[str, float]) -> None:
            assert folders[-1].is_dir()

        def close(self, finished: bool) -> None:
            assert folders[-1].is_dir()

    monkeypatch.setattr("tune.trial.WandbLog", Log)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = tiny_config()
    job = TrialJob("a", 0, config.trial_id(), config.model_dump(mode="json"), f"{bucket}/trials/t", 1, 60)
    run = TrialRun(replace(job, wandb={"project": "tests", "mode": "online"}), torch.device("cpu"))
    run.advance(seconds=0.0)
    run.close()
    (folder,) = folders
    assert folder.parent == tmp_path
    assert not folder.exists()


def test_wandb_can_be_left_out_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    sweep = tiny_sweep(storage=str(tmp_path / "runs"), wandb={"project": "tests"}, base={"train": {"steps": 4}})
    assert main(["train", write_spec(tmp_path, sweep), "--arm", "baseline", "--seed", "0"]) == 0
    assert not list(tmp_path.rglob("wandb"))


@pytest.mark.parametrize(
    ("given", "environment", "mode"),
    [
        ({}, None, "online"),
        ({}, "dryrun", "offline"),
        ({}, "disabled", "disabled"),
        ({"mode": "online"}, "offline", "online"),
    ],
)
def test_the_mode_is_the_files_then_the_environments(given, environment, mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", environment) if environment else monkeypatch.delenv("WANDB_MODE", raising=False)
    assert WandbConfig.model_validate({"project": "p"} | given).mode == mode


@pytest.mark.parametrize(
    "name", ["p", "a b", "größe", "a/b", "a\\b", "#1", "100%", "why?", "a:b", "x" * 128, "x" * 129, " ", ""]
)
def test_a_projects_name_is_checked_as_wandb_does(name):
    from wandb import Settings
    from wandb.errors import UsageError

    def takes(make: Callable[[], Any]) -> bool:
        try:
            make()
        except (UsageError, ValidationError):
            return False
        return True

    ours = takes(lambda: WandbConfig.model_validate({"project": name, "mode": "offline"}))
    assert ours == (takes(lambda: Settings(project=name)) and name != "")  # W&B has a name of its own instead of ""


def test_names_say_split_noise_and_depth():
    row = {"step": 4, "train_loss": None, "act_steps": 8, "depth": 2, "sigma": 0.0, "lm_loss": 1.5, "correct": b""}
    rows = [row | {"split": "test"}, row | {"split": "test", "sigma": 0.3, "depth": 16}]
    assert scalars(rows) == {"act_steps": 8, "test/lm_loss": 1.5, "test/sigma_0.3/depth_16/lm_loss": 1.5}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"tensorboard": True}, "tensorboard: true needs tensorboardX; pip install 'rrm[tensorboard]'"),
        ({"wandb": {"project": "p"}}, "wandb.mode: online, but there is no API key; set WANDB_API_KEY, or give mode:"),
        ({"wandb": {"project": "p", "mode": "of"}}, "wandb.mode: 'of' is not one of 'online', 'offline' or 'disabled'"),
        ({"wandb": {"project": "a/b"}}, "wandb.project: 'a/b' holds /, and W&B's names none of / \\ # ? % :"),
        ({"wandb": {"project": "p", "entity": "a/b"}}, "wandb.entity: 'a/b' holds /, and W&B's names none of"),
        ({"wandb": {"project": "p", "tags": ["x" * 65]}}, "wandb.tags[0]: "),
        ({"wandb": {"project": "p", "tags": "one"}}, "wandb.tags: 'one' is not a list"),
        (
            {"wandb": {"project": "p"}, "WANDB_MODE": "never"},
            "wandb.mode: WANDB_MODE is 'never', which is not one of o",
        ),
    ],
)
def test_logs_that_cannot_be_written_are_named_before_the_start(asked, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # as where it is not installed
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for name in [name for name in asked if name.isupper()]:
        monkeypatch.setenv(name, asked[name])
    asked = {name: value for name, value in asked.items() if not name.isupper()}
    wandb.teardown()  # it reads the environment once
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), **asked))
    assert main(["run", spec]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("trials/*"))

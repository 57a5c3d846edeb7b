"""Credentials: a file that only its owner reads, and nothing of them in anything that a run leaves."""

import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import PLANTED, leaks, secrets_file, stored, written
from tiny import tiny_config, tiny_sweep, write_spec
from wandb_server import wandb_server

from launch.cli import main
from launch.schema import sweep_schema
from results.storage import location
from rrm.config import TrialConfig
from tune.connection import session_folder
from tune.fields import field_names
from tune.job import TrialJob
from tune.secrets import SecretsError, is_secret, read_secrets, secrets_in
from tune.spec import SpecError, SweepSpec, load_sweep
from tune.trial import TrialRun


def with_puzzles_in(bucket: str, tmp_path: Path) -> dict[str, Any]:
    """What a sweep's trials have in common."""
    size = ("--sudoku", "2", "--train", "40", "--test", "40", "--blanks", "6")
    assert main(["data", "generate", str(tmp_path / "csv"), *size]) == 0
    for path in (tmp_path / "csv").iterdir():
        (location(bucket) / "csv" / path.name).put(path.read_bytes())
    return {"task": {"box": 2, "generate": None, "data": f"{bucket}/csv"}, "train": {"steps": 4}}


def test_a_run_leaves_no_secret_behind(bucket, tmp_path):
    """From the environment: storage and puzzles in a bucket."""
    base = with_puzzles_in(bucket, tmp_path)
    raw = tiny_sweep(storage=f"{bucket}/runs", base=base, seeds=[0])
    del raw["arms"]["multi2"]
    spec = write_spec(tmp_path, raw)
    plain = {name: value for name, value in os.environ.items() if not is_secret(name) and name != "RRM_CACHE"}
    home = tmp_path / "home"
    home.mkdir()
    with tempfile.TemporaryDirectory(prefix="rrm", dir="/tmp") as folder:  # short: Ray's sockets are in it
        command = [sys.executable, "-m", "launch.cli", "run", spec]
        env = plain | PLANTED | {"HOME": str(home), "RAY_TMPDIR": folder, "MARK": "a-mark-that-workers-see"}
        run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "tiny: 1 trials, 1 done" in run.stdout
        kept = [*written(Path(folder)), *written(tmp_path), *stored(bucket), (run.stdout + run.stderr).encode()]
    assert leaks(kept, "runtime_env") > 0  # Ray's log is among them
    assert {name: leaks(kept, value) for name, value in PLANTED.items()} == dict.fromkeys(PLANTED, 0)


def test_a_job_leaves_no_secret_behind(bucket, local_ray, tmp_path, capfd, monkeypatch):
    """From a file: in Ray's folder, what its job server tells, the bucket, and what is printed; `--env` has none."""
    file = secrets_file(tmp_path)
    base, place = with_puzzles_in(bucket, tmp_path), {"storage": f"{bucket}/runs", "secrets": str(file)}
    sweep = tiny_sweep(name="secretive", base=base, seeds=[0], **place)
    submit = ["submit", write_spec(tmp_path, sweep), "--address", local_ray.dashboard, "--wait"]
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", local_ray.dashboard)  # to which the command sets it
    for name in ("AWS_SECRET_ACCESS_KEY", "DB_URL"):
        assert main([*submit, "--env", name]) == 2
    assert main(submit) == 0
    said = capfd.readouterr()
    printed = [said.out.encode(), said.err.encode()]
    assert b"secretive: 2 trials, 2 done" in printed[0]
    told = urllib.request.Request(
        f"{local_ray.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    )
    printed.append(urllib.request.urlopen(told, timeout=10).read())
    assert b"secretive-1" in printed[-1]
    kept = [*written(session_folder()), *written(tmp_path, but=file), *stored(bucket), *printed]
    assert leaks(kept, "secretive-1") > 1  # Ray's logs are among them
    assert {name: leaks(kept, value) for name, value in PLANTED.items()} == dict.fromkeys(PLANTED, 0)


def test_wandb_online_is_told_the_key_by_its_header_alone(tmp_path):
    """A server on loopback takes the runs of whoever has the key, which stands in none of their files."""
    spec = tiny_sweep(storage=str(tmp_path / "runs"), base={"train": {"steps": 8}}, seeds=[0])
    spec["wandb"] = {"project": "tests", "mode": "online"}
    train = [sys.executable, "-m", "launch.start", "train", write_spec(tmp_path, spec), "--arm=multi2", "--seed=0"]
    plain = {name: value for name, value in os.environ.items() if not is_secret(name)} | {"HOME": str(tmp_path)}
    with wandb_server(PLANTED["WANDB_API_KEY"]) as server:
        env = plain | PLANTED | {"WANDB_BASE_URL": server.url}
        run = subprocess.run(train, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert all(path.startswith("/sdk/otel/") for path, _ in server.refused)  # W&B's own telemetry, which is without it
    assert [row["_step"] for row in server.history()] == [0, 4, 8]
    kept = [*written(tmp_path), *(path.encode() + b"\0" + body for path, body in server.taken + server.refused)]
    kept.append((run.stdout + run.stderr).encode())
    assert leaks(kept, "wandb-metadata.json") > 0
    assert {name: leaks(kept, value) for name, value in PLANTED.items()} == dict.fromkeys(PLANTED, 0)


def test_a_worker_sets_what_stands_in_the_file_and_needs_it(tmp_path, monkeypatch):
    for name in PLANTED:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "of an earlier sweep")
    config, file = tiny_config(train={"steps": 4}), secrets_file(tmp_path)
    job = TrialJob("a", 0, config.trial_id(), config.model_dump(mode="json"), str(tmp_path / "t"), 1, 60)
    job = TrialJob(**job.as_dict() | {"secrets": str(file)})
    TrialRun(job, torch.device("cpu")).close()
    assert {name: os.environ[name] for name in PLANTED} == PLANTED
    file.unlink()
    with pytest.raises(SecretsError, match=r"secrets: .* on node .*: No such file or directory; every node needs it"):
        TrialRun(job, torch.device("cpu"))


@pytest.mark.parametrize("folder", ["~", "$HOME", "${HOME}"])
def test_the_file_is_named_as_every_path_is(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = secrets_file(tmp_path)
    named = f"{folder}/{file.name}"
    sweep = load_sweep(write_spec(tmp_path, tiny_sweep(secrets=named)))
    assert sweep.spec.secrets == named  # each node has a home of its own
    assert read_secrets(named) == PLANTED
    for given, why in (
        ("$NOWHERE/x", "'$NOWHERE/x': NOWHERE is not set here; set it, or write the path out"),
        ("x", "'x' is no absolute path; give the one that the file has on every node"),
        ("s3://b/x", "'s3://b/x' is no absolute path; give the one that the file has on every node"),
    ):
        with pytest.raises(SpecError) as error:
            load_sweep(write_spec(tmp_path, tiny_sweep(secrets=given)))
        assert error.value.problems == [f"secrets: {why}"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_can_read_is_refused(mode, tmp_path):
    file = secrets_file(tmp_path)
    file.chmod(mode)
    with pytest.raises(SpecError, match=f"mode {mode:04o} lets others at it; chmod 600 {file}"):
        load_sweep(write_spec(tmp_path, tiny_sweep(secrets=str(file))))


@pytest.mark.parametrize("line", ["hunter2hunter2", "'open", "NAME", "NAME=", "= hunter2hunter2"])
def test_a_line_that_sets_nothing_is_named_and_not_shown(line, tmp_path):
    file = secrets_file(tmp_path)
    file.write_text(f"GOOD=1\n{line}\n")
    with pytest.raises(SecretsError, match="line 2 is no NAME=VALUE; mend it") as error:
        read_secrets(str(file))
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"wandb": {"project": "p", "api_key": "hunter2"}}, "wandb.api_key"),
        ({"presets": {"far": {"wandb": {"WANDB_API_KEY": "hunter2"}}}}, "presets.far.wandb.WANDB_API_KEY"),
        ({"storage": "s3://me:hunter2@bucket/runs"}, "storage"),
        ({"base": {"task": {"generate": None, "data": "https://me:hunter2@host/x"}}}, "base.task.data"),
        ({"arms": {"a": {"init_from": {"name": "hf_" + "hunter2" * 5, "root": "x"}}}}, "arms.a.init_from.name"),
    ],
)
def test_a_sweep_file_holds_no_secret(changes, field, tmp_path, capsys):
    """Copies of it are kept and sent; neither they nor the message may hold one."""
    assert main(["plan", write_spec(tmp_path, tiny_sweep(**changes))]) == 2
    error = capsys.readouterr().err
    assert f"{field}: looks like a credential, and copies of a sweep file are kept; put it into a file of mode" in error
    assert "hunter2" not in error


@pytest.mark.parametrize(
    "override",
    ["base.model.token_loss=softmax", "arms.multi2.model.token_loss=softmax", "grid={model.token_loss: [softmax]}"],
)
def test_a_field_that_is_called_like_a_credential_is_none(override, tmp_path, capsys):
    assert main(["plan", write_spec(tmp_path, tiny_sweep()), "--set", override]) == 0, capsys.readouterr().err


def test_no_field_of_a_sweep_is_a_credential_by_its_name():
    def names(schema: Any) -> set[str]:
        parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
        return set(schema.get("properties", ()) if isinstance(schema, dict) else ()).union(*map(names, parts))

    found = names(sweep_schema()) - {"preset"}
    assert found == field_names(SweepSpec) | field_names(TrialConfig)
    assert "token_loss" in found
    assert secrets_in(dict.fromkeys(found, "/data/hf_sudoku_extreme_checkpoints"), found) == []


def test_what_is_a_credential(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", PLANTED["WANDB_API_KEY"])
    for name in (
        *PLANTED,
        "GITHUB_PAT",
        "apikey",
        "DB_PASSWORD",
        "SECRET",
        "GITHUBTOKEN",
        "SSH_PRIVATE_KEY",
        "BASIC_AUTH",
    ):
        assert is_secret(name, PLANTED.get(name, "")), name
    for value in (
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "AKIAIOSFODNN7EXAMPLE",
        "http://me:pass@host",
        PLANTED["WANDB_API_KEY"],
    ):
        assert is_secret("NAME", value), value
    for name in (
        *("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "RAY_AUTH_MODE", "PWD"),
        *("RAY_AUTH_TOKEN_PATH", "TOKENIZERS_PARALLELISM", "KEYBOARD", "OMP_NUM_THREADS", "PATH", "COMPASS", "AUTHOR"),
    ):
        assert not is_secret(name, "http://127.0.0.1:9000/a@b"), name

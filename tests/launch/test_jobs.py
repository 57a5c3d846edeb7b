"""A sweep as a Ray job on a Ray with token authentication: submit, watch, stop, submit again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from logs import tensorboard_scalars, wandb_history
from tiny import tiny_sweep, write_spec

from launch import jobs as jobs_module
from launch.cli import main
from results.schema import EVALS_SCHEMA
from results.trial_files import read_table
from rrm import checkpoint

EVERY = 200  # many slices, after which a trial may be stopped
GREETING = "a-greeting-that-anybody-may-read"


def trials(folder: Path) -> list[Path]:
    return sorted((folder / "runs" / "tiny" / "trials").glob("*"))


def wait_for(condition, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.3)


def saved_step(trial: Path) -> int:
    return checkpoint.load(trial / "latest_state.pt")["step"]


def attempts(trial: Path) -> list[dict]:
    return json.loads((trial / "trial.json").read_text())["attempts"]


def test_submit_status_logs_stop_and_submit_again(local_ray, tmp_path, capsys, monkeypatch):
    on = ("--address", local_ray.dashboard)

    def printed(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main([*arguments]) == code, capsys.readouterr()
        return capsys.readouterr().out

    changes = {"base": {"train": {"steps": 1_000_000}, "eval": {"every": EVERY}}, "seeds": [0]}
    logs = {"wandb": {"project": "tests", "mode": "offline"}, "tensorboard": True}
    raw = tiny_sweep(storage=str(tmp_path / "runs"), **changes, **logs)
    del raw["arms"]["multi2"]
    spec = write_spec(tmp_path, raw)
    # RAY_ADDRESS wins over Ray's own argument; --address must win over both.
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", local_ray.dashboard)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("GREETING", GREETING)
    submitted = printed("submit", spec, *on, "--env", "GREETING")
    assert re.fullmatch(rf"tiny-1: submitted with \d+ KiB; {local_ray.dashboard}/#/jobs/tiny-1\n", submitted)
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.delenv("GREETING")
    assert main(["submit", spec, *on]) == 2
    assert capsys.readouterr().err == "tiny: job tiny-1 is running it; `rrm logs tiny`, or `rrm stop tiny`\n"
    assert main(["submit", spec, *on, "--set", f"storage={tmp_path}/other"]) == 2
    assert capsys.readouterr().err == (
        f"tiny: job tiny-1 runs another sweep of this name, in {tmp_path}/runs/tiny; give this one a name of its own "
        "(--set name=...)\n"
    )
    listed, a_moment_before = jobs_module.jobs_of, [[]]
    monkeypatch.setattr(jobs_module, "jobs_of", lambda *of: a_moment_before.pop() if a_moment_before else listed(*of))
    assert main(["submit", spec, *on]) == 2
    at_once = "tiny: job tiny-1, submitted at the same moment, is running it; `rrm logs tiny`, or `rrm stop tiny`\n"
    assert capsys.readouterr().err == at_once

    wait_for(lambda: len(list(tmp_path.rglob("evals.parquet"))) == 1)
    wait_for(lambda: "rrm_exact_accuracy{" in (seen := scrape(local_ray)) and "rrm_steps_per_second{" in seen)
    series = next(line for line in scrape(local_ray).splitlines() if line.startswith("ray_rrm_step{"))
    assert 'sweep="tiny"' in series
    assert re.search(r'trial="[0-9a-f]{12}"', series)
    (trial,) = trials(tmp_path)
    trainer = attempts(trial)[0]["pid"]
    os.kill(trainer, signal.SIGSTOP)  # it has trained enough
    try:
        # By RAY_API_SERVER_ADDRESS, which is reached without the proxy that the environment names.
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        status = printed("status", "tiny")
        monkeypatch.delenv("http_proxy")
        assert re.search(r"tiny-1 +running", status)
        assert f"{tmp_path}/runs/tiny\n" in status
        assert "tiny: 1 trials, " in status
        before = saved_step(trial)
    finally:
        os.kill(trainer, signal.SIGCONT)
    assert re.fullmatch(r"tiny-1: stopped in \d+ s; submit it again to go on\n", printed("stop", "tiny", *on))
    stopped_at = saved_step(trial)
    assert stopped_at > before
    log = printed("logs", "tiny", *on)
    assert "Stopped before the end; the same command goes on from here." in log
    assert "stopped" in printed("status", *on)

    enough = (stopped_at // EVERY + 1) * EVERY
    again = printed("submit", spec, *on, "--wait", "--set", f"base.train.steps={enough}")
    assert again.startswith("tiny-2: submitted")
    assert "tiny: 1 trials, 1 done" in again
    assert len(attempts(trial)) == 2
    assert attempts(trial)[0]["commit"] is not None
    evaluated = dict.fromkeys(read_table(trial / "evals.parquet", EVALS_SCHEMA).column("step").to_pylist())
    (run_file,) = (trial / "wandb").glob("offline-run-*/*.wandb")
    run, history = wandb_history(run_file)
    assert run.run_id == json.loads((trial / "trial.json").read_text())["wandb_run"]
    assert [row["_step"] for row in history] == list(evaluated) == list(range(0, enough + 1, EVERY))
    (event_file,) = (trial / "tensorboard").iterdir()
    assert [s for tag, s, _ in tensorboard_scalars(event_file) if tag == "act_steps"] == list(evaluated)
    first = jobs(local_ray)["tiny-1"]
    assert first["metadata"].keys() >= {"sweep", "spec_digest", "folder"}
    assert GREETING not in json.dumps(first["metadata"]) + submitted + log + again
    assert first["runtime_env"]["env_vars"]["GREETING"] == GREETING

    too_large = ("--set", "resources={cpu: 64}", "--set", "seeds=[1]")
    assert "resources: cpu 64, gpu 0 fit no node" in printed("submit", spec, *on, "--wait", *too_large, code=2)


def scrape(local_ray) -> str:
    return urllib.request.urlopen(local_ray.metrics, timeout=10).read().decode()


def jobs(local_ray) -> dict[str, dict]:
    headers = {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    request = urllib.request.Request(f"{local_ray.dashboard}/api/jobs/", headers=headers)
    return {job["submission_id"]: job for job in json.load(urllib.request.urlopen(request, timeout=10))}


def test_what_a_cluster_refuses_is_one_line(local_ray, capsys, monkeypatch):
    on = ("--address", local_ray.dashboard)
    for arguments, env, message in (
        (("logs", "nowhere", *on), {}, f"nowhere: no such sweep on {local_ray.dashboard}; sweeps there: "),
        (
            ("logs", "nowhere"),
            {"RAY_API_SERVER_ADDRESS": local_ray.dashboard},
            "machine, give --storage, or --address local",
        ),
        (
            ("stop", "tiny", "--address", "http://127.0.0.1:1"),
            {},
            "--address http://127.0.0.1:1: cannot be reached (Con",
        ),
        (
            ("status",),
            {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"},
            "RAY_API_SERVER_ADDRESS http://127.0.0.1:1: can",
        ),
        (("status",), {"RAY_ADDRESS": "127.0.0.1:1"}, "RAY_ADDRESS 127.0.0.1:1: cannot be reached (Connection refused"),
        (
            ("logs", "x", *on, "--storage", "runs"),
            {},
            "/runs: a sweep on this machine, and --address another's; give one of the two",
        ),
    ):
        for name in jobs_module.ADDRESS:
            monkeypatch.setenv(name, env.get(name, ""))
        assert main([*arguments]) == 2
        printed = capsys.readouterr()
        assert message in printed.err
        assert printed.err.count("\n") == 1, printed.err
        assert printed.out == ""


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RAY_AUTH_TOKEN": "b" * 32}, "Forbidden: Invalid authentication token; set RAY_AUTH_MODE"),
        ({"RAY_AUTH_MODE": "disabled"}, "Missing authentication token; set RAY_AUTH_MODE=token, and"),
    ],
)
def test_who_has_not_the_token_is_told_in_one_line(environment, message, local_ray):
    """A command in a process of its own: Ray reads its token once a process."""
    command = [sys.executable, "-m", "launch.cli", "status", "--address", local_ray.dashboard]
    refused = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1, refused.stderr
    assert refused.stdout == ""


def test_a_job_server_that_fails_a_submission_is_one_line(tmp_path, capsys, monkeypatch):
    def list_jobs() -> None:
        raise RuntimeError("Request failed with status code 500: Traceback (most recent call last):\n  ...")

    monkeypatch.setattr(jobs_module, "_connect", lambda cluster: SimpleNamespace(list_jobs=list_jobs))
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path)))
    assert main(["submit", spec, "--address", "http://head:8265"]) == 2
    said = "http://head:8265: Request failed with status code 500: Traceback (most recent call last):\n"
    assert capsys.readouterr().err == said


def test_a_head_whose_agent_never_answers_is_told_apart_from_one_that_has_just_started(monkeypatch):
    """The head of a second Ray on a machine, whose agent does not get the port that all agents have by default."""
    asked = []

    def submit_job(**job: str) -> None:
        asked.append(job)
        if len(asked) < answers_at:
            raise RuntimeError("Request failed with status code 500: No available agent to submit job, please try.\n'")

    monkeypatch.setattr(jobs_module.time, "sleep", lambda seconds: None)
    answers_at = 3
    jobs_module._once_there_is_an_agent(submit_job, submission_id="tiny-1")
    assert asked == [{"submission_id": "tiny-1"}] * 3
    monkeypatch.setattr(jobs_module, "AGENT_SECONDS", 0)
    answers_at = 9
    with pytest.raises(RuntimeError, match="No available agent") as error:
        jobs_module._once_there_is_an_agent(submit_job)
    assert "start the head with --dashboard-agent-listen-port of its own" in jobs_module._refusal(error.value)

"""Workers that die: of what Ray calls by other names than a death, too; and how often a trial may."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.experiment import Trial
from tiny import tiny_sweep, write_spec

from tune.deaths import OUT_OF_MEMORY, Attempts, as_actor_error
from tune.leftovers import KEPT, MARK

MONITOR = {"RAY_memory_usage_threshold": "0", "RAY_memory_monitor_refresh_ms": "3000"}  # all are over it, all the time


def test_a_worker_that_rays_memory_monitor_kills_is_started_again_and_the_run_goes_on(tmp_path):
    """On a Ray of its own, whose monitor kills every worker that it finds, at its start or while it trains."""
    long = {"train": {"steps": 100_000}, "eval": {"every": 100_000}}  # and saves nothing in three seconds
    raw = tiny_sweep(storage=str(tmp_path / "runs"), base=long, seeds=[0], max_failures=1)
    del raw["arms"]["multi2"]
    spec = write_spec(tmp_path, raw)
    command = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())", "run", spec]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | MONITOR
    with open(tmp_path / "log", "w") as log, tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        for second in range(KEPT + 2):  # of earlier runs
            (Path(temporary) / "ray" / f"session_2026-01-01_00-00-0{second}_1_1").mkdir(parents=True)
            (Path(temporary) / "ray" / f"session_2026-01-01_00-00-0{second}_1_1" / MARK).touch()
        environment["RAY_TMPDIR"] = temporary
        how = {"stdout": log, "stderr": log, "env": environment, "timeout": 240}
        code = subprocess.run(command, check=False, **how).returncode
        assert len(list(Path(temporary).glob(f"ray/session_2*/{MARK}"))) == KEPT + 1
    printed = (tmp_path / "log").read_text()
    assert code == 3, printed
    assert f"  baseline seed=0: {OUT_OF_MEMORY}; starting it again from its folder\n" in printed
    assert f"  baseline seed=0: failed: {OUT_OF_MEMORY}\n" in printed
    (failed,) = tmp_path.rglob("failed.json")
    reason = f"its worker failed 2 times without getting further: {OUT_OF_MEMORY}"
    assert json.loads(failed.read_text())["reason"] == reason
    assert (tmp_path / "runs" / "tiny" / "report.html").exists()


def test_only_what_ray_itself_says_is_a_death():
    for error, said in (
        (OutOfMemoryError("1 worker(s) were killed\nTop 10 memory users: ..."), OUT_OF_MEMORY),
        (NodeDiedError("the node has died: \nits raylet ..."), "its worker is lost: the node has died: "),
    ):
        death = as_actor_error(error)
        assert isinstance(death, RayActorError)
        assert str(death) == said
    raised = RayTaskError("step", "Traceback ...", ValueError("of the trial's own"))
    for error in (raised, RayActorError(), KeyError("of Tune's own")):
        assert as_actor_error(error) is error


def test_a_trial_may_die_as_often_as_it_gets_further():
    trial, attempts = Trial("RecursiveTrial", stub=True, max_failures=1), Attempts()
    trial.config = {"trial_id": "t"}

    def report(step: int, saved_step: int) -> None:
        result: dict[str, Any] = {"train_step": step, "saved_step": saved_step}
        attempts.on_trial_result(0, [], trial, result)

    def survives() -> bool:
        trial._handle_ray_actor_error(RayActorError())
        return trial.should_recover()

    report(0, -1)
    for step in range(0, 60, 10):  # six deaths, a save between any two
        report(step + 5, step)
        assert survives()
    for step in (51, 55, 56):  # taken up from the save at 50: trained again, and further, but never saved
        report(step, 50)
    assert not survives()

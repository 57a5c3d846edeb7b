"""Early stopping: Tune's rules on recorded evaluations, and decisions that last."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny import MULTI, tiny_sweep, write_spec

from launch.cli import main
from results.gather import gather
from results.schema import EVALS_SCHEMA
from rrm import checkpoint
from tune.experiment import run_sweep
from tune.held_folder import HeldFolder
from tune.plan import PlannedTrial, exit_code, plan
from tune.spec import Scheduler, Sweep, load_sweep
from tune.stopping import RecordedStopping

ASHA = {"name": "asha", "grace_steps": 4, "reduction_factor": 2}


def sweep_of(folder: Path, seeds: int, **changes: Any) -> Sweep:
    return load_sweep(write_spec(folder, tiny_sweep(storage=str(folder / "runs"), seeds=list(range(seeds)), **changes)))


def record(sweep: Sweep, curves: list[list[float]]) -> list[Any]:
    """Give each seed of the baseline evaluations every 4 steps; returns what Tune would call those trials."""
    trials = []
    for planned, accuracies in zip(plan(sweep), curves, strict=False):
        planned.folder.mkdir(parents=True, exist_ok=True)
        same = {"trial_id": planned.cell.trial_id, "token_accuracy": 0.5, "rollouts": 1, "n": 1}
        same |= dict.fromkeys(("correct", "best_q_correct", "majority_correct"), b"\0")
        rows = [
            same
            | {"step": 4 * i, "optimizer_steps": 4 * i, "act_steps": 4 * i}
            | {"split": split, "sigma": sigma, "depth": depth, "exact_accuracy": shown}
            for i, accuracy in enumerate(accuracies)
            for split, sigma, depth, shown in (
                ("validation", 0.0, 2, accuracy),
                ("validation", 0.0, 8, 0.9),  # none of these counts
                ("validation", 0.5, 2, 0.9),
                ("test", 0.0, 2, 0.9),
            )
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=EVALS_SCHEMA), planned.folder / "evals.parquet")
        trials.append(SimpleNamespace(config={"trial_id": planned.cell.trial_id}))
    return trials


def stopping_by(scheduler: Scheduler, planned: list[PlannedTrial], holds: bool = True) -> RecordedStopping:
    """As a run has it that `holds` its sweep."""
    lock: Any = SimpleNamespace(is_locked=holds)
    return RecordedStopping(scheduler, planned, HeldFolder(planned[0].folder.parents[1], lock))


def report(stopping: RecordedStopping, trial: Any, step: int, accuracy: float) -> str:
    controller: Any = None
    return stopping.on_trial_result(controller, trial, {"evaluated_step": step, "exact_accuracy": accuracy})


def test_asha_stops_who_is_below_those_of_earlier_runs(tmp_path):
    sweep = sweep_of(tmp_path, 4, scheduler=ASHA)
    trials = record(sweep, [[0.0, 0.5, 0.6], [0.0, 0.7, 0.8], [0.0], [0.0]])
    stopping = stopping_by(Scheduler.model_validate(ASHA), plan(sweep))
    assert report(stopping, trials[2], 0, 0.0) == "CONTINUE"  # known, and before the grace
    assert report(stopping, trials[2], 4, 0.65) == "CONTINUE"  # the median of 0.5, 0.7 is 0.6
    assert report(stopping, trials[2], 4, 0.0) == "CONTINUE"  # an evaluation counts once
    assert not list(tmp_path.rglob("stopped.json"))
    assert report(stopping, trials[3], 4, 0.3) == "STOP"
    (written,) = tmp_path.rglob("stopped.json")
    ended = json.loads(written.read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", ended.pop("ended"))
    assert ended == {
        "step": 4,
        "reason": "asha: exact accuracy 0.3000 on validation at step 4",
    }
    assert [trial.end.status for trial in plan(sweep)].count("stopped") == 1


def test_an_evaluation_that_no_run_asked_about_is_asked_about_by_the_next(tmp_path):
    """A run that is stopped while a trial evaluates has it saved, and no answer."""
    sweep = sweep_of(tmp_path, 4, scheduler=ASHA)
    trials = record(sweep, [[0.0, 0.5, 0.6], [0.0, 0.7, 0.8], [0.0, 0.3], [0.0, 0.9]])
    scheduler = Scheduler.model_validate(ASHA)
    assert report(stopping_by(scheduler, plan(sweep)), trials[3], 4, 0.9) == "CONTINUE"
    assert report(stopping_by(scheduler, plan(sweep)), trials[3], 4, 0.0) == "CONTINUE"  # that one was let pass
    assert report(stopping_by(scheduler, plan(sweep)), trials[2], 4, 0.3) == "STOP"


def test_a_decision_that_cannot_be_written_is_none(tmp_path):
    sweep = sweep_of(tmp_path, 3, scheduler=ASHA)
    trials = record(sweep, [[0.0, 0.5], [0.0, 0.7], [0.0]])
    stopping = stopping_by(Scheduler.model_validate(ASHA), plan(sweep))
    (sweep.folder / "trials" / trials[2].config["trial_id"] / "stopped.json").mkdir()  # in the way
    assert report(stopping, trials[2], 4, 0.0) == "CONTINUE"


def test_a_run_that_has_lost_its_sweep_decides_nothing(tmp_path):
    sweep = sweep_of(tmp_path, 3, scheduler=ASHA)
    trials = record(sweep, [[0.0, 0.5], [0.0, 0.7], [0.0]])
    stopping = stopping_by(Scheduler.model_validate(ASHA), plan(sweep), holds=False)
    assert report(stopping, trials[2], 0, 0.0) == "CONTINUE"
    assert report(stopping, trials[2], 4, 0.0) == "CONTINUE"
    assert not [*tmp_path.rglob("stopped.json"), *tmp_path.rglob("asked.json")]


def test_the_median_rule_needs_three_others_and_then_stops(tmp_path):
    sweep = sweep_of(tmp_path, 5)
    curves = [[0.0, 0.4, 0.6], [0.0, 0.5, 0.7], [0.0, 0.0, 0.0], [0.0, 0.5, 0.5]]
    median = Scheduler.model_validate({"name": "median", "grace_steps": 4})
    trials = record(sweep, [*curves[:2], [0.0], [0.0]])
    assert report(stopping_by(median, plan(sweep)), trials[2], 4, 0.0) == "CONTINUE"
    trials = record(sweep, [*curves, [0.0]])
    stopping = stopping_by(median, plan(sweep))  # one of those recorded would have been stopped: that is past
    assert report(stopping, trials[4], 4, 0.4) == "STOP"  # their means up to step 4: 0.4, 0.5, 0.0, 0.5
    trials = record(sweep, [*curves, [0.0]])
    assert report(stopping_by(median, plan(sweep)), trials[4], 4, 0.45) == "CONTINUE"


def test_a_trial_with_a_damaged_record_is_left_alone_and_the_others_go_on(tmp_path):
    sweep = sweep_of(tmp_path, 4, scheduler=ASHA)
    record(sweep, [[0.5]] * 4)
    folders = [trial.folder for trial in plan(sweep)]
    (folders[0] / "done.json").write_text(json.dumps({"step": 12, "seconds": {"train": "x", "evaluate": 1.0}}))
    (folders[1] / "asked.json").write_text('{"step": "x"}')
    (folders[2] / "evals.parquet").write_text("damaged")  # the state writes it again
    (folders[3] / "asked.json").write_text('{"step": 0}')
    planned = plan(sweep)
    assert [trial.end.status for trial in planned] == ["unreadable"] * 2 + ["waiting"] * 6
    assert [trial.is_left(retry_failed=True) for trial in planned] == [False] * 2 + [True] * 6
    assert set(stopping_by(sweep.spec.scheduler, planned).seen) >= {planned[3].cell.trial_id}
    assert exit_code(trial.end for trial in planned[:2]) == 3
    assert [trial.end.reason for trial in planned[:2]] == [
        f"{folders[0]}/done.json: its field seconds.train is 'x'; move it away",
        f"{folders[1]}/asked.json: its field step is 'x'; move it away",
    ]


@pytest.mark.parametrize(("steps", "grace"), [(12, 1), (1000, 100)])
def test_the_default_grace_is_a_tenth_of_the_longest_trial(steps, grace):
    assert Scheduler(name="asha").grace_steps_of(steps) == grace


@pytest.mark.usefixtures("local_ray")
def test_a_stopped_trial_stays_stopped_and_goes_on_when_no_scheduler_stops_it(tmp_path, capsys):
    sweep = sweep_of(tmp_path, 1, scheduler=ASHA)
    assert main(["train", sweep.path, "--arm", "baseline", "--seed", "0"]) == 0
    (baseline,) = sweep.folder.glob("trials/*/evals.parquet")
    table = pq.read_table(baseline)
    column = table.schema.get_field_index("exact_accuracy")
    pq.write_table(table.set_column(column, "exact_accuracy", pa.array([1.0] * len(table))), baseline)  # hard to beat
    assert main(["run", sweep.path]) == 0
    printed = capsys.readouterr().out
    assert "multi2 seed=0: stopped early at step 4, accuracy 0.000" in printed
    assert "tiny: 2 trials, 1 done, 1 stopped" in printed
    assert "stopped @ 4" in printed
    assert "ERROR" not in printed
    row = gather(sweep.folder).trials.set_index("arm").loc["multi2"]
    assert (row.status, row.step) == ("stopped", 4)
    assert row.reason == "asha: exact accuracy 0.0000 on validation at step 4"
    folder = sweep.folder / "trials" / row.trial_id
    assert checkpoint.load(folder / "latest_state.pt")["step"] == 4
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}
    assert run_sweep(sweep) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"} == before

    assert run_sweep(load_sweep(sweep.path, ["scheduler=none"])) == 0
    assert not (folder / "stopped.json").exists()
    elsewhere = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "unbroken"), arms={"multi2": MULTI}, seeds=[0]))
    assert main(["train", elsewhere, "--arm", "multi2", "--seed", "0"]) == 0
    unbroken = tmp_path / "unbroken" / "tiny" / "trials" / row.trial_id
    assert (folder / "evals.parquet").read_bytes() == (unbroken / "evals.parquet").read_bytes()
    weights = [checkpoint.load(place / "final.pt") for place in (folder, unbroken)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

"""What a run says of its progress: how long it takes is known once something was trained while it looked."""

from types import SimpleNamespace
from typing import Any

from tiny import tiny_sweep, write_spec

from tune import callbacks
from tune.callbacks import Progress
from tune.spec import load_sweep


def test_the_time_left_is_unknown_until_steps_were_timed(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: now))
    sweep = load_sweep(write_spec(tmp_path, tiny_sweep(seeds=[0], base={"train": {"steps": 400}})))
    ids = list(sweep.trials)
    progress = Progress("tiny", sweep.trials, dict.fromkeys(ids, "waiting"), dict.fromkeys(ids, 40), tmp_path / "log")

    def report(trial_id: str, step: int) -> None:
        result = {"train_step": step, "exact_accuracy": 0.5, "messages": [], "done": False, "failed": None}
        trial: Any = SimpleNamespace(config={"trial_id": trial_id})
        progress.on_trial_result(0, [], trial, result)

    assert progress.headline().endswith("ETA unknown")
    report(ids[0], 60)  # of which nobody knows when they were trained
    assert progress.headline().endswith("ETA unknown")
    now += 10
    assert progress.headline().endswith("ETA unknown")
    report(ids[0], 100)
    # 40 steps in 10 s; the other arm's weigh twice, for it has two rollouts: 300 + 2 * 360 steps are left.
    assert progress.headline().endswith("ETA 4:15")

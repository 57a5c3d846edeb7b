"""A sweep's progress: a live table in a terminal, a line now and then where none is, gauges for Prometheus."""

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.util.metrics import Gauge
from rich.console import Group
from rich.live import Live
from rich.table import Table

from tune.deaths import OUT_OF_MEMORY
from tune.expand import Cell
from tune.output import console, redraws

PLAIN_LINE_SECONDS = 30.0
_ENDED = ("done", "stopped", "failed", "unreadable")
# A word of Ray's paragraph on why an actor is gone, and what it comes to.
_DEATHS = {
    "OUT_OF_MEMORY": OUT_OF_MEMORY,
    "worker process has died": "its worker process has died (killed, out of memory, or crashed)",
    "node has died": "its node has died",
    "unavailable": "its worker, or its node, cannot be reached",
}


@dataclass
class _TrialState:
    cell: Cell
    status: str
    step: int
    started_at: int
    accuracy: float = math.nan

    @property
    def steps(self) -> int:
        return self.cell.config.train.steps

    def units(self, step: int) -> int:
        """Work in trajectories, so that an arm with K rollouts weighs K times one with a single rollout."""
        return step * self.cell.config.train.batch_size * self.cell.config.rollouts


class Progress(Callback):
    """What is going on in a sweep: per arm the trials done, running and failed, the steps, the accuracy; and an ETA.

    The lines that a log has (one for every trial that ends, one every half minute) are appended to the file `log`, too.
    """

    def __init__(self, name: str, trials: dict[str, Cell], status: dict[str, str], steps: dict[str, int], log: Path):
        self.name, self.log = name, log
        self.started = time.monotonic()
        self._training_since: float | None = None  # the first report, so that starting Ray does not count
        self._trained_before = 0  # and what had been trained by then
        self.errors: dict[str, str] = {}  # trial id -> why it was given up
        self.trials = {
            trial_id: _TrialState(cell, status[trial_id], steps[trial_id], steps[trial_id])
            for trial_id, cell in trials.items()
        }
        self.console = console()
        self.redraws = redraws()
        self.live = Live(get_renderable=self.render, console=self.console, refresh_per_second=2, transient=True)
        self._last_line = -math.inf

    def __enter__(self) -> "Progress":
        if self.redraws:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.redraws:
            self.live.stop()

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into the attempt's folder, which nothing reads: a terminal cannot be pickled.
        return {"name": self.name}

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Take up a trial's report."""
        state = self.trials[trial.config["trial_id"]]
        state.step, state.accuracy, state.status = result["train_step"], result["exact_accuracy"], "running"
        if self._training_since is None:
            self._training_since, self._trained_before = time.monotonic(), self._trained()
        for message in result["messages"]:
            self._say(f"{state.cell.name}: {message}", "yellow")
        if result["done"]:
            state.status, how = _end(state, result)
            self._say(f"{self._clock()}  {state.cell.name}: {how}")
        elif time.monotonic() - self._last_line > PLAIN_LINE_SECONDS:
            self._last_line = time.monotonic()
            self._say(self.headline(), on_terminal=False)  # which has the table

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A worker took up a trial."""
        self.trials[trial.config["trial_id"]].status = "running"

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A worker failed or died; Tune starts the trial again from its folder."""
        state = self.trials[trial.config["trial_id"]]
        state.status = "waiting"
        message = f"{self._clock()}  {state.cell.name}: {_last_error(trial)}; starting it again from its folder"
        self._say(message, "yellow")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial was given up."""
        state = self.trials[trial.config["trial_id"]]
        state.status = "failed"
        self.errors[state.cell.trial_id] = _last_error(trial)
        message = f"{self._clock()}  {state.cell.name}: failed: {_last_error(trial)}"
        self._say(message, "red")

    def last_words(self, line: str) -> None:
        """Say why the run ends here, and leave the terminal as it was."""
        self.__exit__()
        self._say(line, "red")

    def _say(self, line: str, style: str = "", on_terminal: bool = True) -> None:
        if on_terminal or not self.redraws:
            self.console.print(line, style=style, soft_wrap=True)
        with suppress(OSError), open(self.log, "a", encoding="utf-8") as log:  # a full disk is the trials' to tell
            log.write(f"{line}\n")

    def headline(self) -> str:
        """One line: time, trials by status, steps, mean accuracy, ETA."""
        trials = ", ".join(f"{self._count(status)} {status}" for status in self._shown())
        steps = f"step {sum(s.step for s in self.trials.values())}/{sum(s.steps for s in self.trials.values())}"
        seen = [s.accuracy for s in self.trials.values() if not math.isnan(s.accuracy)]
        accuracy = f", accuracy {_share(sum(seen) / len(seen))}" if seen else ""
        count = f"{len(self.trials)} trials"
        return f"{self._clock()}  {self.name}: {count}, {trials}; {steps}{accuracy}; ETA {self._eta()}"

    def render(self) -> Group:
        """The headline and a row for each arm."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        shown = self._shown()
        for heading in ("arm", *shown, "step", "accuracy"):
            table.add_column(heading, justify="left" if heading == "arm" else "right")
        arms: dict[str, list[_TrialState]] = {}
        for state in self.trials.values():
            arms.setdefault(state.cell.arm, []).append(state)
        for arm, states in arms.items():
            counts = [str(sum(state.status == status for state in states)) for status in shown]
            seen = [state.accuracy for state in states if not math.isnan(state.accuracy)]
            table.add_row(
                arm,
                f"{counts[0]}/{len(states)}",
                *counts[1:],
                f"{sum(s.step for s in states)}/{sum(s.steps for s in states)}",
                _share(sum(seen) / len(seen)) if seen else "",
            )
        return Group(self.headline(), table)

    def _shown(self) -> list[str]:
        """The statuses that are counted: stopped only in a sweep that stops some."""
        return [s for s in ("done", "running", "stopped", "failed") if s != "stopped" or self._count(s)]

    def _count(self, status: str) -> int:
        return sum(state.status == status for state in self.trials.values())

    def _clock(self) -> str:
        return _minutes(time.monotonic() - self.started)

    def _trained(self) -> int:
        return sum(s.units(s.step) - s.units(s.started_at) for s in self.trials.values())

    def _eta(self) -> str:
        left = self.seconds_left()
        return "unknown" if left is None else _minutes(left)

    def seconds_left(self) -> float | None:
        """The time to the sweep's end, going by the work done since training began; None before that."""
        trained = self._trained() - self._trained_before
        left = sum(s.units(s.steps) - s.units(s.step) for s in self.trials.values() if s.status not in _ENDED)
        if self._training_since is None or trained <= 0:
            return None
        return (time.monotonic() - self._training_since) * left / trained


class Gauges(Callback):
    """Each trial's step, step rate and accuracy as gauges on the metrics endpoint of this process's Ray node."""

    def __init__(self, name: str, trials: dict[str, Cell]):
        self.name, self.trials = name, trials
        tags = ("sweep", "arm", "point", "seed", "trial")
        self.step = Gauge("rrm_step", "Batches trained.", tags)
        self.rate = Gauge("rrm_steps_per_second", "Batches a second since the report before.", tags)
        self.accuracy = Gauge("rrm_exact_accuracy", "Clean exact accuracy on validation, last evaluation.", tags)
        self._last: dict[str, tuple[float, int]] = {}  # trial id -> when it reported, and its step

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name}  # as Progress

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Set the trial's gauges."""
        trial_id = trial.config["trial_id"]
        cell, step, now = self.trials[trial_id], result["train_step"], time.monotonic()
        tags = {"sweep": self.name, "arm": cell.arm, "point": cell.point_name, "seed": str(cell.seed)}
        tags["trial"] = trial_id
        tags = {tag: value.encode("ascii", "backslashreplace").decode() for tag, value in tags.items()}  # all Ray takes
        self.step.set(step, tags)
        if not math.isnan(result["exact_accuracy"]):
            self.accuracy.set(result["exact_accuracy"], tags)
        before, step_before = self._last.get(trial_id, (now, step))
        if step > step_before and now > before:
            self.rate.set((step - step_before) / (now - before), tags)
        self._last[trial_id] = now, step
        if result["done"]:
            self.rate.set(0, tags)

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """It goes on from its folder: the time its worker was away is no training."""
        self._last.pop(trial.config["trial_id"], None)


def _end(state: _TrialState, result: dict) -> tuple[str, str]:
    """How a trial ended, as its status and in words."""
    if result["failed"]:
        return "failed", f"failed: {result['failed']}"
    if state.step < state.steps:
        return "stopped", f"stopped early at step {state.step}, accuracy {_share(state.accuracy)}"
    return "done", f"done, accuracy {_share(state.accuracy)}"


def _last_error(trial: Any) -> str:
    """The last line of the error text that Tune keeps of a trial's attempts; of a death, what it was."""
    if trial.error_file is None or not Path(trial.error_file).exists():
        return "its worker died"
    lines = [line.strip() for line in Path(trial.error_file).read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "its worker died"
    deaths = (said for word, said in _DEATHS.items() if word in last and last.startswith("The actor "))
    return next(deaths, last.removeprefix("rrm.workers.WorkerLostError: "))


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _share(accuracy: float) -> str:
    return "" if math.isnan(accuracy) else f"{accuracy:.3f}"

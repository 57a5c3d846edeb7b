"""One trial and its folder: starts or resumes, trains in slices, saves, says how it ended. Knows nothing of Ray."""

import dataclasses
import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout

from results.schema import (
    DONE,
    EVALS,
    EVALS_SCHEMA,
    FAILED,
    LATEST_STATE,
    PREVIOUS_STATE,
    TRIAL,
    read_json,
)
from rrm import checkpoint
from rrm.checkpoint import CheckpointError, serialise, write_atomically
from rrm.config import TrialConfig
from rrm.puzzles.formats import DataError
from rrm.train import DivergedError, Trainer, set_up_torch

LOCK_SECONDS = 60.0  # a killed driver's workers outlive it by about a second; a frozen machine's by more


@dataclass(frozen=True)
class TrialJob:
    """What a worker is told: which trial, where its folder is, how many threads it has, how often it saves."""

    arm: str
    seed: int
    trial_id: str
    config: dict[str, Any]
    folder: str
    threads: int
    save_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they travel to a worker."""
        return dataclasses.asdict(self)


@dataclass
class Progress:
    """Where a trial stands after a slice of training. exact_accuracy: last clean evaluation on validation."""

    step: int
    exact_accuracy: float | None
    finished: bool = False
    failed: str | None = None
    messages: list[str] = field(default_factory=list)


def provenance(device: torch.device, threads: int) -> dict[str, Any]:
    """What an attempt ran on: commit, versions, device, threads."""
    return {
        "commit": _commit(),
        "rrm": version("rrm"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "ray": version("ray"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "pid": os.getpid(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": threads,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _commit() -> str | None:
    """The commit of this code, None where it is no checkout or there is no git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


class TrialBusyError(RuntimeError):
    """Another process holds the trial's folder."""


class TrialRun:
    """One attempt at a trial, from its folder or from the start. Use `advance` until it says finished, then `close`.

    Only one process writes to a trial's folder at a time; a dead one's lock is free at once.
    """

    def __init__(self, job: TrialJob, device: torch.device):
        self.job = job
        self.folder = Path(job.folder)
        self.messages: list[str] = []
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / ".lock")
        try:
            self._lock.acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            raise TrialBusyError(
                f"{self.folder}: another process is training this trial; wait for it or stop it"
            ) from error
        try:
            set_up_torch(job.threads)
            (self.folder / FAILED).unlink(missing_ok=True)
            for leftover in self.folder.glob(".*.tmp"):  # of a process killed while it wrote
                leftover.unlink()
            self.trainer = Trainer(TrialConfig.model_validate(job.config), device)
            if self.trainer.trial_id != job.trial_id:
                raise DataError(f"{job.config['task']}: the puzzle files here are not those the sweep was planned with")
            self._record_start(device)
            self._resume()
        except BaseException:
            self._lock.release()
            raise
        self._saved_step = self.trainer.step if self.trainer.history else -1
        self._saved_at = time.monotonic()
        self._between_steps = True

    def _record_start(self, device: torch.device) -> None:
        known = read_json(self.folder / TRIAL) or {}
        record = {
            "trial_id": self.job.trial_id,
            "arm": self.job.arm,
            "seed": self.job.seed,
            "config": self.job.config,
            "data_digest": self.trainer.data.digest,
            "test_digest": self.trainer.test_digest(),
            "attempts": [*known.get("attempts", []), provenance(device, self.job.threads)],
        }
        self._write_json(TRIAL, record)

    def _resume(self) -> None:
        for name in (LATEST_STATE, PREVIOUS_STATE):
            path = self.folder / name
            if not path.exists():
                continue
            try:
                self.trainer.load_state_dict(checkpoint.load(path))
            except (CheckpointError, KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
                self.trainer = Trainer(self.trainer.config, self.trainer.device)  # nothing of the bad state stays
                aside = path.with_name(f"{path.name}.set-aside-{time.time_ns()}")
                path.rename(aside)
                reason = str(error).partition("\n")[0]
                self.messages.append(f"{path} cannot be used ({reason}); set aside as {aside.name}")
                continue
            self._write_evals()
            return

    def advance(self, seconds: float) -> Progress:
        """Train until the next evaluation, the end, or for about `seconds`; save when an evaluation or the time is due.

        A diverged trial, and any error, leaves failed.json with its reason; errors are raised again.
        """
        try:
            return self._advance(seconds)
        except DivergedError as error:
            self._write_failed("diverged", str(error))
            return self._progress(failed=str(error))
        except Exception as error:
            self._between_steps = False  # what could not be written is not tried again on the way out
            self._write_failed("error", f"{type(error).__name__}: {error}")
            raise

    def _advance(self, seconds: float) -> Progress:
        trainer, config = self.trainer, self.trainer.config
        until = time.monotonic() + seconds
        evaluations = len(trainer.history)
        next_evaluation = (trainer.step // config.eval.every + 1) * config.eval.every if trainer.history else 0
        self._between_steps = False
        trainer.train_until(min(next_evaluation, config.train.steps), stop=lambda: time.monotonic() >= until)
        self._between_steps = True
        finished = trainer.step >= config.train.steps
        evaluated = len(trainer.history) > evaluations
        if evaluated or finished or time.monotonic() - self._saved_at >= self.job.save_seconds:
            self.save()
        if finished:
            self._finish()
        return self._progress(finished=finished)

    def _progress(self, *, finished: bool = False, failed: str | None = None) -> Progress:
        clean = [r for r in self.trainer.history if r["sigma"] == 0 and r["split"] == "validation"]
        messages, self.messages = self.messages, []
        accuracy = clean[-1]["exact_accuracy"] if clean else None
        return Progress(self.trainer.step, accuracy, finished, failed, messages)

    def save(self) -> None:
        """Write the state, if it is newer than the last one written; the one before it stays as previous_state.pt."""
        if self._saved_step == self.trainer.step:
            return
        state = serialise(self.trainer.state_dict())
        # The best goes first: a kill in between is trained again from the state before, and writes it again.
        if self.trainer.best and self.trainer.best["step"] == self.trainer.step:
            write_atomically(self.folder / "best_state.pt", state)
            write_atomically(self.folder / "best.pt", serialise(self.trainer.weights()))
        latest = self.folder / LATEST_STATE
        if latest.exists():
            latest.replace(self.folder / PREVIOUS_STATE)
        write_atomically(latest, state)
        self._write_evals()
        self._saved_step, self._saved_at = self.trainer.step, time.monotonic()

    def _finish(self) -> None:
        write_atomically(self.folder / "final_state.pt", serialise(self.trainer.state_dict()))
        write_atomically(self.folder / "final.pt", serialise(self.trainer.weights()))
        ended = {"step": self.trainer.step, "best": self.trainer.best, "seconds": self.trainer.seconds}
        self._write_json(DONE, ended)

    def _write_evals(self) -> None:
        rows = [{"trial_id": self.job.trial_id} | row for row in self.trainer.history]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema=EVALS_SCHEMA), sink)
        write_atomically(self.folder / EVALS, sink.getvalue().to_pybytes())

    def _write_failed(self, kind: str, reason: str) -> None:
        write_failed(self.folder, kind, reason, self.trainer.step)

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        write_atomically(self.folder / name, json.dumps(content, indent=1).encode())

    def close(self) -> None:
        """Let go of the folder. Whole steps trained since the last save are saved first."""
        try:
            if self._between_steps:
                self.save()
        finally:
            self._lock.release()


def write_failed(folder: Path, kind: str, reason: str, step: int | None) -> None:
    """Record why a trial failed: kind `diverged` (the same config fails again) or `error` (worth another try)."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"kind": kind, "reason": reason, "step": step}
    write_atomically(folder / FAILED, json.dumps(content, indent=1).encode())

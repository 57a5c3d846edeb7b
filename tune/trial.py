"""One trial and its folder: starts or resumes, trains in slices, saves, says how it ended. Knows nothing of Ray."""

import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from results.schema import (
    BEST,
    BEST_STATE,
    DONE,
    FAILED,
    FINAL,
    FINAL_STATE,
    LATEST_STATE,
    PREVIOUS_STATE,
    RUN,
    SAVED,
    STOPPED,
    TRIAL,
    UNROLLS,
)
from results.storage import back_from, read_bytes, sizes
from results.trial_files import lost_files, read_json
from results.trial_tables import SCHEMAS, part_numbers
from rrm.checkpoint import CheckpointError, loads, serialise
from rrm.flops import flops_per_act_step
from rrm.follow import this_process, trainer_of
from rrm.torch_setup import MemoryRanOutError, out_of_memory_is, says_out_of_memory, set_up_torch
from rrm.train import DivergedError, Trainer
from rrm.workers import ALONE, WorkerLostError, Workers
from tune.growing import SEALED, GrowingTables
from tune.held_folder import BusyError, check_shared, hold_trial
from tune.job import TrialJob
from tune.loggers import TensorBoardLog, TrialLog, WandbConfig, WandbLog
from tune.memory import AGAIN, memory_mend
from tune.provenance import provenance, utc_now
from tune.puzzle_table import write_puzzles
from tune.secrets import set_secrets

# What a trial leaves for others to use, beside parts of tables.
_LASTING = (BEST, BEST_STATE, FINAL, FINAL_STATE, UNROLLS, *(f"{name}.parquet" for name in SCHEMAS))


@dataclass
class Progress:
    """Where a trial stands after a slice of training, and its last evaluation: clean accuracy on validation."""

    step: int
    evaluated_step: int  # -1: not yet
    saved_step: int  # likewise
    exact_accuracy: float | None
    finished: bool = False
    failed: str | None = None
    messages: list[str] = field(default_factory=list)
    evaluation_seconds: float = 0.0


class TrialRun:
    """One attempt at a trial, from its folder or from the start. Use `advance` until it says finished, then `close`.

    This process is the first of its `workers`, and tells the others, which follow (rrm.follow), what it does. Only one
    process writes to a trial's folder at a time; a dead one's lock is free at once. Raises MemoryRanOutError if the
    trial does not fit into memory, having recorded it.
    """

    def __init__(self, job: TrialJob, device: torch.device, workers: Workers = ALONE):
        set_secrets(job.secrets)
        self.job, self.workers = job, workers
        self.folder = back_from(job.folder)
        self.messages: list[str] = []
        self.logs: list[TrialLog] = []
        self._logged: tempfile.TemporaryDirectory[str] | None = None  # of a trial in a bucket
        if job.nonce is not None:
            check_shared(self.folder.parent.parent / RUN, job.nonce)
        self._held = hold_trial(self.folder)
        self._tables = GrowingTables(self._held, job.trial_id)
        try:
            set_up_torch(job.threads)
            for earlier_end in (FAILED, STOPPED):
                self._held.unlink(earlier_end)
            self._held.remove_leftovers()
            with out_of_memory_is(
                lambda: f"the model itself does not fit; give it fewer layers, or a smaller hidden_size; {AGAIN}"
            ):
                self.trainer = self._trainer(device)
            record = self._record_start(device)
            self.logs = self._open_logs(record.get("wandb_run"))
            with out_of_memory_is(lambda: memory_mend(self.trainer.config, self.trainer.device)):
                self._saved_step = self._resume()
        except BaseException as error:
            try:
                if isinstance(error, MemoryRanOutError):
                    self._write_failed(error, None)
            finally:
                self._let_go()
            raise
        self._saved_at = time.monotonic()
        self._between_steps = True

    def _trainer(self, device: torch.device) -> Trainer:
        job = self.job
        self.workers.tell(["take up", job.config, job.trial_id, job.threads])
        self.processes = self.workers.gather(this_process())
        return trainer_of(job.config, job.trial_id, device, self.workers)

    def _record_start(self, device: torch.device) -> dict[str, Any]:
        known = read_json(self.folder / TRIAL) or {}
        attempt = provenance(device, self.job.threads, self.processes)
        record = {
            "trial_id": self.job.trial_id,
            "arm": self.job.arm,
            "seed": self.job.seed,
            "config": self.job.config,
            "data_digest": self.trainer.data.digest,
            "test_digest": self.trainer.test_digest(),
            "parameters": sum(parameter.numel() for parameter in self.trainer.model.parameters()),
            "flops_per_act_step": flops_per_act_step(self.trainer.config),
            "attempts": [*known.get("attempts", []), attempt | self._held.fence],
        }
        if self.job.wandb is not None:
            # One of its own: the same trial in another sweep, or storage, is another run. Kept, so that it goes on.
            record["wandb_run"] = known.get("wandb_run") or f"{self.job.trial_id}-{secrets.token_hex(4)}"
        self._held.write_json(TRIAL, record)
        # <storage>/<sweep>/trials/<trial id> is this trial's folder.
        test, digest = self.trainer.eval_batches["test"], record["test_digest"]
        write_puzzles(self.folder.parent.parent, self.trainer.config.task, test, digest)
        return record

    def _open_logs(self, wandb_run: str | None) -> list[TrialLog]:
        """The logs that are asked for. W&B out of reach is a message: the next attempt logs what is missing."""
        job, logs = self.job, list[TrialLog]()
        to = WandbConfig.model_validate(job.wandb) if job.wandb is not None else None
        to = None if to is not None and to.mode == "disabled" else to
        if to is None and not job.tensorboard:
            return []
        # A bucket holds no log files: W&B keeps its own on this machine, and sends them.
        if not isinstance(folder := self.folder, Path):
            self._logged = tempfile.TemporaryDirectory(prefix="rrm-logs-", ignore_cleanup_errors=True)
            folder = Path(self._logged.name)
        if job.tensorboard:
            logs.append(TensorBoardLog(folder))
        if to is not None and wandb_run is not None:
            import wandb

            run = {"run_id": wandb_run, "sweep": job.sweep, "arm": job.arm, "name": job.name}
            try:
                logs.append(WandbLog(folder, to, config=job.config, **run))
            except wandb.Error as error:
                self.messages.append(f"not logged to W&B: {error}")
        return logs

    def _resume(self) -> int:
        """Take up the last state that can be used. Returns the step of latest_state.pt, -1 if there is none now."""
        for name in (LATEST_STATE, PREVIOUS_STATE):
            path = self.folder / name
            try:
                content = read_bytes(path)
            except FileNotFoundError:
                continue
            try:
                state = loads(content, path)
                self.trainer.load_state_dict(state)
            except (CheckpointError, KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
                if says_out_of_memory(error):
                    raise  # the file is whole, and another attempt may have the room
                # Nothing of the bad state stays.
                self.trainer = Trainer(self.trainer.config, self.trainer.device, self.workers)
                aside = path.with_name(f"{path.name}.set-aside-{time.time_ns()}")
                self._held.copy(name, aside.name)
                self._held.unlink(name)
                reason = str(error).partition("\n")[0]
                self.messages.append(f"{path} cannot be used ({reason}); set aside as {aside.name}")
                continue
            self.workers.tell(["load_state_dict", state])
            sealed = self._tables.take_up(state)
            self._write_tables(sealed)
            self._tables.remove_unnamed()
            return self.trainer.step if name == LATEST_STATE else -1
        return -1

    def advance(self, seconds: float) -> Progress:
        """Train until the next evaluation, the end, or for about `seconds`; save when an evaluation or the time is due.

        A diverged trial, and any error of its own, leaves failed.json with its reason; errors are raised again.
        """
        try:
            with out_of_memory_is(lambda: memory_mend(self.trainer.config, self.trainer.device)):
                return self._advance(seconds)
        except DivergedError as error:
            self._held.write_failed("diverged", str(error), self.trainer.step)
            return self._progress(failed=str(error))
        except (BusyError, WorkerLostError):
            self._between_steps = False
            raise
        except Exception as error:
            self._between_steps = False  # what could not be written is not tried again on the way out
            self._write_failed(error, self.trainer.step)
            raise

    def _write_failed(self, error: BaseException, step: int | None) -> None:
        if isinstance(error, MemoryRanOutError):
            self._held.write_failed("out_of_memory", str(error), step)
        else:
            self._held.write_failed("error", f"{type(error).__name__}: {error}", step)

    def _advance(self, seconds: float) -> Progress:
        trainer, config = self.trainer, self.trainer.config
        until = time.monotonic() + seconds
        evaluations = len(trainer.history)
        next_evaluation = (trainer.step // config.eval.every + 1) * config.eval.every if trainer.history else 0
        self._between_steps = False
        target = min(next_evaluation, config.train.steps)
        self.workers.tell(["train_until", target])
        trainer.train_until(target, stop=lambda: time.monotonic() >= until)
        self._between_steps = True
        finished = trainer.step >= config.train.steps
        evaluated = len(trainer.history) > evaluations
        if evaluated or finished or time.monotonic() - self._saved_at >= self.job.save_seconds:
            self.save()
        if finished:
            self._finish()
        return self._progress(finished=finished)

    def _progress(self, *, finished: bool = False, failed: str | None = None) -> Progress:
        messages, self.messages = self.messages, []
        return Progress(
            self.trainer.step,
            self.trainer.history[-1]["step"] if self.trainer.history else -1,
            self._saved_step,
            self.trainer.last_accuracy,
            finished,
            failed,
            messages,
            self.trainer.seconds["last_evaluation"],
        )

    def save(self) -> None:
        """Write the state, if it is newer than the last one written; the one before it stays as previous_state.pt."""
        if self._saved_step == self.trainer.step:
            return
        self._held.check_held()
        self.workers.tell(["state_dict"])
        # The order: a kill in between is trained again from the state before, and writes the rest again.
        self._tables.seal(self.trainer)
        state = serialise(self.trainer.state_dict() | {SEALED: self._tables.sealed})
        best = self.trainer.best is not None and self.trainer.best["step"] == self.trainer.step
        if best:
            self._held.write(BEST_STATE, state)
            self._held.write(BEST, serialise(self.trainer.weights()))
        evaluated = bool(self.trainer.history) and self.trainer.history[-1]["step"] == self.trainer.step
        if evaluated and self.job.keep_evaluations:
            self._held.write(f"step_{self.trainer.step}.pt", serialise(self.trainer.weights()))
        if (self.folder / LATEST_STATE).exists():
            self._held.copy(LATEST_STATE, PREVIOUS_STATE)
        if best:
            self._held.copy(BEST_STATE, LATEST_STATE)
        else:
            self._held.write(LATEST_STATE, state)
        self._held.write_json(SAVED, {"step": self.trainer.step} | self._held.fence)
        if evaluated:
            self._write_tables()
        self._saved_step, self._saved_at = self.trainer.step, time.monotonic()

    def _finish(self) -> None:
        self._mend()
        self._held.copy(LATEST_STATE, FINAL_STATE)
        self._held.write(FINAL, serialise(self.trainer.weights()))
        ended = {"step": self.trainer.step, "best": self.trainer.best, "seconds": self.trainer.seconds}
        there = sizes(self.folder)
        files = {name: there[name] for name in there if name in _LASTING or name in part_numbers(there)}
        self._held.write_json(DONE, ended | {"ended": utc_now(), "files": files} | self._held.fence)

    def _mend(self) -> None:
        """Make files of the best evaluation again that the trial had when it ended before and that are lost or cut."""
        done = read_json(self.folder / DONE)
        lost = {BEST, BEST_STATE} & set(lost_files(self.folder, (done or {}).get("files", {})))
        best = self.trainer.best
        if not lost or best is None:
            return
        for name in (BEST_STATE, LATEST_STATE, PREVIOUS_STATE, FINAL_STATE):
            try:
                content = read_bytes(self.folder / name)
                state = loads(content, self.folder / name)
            except (FileNotFoundError, CheckpointError):
                continue
            if state.get("step") == best["step"]:
                trainer = Trainer(self.trainer.config, self.trainer.device)
                trainer.load_state_dict(state)
                self._held.write(BEST_STATE, content)
                self._held.write(BEST, serialise(trainer.weights()))
                return
        for name in sorted(lost):
            self._held.unlink(name)
        gone = " and ".join(str(self.folder / name) for name in sorted(lost))
        self.messages.append(
            f"{gone}: lost, and no state of step {best['step']} is left; remove the folder to train anew"
        )

    def _write_tables(self, sealed: Sequence[dict[str, Any]] = ()) -> None:
        """Write the tables, and log the evaluations. `sealed`: those that the trainer does not hold."""
        self._tables.write(self.trainer)
        for log in self.logs:
            log.write([*sealed, *self.trainer.history])

    def close(self) -> None:
        """Let go of the folder. Whole steps trained since the last save are saved first."""
        try:
            if self._between_steps:
                self.save()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        try:
            for log in self.logs:
                log.close(finished=self.trainer.step >= self.trainer.config.train.steps)
        finally:
            if self._logged is not None:
                self._logged.cleanup()
            self._held.release()

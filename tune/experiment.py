"""Run a sweep on Ray Tune: hand it the trials that are left, and say at the end how each one stands."""

import logging
import os
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from filelock import FileLock, Timeout
from ray.tune import (
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    TuneConfig,
    TuneError,
    Tuner,
)

from results.locks import is_held, this_process
from results.schema import FAILED, LOCK, LOG, RUN, SPEC, TRIALS
from results.storage import S3Path, missing, read_bytes, write_atomically
from results.trial_files import ClosedFileError, DamagedFileError, closed_alone, read_json
from tune.callbacks import Gauges, Progress
from tune.connection import RunRefused, connected, session_folder, watched
from tune.deaths import Attempts, survive_deaths
from tune.held_folder import BusyError, HeldFolder, write_failed
from tune.job import TrialJob
from tune.lease import Lease, lock_at, release_and_remove
from tune.leftovers import remove_copies, tidy
from tune.memory import check_memory, cluster_memory
from tune.placement import placement
from tune.plan import ALL_DONE, SOME_FAILED, STOPPED, PlannedTrial, attempts_of, exit_code, manifest_files, plan
from tune.progress_file import ProgressFile
from tune.queue import TrialQueue, pending_trials
from tune.runner import RUN_LOCK, local_lock, runner
from tune.secrets import keep_from_runtime_env
from tune.signals import ENDING, handled
from tune.spec import Sweep
from tune.stopping import RecordedStopping
from tune.trainable import RecursiveTrial

TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they write the whole config at every report, for nobody
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # its state at the start and at the end; nothing is restored from it
}
CLAIM_SECONDS = 1.0  # somebody may be asking whether the lock is held


class RunBroken(RuntimeError):
    """The storage failed while trials were running. What they had saved is safe."""


def run_sweep(sweep: Sweep, retry_failed: bool = False) -> int:
    """Train what is left of a sweep and return its exit code: 0 all done, 3 some failed, 4 stopped before the end.

    Starts Ray if this process is not connected, and only if something is left. Raises SpecError for puzzle files or
    logs that cannot be used, TooLargeError for trials that a GPU there cannot hold, RunRefused if another run holds the
    sweep or no node can hold a trial, OSError if its folder cannot be written, RunBroken if that happens once trials
    have started.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # this is a Ray job
        sweep.check_storage()
    with _claim(sweep) as claim:
        planned = plan(sweep)
        for trial in planned:
            if trial.end.status == "unreadable":
                print(f"{trial.cell.name}: {trial.end.reason}", flush=True)
        left = [trial for trial in planned if trial.is_left(retry_failed)]
        if left:
            sweep.check_data()
            sweep.check_logs()
            errors: dict[str, str] = {}
            try:
                with connected():
                    progress = _fit(sweep, planned, left, claim)
                errors = progress.errors
                if errors:
                    claim.held.check_held()
                for trial_id, error in errors.items():
                    _record_error(sweep, trial_id, error)
                if any(trial.status == "waiting" for trial in progress.trials.values()):
                    return STOPPED  # without a look at every folder
                code = exit_code(trial.end for trial in plan(sweep) if trial.cell.trial_id not in errors)
                return SOME_FAILED if errors and code == ALL_DONE else code
            except (OSError, TuneError) as error:
                text = f"{_reason(error, sweep)}; mend it, and the same command goes on from what was saved"
                raise RunBroken("\n".join([*dict.fromkeys(errors.values()), text])) from error
        claim.write_manifest(sweep)
    return exit_code(trial.end for trial in planned)


def _reason(error: OSError | TuneError, sweep: Sweep) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or sweep.folder}: {error.strerror or error}"
    return str(error).strip().rpartition("\n")[2]  # Tune's text is the traceback of what went wrong


@dataclass
class _Claim:
    """The sweep's folder, held, and what stands in it now and did not before: by that a worker knows the storage."""

    held: HeldFolder
    nonce: str
    started: bool = False  # whether more of the sweep was written

    def write_manifest(self, sweep: Sweep) -> None:
        """As tune.plan's, for as long as the sweep is this run's."""
        for name, content in manifest_files(sweep).items():
            self.held.write(name, content)


@contextmanager
def _claim(sweep: Sweep) -> Iterator[_Claim]:
    """Hold the sweep for this process. The lock is the operating system's and ends with the process.

    What ends before it has `started` leaves the storage as it was: of a sweep that never ran no folder either. A run
    that has lost the sweep to another writes nothing more, and ends as if told to.
    """
    lock, made = lock_at(sweep.folder / RUN_LOCK, partial(_lost, sweep)), missing(sweep.folder)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if isinstance(sweep.folder, S3Path):
            local_lock(sweep.folder).parent.mkdir(parents=True, exist_ok=True)
            _take(FileLock(local_lock(sweep.folder)), sweep, stack)
        _take(lock, sweep, stack)
        path, held = sweep.folder / RUN, HeldFolder(sweep.folder, lock)
        since, claim = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), _Claim(held, uuid.uuid4().hex)
        earlier = read_bytes(path) if path.exists() else None
        try:
            held.write_json(RUN, this_process() | {"since": since, "nonce": claim.nonce} | held.fence)
            yield claim
        except BaseException as error:
            # A process that stood still for too long has lost the sweep: what stands there is another's.
            if not claim.started and held.is_held():
                with suppress(OSError, DamagedFileError, BusyError):
                    found = read_json(path)
                    ours = found is not None and found.get("nonce") == claim.nonce
                    if ours and earlier is not None:
                        held.write(RUN, earlier)
                    elif ours or found is None:  # None: it could not be written
                        path.unlink(missing_ok=True)
                        release_and_remove(lock)
                        for folder in made:
                            folder.rmdir()
            if isinstance(error, BusyError):  # `_lost` says to whom, and sends a signal, at about the same time
                print(f"{sweep.spec.name}: {error}", flush=True)
                raise KeyboardInterrupt from error
            raise


def _take(lock: FileLock | Lease, sweep: Sweep, stack: ExitStack) -> None:
    """Take a lock until the stack ends. Raises RunRefused if another run holds it."""
    try:
        lock.acquire(timeout=CLAIM_SECONDS)
    except Timeout as error:
        who = runner(sweep.folder) or "being run by a process of this machine"
        raise RunRefused(f"{sweep.spec.name}: already {who}; wait for it or stop it") from error
    stack.callback(lock.release)


def _lost(sweep: Sweep) -> None:
    """Another run took the sweep in a bucket while this process stood still: end as if told to."""
    try:
        with suppress(OSError):
            other = runner(sweep.folder) or "another's, or was"
            print(f"{sweep.spec.name}: this process stood still for too long; the sweep is {other}", flush=True)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def _fit(sweep: Sweep, planned: list[PlannedTrial], left: list[PlannedTrial], claim: _Claim) -> Progress:
    """Train the trials that are left. Returns what became of them."""
    spec = sweep.spec
    place, places = placement(spec.resources)
    memory = cluster_memory(ray.nodes(), ray.get_runtime_context().get_node_id())
    check_memory((trial.cell.config for trial in left), place.gpu, memory)
    jobs = (TrialJob.of(sweep, trial.cell, place.threads, claim.nonce) for trial in left)
    cells = sweep.trials
    to_run = {trial.cell.trial_id for trial in left}
    status = {t.cell.trial_id: "waiting" if t.cell.trial_id in to_run else t.end.status for t in planned}
    attempt = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{claim.nonce[:8]}"
    attempts = attempts_of(sweep.folder)
    claim.started = True  # a run that is refused has not come here
    claim.write_manifest(sweep)
    (attempts / attempt).mkdir(parents=True)
    write_atomically(attempts / attempt / SPEC, sweep.text)
    log = attempts / attempt / LOG
    log.touch()
    progress = Progress(spec.name, cells, status, {t.cell.trial_id: t.step for t in planned}, log)
    written = ProgressFile(progress, claim.held)
    os.environ |= TUNE_SETTINGS | {"TUNE_MAX_PENDING_TRIALS_PG": str(pending_trials(places))}
    tuner = Tuner(
        RecursiveTrial,
        param_space={"cpu": place.cpu, "gpu": place.gpu, "workers": place.workers},
        tune_config=TuneConfig(
            search_alg=TrialQueue(jobs),
            num_samples=len(left),
            reuse_actors=True,
            scheduler=RecordedStopping(spec.scheduler, planned, claim.held) if spec.scheduler else None,
            trial_name_creator=_trial_id,
            trial_dirname_creator=_trial_id,
        ),
        run_config=RunConfig(
            name=attempt,
            storage_path=str(attempts),
            failure_config=FailureConfig(max_failures=spec.max_failures),
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
            callbacks=[progress, written, Gauges(spec.name, cells), Attempts()],
            verbose=0,
        ),
    )
    keep_from_runtime_env()
    survive_deaths()
    for warning in dict.fromkeys(
        f"{t.cell.arm}: {t.cell.config.long_warm_up}" for t in left if t.cell.config.long_warm_up
    ):
        print(warning, flush=True)
    print(f"Watch it on a page: rrm watch {shlex.quote(str(sweep.folder.parent))}", flush=True)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # its tracebacks; the reason goes into failed.json
    # They end the run as Ctrl-C does. Not by SIGINT: Ray blocks that in a job's process unless told otherwise.
    ending = handled(ENDING, lambda *_: signal.raise_signal(signal.SIGUSR1))
    until_tune = handled((signal.SIGUSR1,), signal.default_int_handler)  # Tune takes it a moment after it has begun
    with progress, written, until_tune, ending, watched(lambda reason: _end_here(progress, reason)):
        tuner.fit()
    tidy(attempts / attempt)
    remove_copies(session_folder(), attempts)
    return progress


def _end_here(progress: Progress, reason: str) -> None:
    """End this process, whatever its other threads wait for. The system lets go of its locks."""
    try:
        progress.last_words(f"{reason}; the same command goes on from what the trials have saved, once that is mended")
        sys.stdout.flush()
    finally:
        os._exit(STOPPED)


def _trial_id(trial: Any) -> str:
    return trial.config["trial_id"]


def _record_error(sweep: Sweep, trial_id: str, error: str) -> None:
    """A worker that was killed, or could not even open its folder, has not written why."""
    folder = sweep.folder / TRIALS / trial_id
    reason = f"its worker failed {sweep.spec.max_failures + 1} times without getting further: {error}"
    with suppress(ClosedFileError), closed_alone(folder):  # then that is how the trial stands
        if not (folder / FAILED).exists() and not is_held(folder / LOCK):  # another process may be training it
            write_failed(folder, "error", reason, None)

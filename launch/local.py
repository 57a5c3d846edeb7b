"""A sweep by its folder, here or in a bucket: how it stands; the log of its run on this machine, and how to stop it."""

import platform
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from psutil import NoSuchProcess, Process

from results.locks import is_held
from results.progress import duration, is_stalled, told_by_driver, told_by_folders
from results.schema import LOG, MANIFEST, TRIALS
from results.storage import Location, read_bytes, side_by_side
from results.trial_files import TrialEnd, read_json, trial_end
from tune.output import outlet
from tune.plan import ALL_DONE, attempts_of, exit_code
from tune.runner import RUN_LOCK, Runner, local_lock, process_that_holds, runner

START_SECONDS = 20.0  # for which a run that is being started may keep `stop` waiting


class JobError(ValueError):
    """A sweep that cannot be submitted, found or stopped as asked; the text says what to do instead."""


def status(storage: Location, name: str | None) -> int:
    """Print how many trials of a sweep are done, how its run goes on, and what failed or stalled, a line each.

    Raises JobError if there is no such sweep.
    """
    folder = _folder(storage, name)
    told = told_by_driver(folder) or told_by_folders(folder)
    trials = told["trials"]
    counts = ", ".join(f"{n} {status}" for status, n in Counter(one["status"] for one in trials.values()).items())
    print(f"{name}: {len(trials)} trials, {counts}; {runner(folder) or 'not running'}; {folder}")
    if told["run"]:
        print(f"  {_pace(told['run'], trials)}")
    for trial_id, trial in trials.items():
        if trial["status"] in ("failed", "unreadable"):
            print(f"  {trial_id} {trial['status']}: {trial.get('reason') or 'see rrm logs'}")
        elif told["run"] and is_stalled(trial, told["run"]["heard"]):
            where = f"at step {trial.get('step', 0)} of {trial['steps']}"
            print(f"  {trial_id} stalled {where}: not heard of for {duration(time.time() - trial['heard'])}")
    return ALL_DONE


def _pace(run: dict[str, Any], trials: dict[str, dict[str, Any]]) -> str:
    """How far and how fast a run is, what time is left, and when its driver was last heard of."""
    done, asked = (sum(trial.get(name) or 0 for trial in trials.values()) for name in ("step", "steps"))
    parts = [f"step {done} of {asked}"]
    parts += [f"{run['rate']:.3g} steps a second"] if run["rate"] else []
    parts += [f"about {duration(run['left'])} left"] if run["left"] is not None else []
    return ", ".join([*parts, f"last heard {duration(time.time() - run['heard'])} ago"])


def logs(storage: Location, name: str, follow: bool) -> int:
    """Print the log of a sweep's newest run on this machine; with `follow` until its end, for the sweep's exit code.

    Nothing is followed for nobody: without a reader it ends, with 0.
    Raises JobError if there is no such sweep, or none of its runs was here.
    """
    folder = _folder(storage, name)
    printed: dict[Path, int] = {}
    while True:
        going_on = follow and is_held(folder / RUN_LOCK)
        log = max(attempts_of(folder).glob(f"*/{LOG}"), default=None)  # they are called by their time
        if log is None and not going_on:
            raise JobError(f"{name}: no log of a run in {attempts_of(folder)}; run it, or ask where it ran")
        if log is not None:
            text = read_bytes(log)
            whole = text.rfind(b"\n") + 1  # more may be on its way
            print(text[printed.get(log, 0) : whole].decode(errors="replace"), end="", flush=True)
            printed[log] = whole
        if going_on and outlet(sys.stdout).unread:
            return ALL_DONE
        if not going_on:
            return exit_code(_ends(folder)) if follow else ALL_DONE
        time.sleep(0.5)


def _ends(folder: Location) -> list[TrialEnd]:
    """How each trial of a sweep stands."""
    manifest = read_json(folder / MANIFEST) or {}
    steps = {cell["trial_id"]: cell["config"]["train"]["steps"] for cell in manifest["cells"]}
    return side_by_side(folder, lambda trial_id: trial_end(folder / TRIALS / trial_id, steps[trial_id]), steps)


def stop(storage: Location, name: str) -> int:
    """Stop the run of a sweep on this machine and wait for its end. Raises JobError if it is elsewhere, or not ours."""
    folder = _folder(storage, name)
    run, process = _run_and_process(folder)
    if run is None:
        print(f"{name}: not running")
        return ALL_DONE
    if run.host not in (None, platform.node()):
        raise JobError(f"{name}: {run}; stop it there")
    if process is None:
        mend = "press Ctrl-C where it was started"
        raise JobError(f"{name}: {run}, but no such process of yours here holds the sweep's lock; {mend}")
    started = time.monotonic()
    with suppress(NoSuchProcess):
        process.terminate()
    while is_held(folder / RUN_LOCK):
        time.sleep(0.2)
    print(f"{name}: stopped in {time.monotonic() - started:.0f} s; run it again to go on")
    return ALL_DONE


def _run_and_process(folder: Location) -> tuple[Runner | None, Process | None]:
    """Who runs the sweep, and the process, if it is this user's and here; a run that is being started is waited for."""
    until = time.monotonic() + START_SECONDS
    while True:
        run = runner(folder)
        pid = run.pid if run is not None and run.host == platform.node() else None
        process = None if pid is None else process_that_holds(pid, local_lock(folder))
        if run is None or process is not None or not run.is_starting or time.monotonic() > until:
            return run, process
        time.sleep(0.5)


def _folder(storage: Location, name: str | None) -> Location:
    if name is None:
        raise JobError("NAME: missing; give a sweep's name, or --address for all on a cluster")
    folder = storage / name
    if not (folder / MANIFEST).exists():
        mend = "give --storage, a folder or s3://bucket/prefix, or --address of its cluster"
        raise JobError(f"{name}: no such sweep in {folder.parent}; {mend}")
    return folder

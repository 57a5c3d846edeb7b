"""How the trials of a sweep stand at this moment: as its run's driver says, or, without one, as their folders say."""

import time
from typing import Any

from results.schema import MANIFEST, PROGRESS, TRIALS
from results.storage import Location, S3Path, side_by_side
from results.trial_files import DamagedFileError, read_json, trial_end

HEARD_SECONDS = 60.0  # a driver that has written nothing for so long tells nothing of the present
HEARD_SECONDS_S3 = 180.0
STALLED_SECONDS = 60.0  # a running trial reports every second, but for an evaluation,
SILENCES = 3  # and nothing takes so many times what the longest so far has taken


def told_by_driver(folder: Location) -> dict[str, Any] | None:
    """What the driver of a sweep's run wrote in the last minute, None if that cannot be had: `trials`, and its `run`.

    trials: by trial id, each with status and steps, and where it is known step, rate (steps a second), heard (when,
    seconds since 1970), longest_silence (seconds between two reports), accuracy and reason. run: heard, left (seconds,
    None if unknown) and rate of all together.
    """
    try:
        told = read_json(folder / PROGRESS)
    except DamagedFileError:
        return None
    patience = HEARD_SECONDS_S3 if isinstance(folder, S3Path) else HEARD_SECONDS
    if told is None or told["ended"] or abs(time.time() - told["written"]) > patience:  # nor in the future
        return None
    trials = told["trials"]
    rates = [trial["rate"] for trial in trials.values() if trial.get("rate") and trial.get("status") == "running"]
    return {"trials": trials, "run": {"heard": told["written"], "left": told["left"], "rate": sum(rates) or None}}


def told_by_folders(folder: Location, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """The same by the trials' own folders: status, steps and reason. Raises DamagedFileError for a bad manifest.

    `before` are the trials as they stood: one that was done is not read again, unless more steps are asked for.
    """
    manifest = read_json(folder / MANIFEST) or {"cells": []}
    steps = {cell["trial_id"]: cell["config"]["train"]["steps"] for cell in manifest["cells"]}
    done = {name: end for name, end in (before or {}).items() if end == {"status": "done", "steps": steps.get(name)}}
    left = [name for name in steps if name not in done]
    found = side_by_side(folder / TRIALS, lambda name: _end(folder / TRIALS / name, steps[name]), left)
    known = done | dict(zip(left, found, strict=True))
    return {"trials": {name: known[name] for name in steps}, "run": None}


def _end(folder: Location, steps: int) -> dict[str, Any]:
    end = trial_end(folder, steps)
    return {"status": end.status, "steps": steps} | ({"reason": end.reason} if end.reason else {})


def is_stalled(trial: dict[str, Any], written: float) -> bool:
    """Whether a running trial had been silent when the driver wrote: for a minute, and for far longer than ever."""
    heard, patience = trial.get("heard"), max(STALLED_SECONDS, SILENCES * (trial.get("longest_silence") or 0.0))
    return trial.get("status") == "running" and heard is not None and written - heard > patience


def duration(seconds: float) -> str:
    """Seconds in words: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

"""Plan a sweep: which trials are done, which are left. The trial folders say it; nothing else is remembered."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.schema import ASKED, ATTEMPTS, EVALS, EVALS_SCHEMA, MANIFEST, SAVED, SPEC, TRIALS
from results.storage import Location, S3Path, names_in, side_by_side, write_atomically
from results.trial_files import ClosedFileError, DamagedFileError, TrialEnd, read_json, read_table, trial_end
from tune.signals import STOPPED

if TYPE_CHECKING:
    from tune.expand import Cell
    from tune.spec import Sweep

ALL_DONE, BAD_INPUT, SOME_FAILED = 0, 2, 3  # and STOPPED


@dataclass(frozen=True)
class PlannedTrial:
    """A trial of the sweep, where its folder is, how it stands and the step that it has come to."""

    cell: "Cell"
    folder: Location
    end: TrialEnd
    step: int

    def is_left(self, retry_failed: bool) -> bool:
        """Whether a run takes it up. A diverged trial would diverge again: it stays failed unless asked for.

        A trial that a scheduler stopped stays so, for as long as the sweep has one; one with a damaged record until
        that is moved away.
        """
        if self.end.status == "failed":
            return retry_failed or not self.end.deterministic
        return self.end.status not in ("done", "stopped", "unreadable")


def plan(sweep: "Sweep") -> list[PlannedTrial]:
    """Every trial of the sweep as its folder stands now, in the order of the spec. Raises OSError."""
    there = set(names_in(sweep.folder / TRIALS))  # one look for all, most of which may not have begun

    def look(cell: "Cell") -> PlannedTrial:
        if cell.trial_id in there:
            return planned(sweep, cell)
        return PlannedTrial(cell, sweep.folder / TRIALS / cell.trial_id, TrialEnd("waiting"), 0)

    return side_by_side(sweep.folder, look, sweep.trials.values())


def planned(sweep: "Sweep", cell: "Cell") -> PlannedTrial:
    """One trial of the sweep, likewise."""
    folder, step = sweep.folder / TRIALS / cell.trial_id, 0
    end = trial_end(folder, cell.config.train.steps)
    if end.status == "unreadable":
        return PlannedTrial(cell, folder, end, step)
    try:
        if sweep.spec.scheduler is not None:
            read_json(folder / ASKED)
        elif end.status == "stopped":  # it was asked to be trained to its end after all
            end = TrialEnd("unfinished")
        step, is_whole = _step(folder)
        if end.status == "done" and not is_whole:  # the state's own history writes the table again
            end = TrialEnd("unfinished")
    except DamagedFileError as error:
        end = TrialEnd("unreadable", reason=str(error))
    return PlannedTrial(cell, folder, end, step)


def _step(folder: Location) -> tuple[int, bool]:
    """The step that a trial has come to, and whether its evaluations can be read. Raises ClosedFileError, OSError."""
    evaluated, is_whole, saved = 0, True, 0
    try:
        evaluated = max(read_table(folder / EVALS, EVALS_SCHEMA).column("step").to_pylist(), default=0)
    except ClosedFileError:
        raise
    except DamagedFileError:
        is_whole = False
    try:
        saved = (read_json(folder / SAVED) or {"step": 0})["step"]
    except ClosedFileError:
        raise
    except DamagedFileError:  # it says no more than how far the state has come
        pass
    return max(evaluated, saved), is_whole


def manifest(sweep: "Sweep") -> dict[str, Any]:
    """What the tables need to know of a sweep: which arms, grid points and seeds stand for which trial."""
    cells = [
        {
            "arm": cell.arm,
            "point": cell.point_name,
            "seed": cell.seed,
            "trial_id": cell.trial_id,
            "config": cell.config.model_dump(mode="json"),
        }
        for cell in sweep.cells
    ]
    digest = hashlib.sha256(json.dumps(sweep.raw, sort_keys=True, default=str).encode()).hexdigest()
    return {
        "baseline": sweep.spec.baseline,
        "primary": [sweep.spec.primary.metric, sweep.spec.primary.sigma],
        "margin": sweep.spec.margin,
        "spec_digest": digest,
        "cells": cells,
    }


def manifest_files(sweep: "Sweep") -> dict[str, bytes]:
    """The manifest and the spec as it is run, by the names of their files in the sweep's folder."""
    return {MANIFEST: json.dumps(manifest(sweep)).encode(), SPEC: sweep.text}


def write_manifest(sweep: "Sweep") -> None:
    """Write these files, whoever runs the sweep."""
    sweep.folder.mkdir(parents=True, exist_ok=True)
    for name, content in manifest_files(sweep).items():
        write_atomically(sweep.folder / name, content)


def note_manifest(sweep: "Sweep") -> None:
    """Write the manifest, unless the one there has all of the sweep's cells: a trial by itself must not hide others."""
    known = (read_json(sweep.folder / MANIFEST) or {}).get("cells", [])
    held, asked = ({json.dumps(cell, sort_keys=True) for cell in cells} for cells in (known, manifest(sweep)["cells"]))
    if not asked <= held:
        write_manifest(sweep)


def attempts_of(folder: Location) -> Path:
    """Where Tune keeps its own files of a sweep's runs: beside the trials; in its usual place if those are in S3."""
    return Path.home() / "ray_results" / folder.key if isinstance(folder, S3Path) else folder / ATTEMPTS


def exit_code(ends: Iterable[TrialEnd]) -> int:
    """How a sweep stands, by its trials, as the exit code of a command: ALL_DONE, SOME_FAILED or STOPPED."""
    statuses = {end.status for end in ends}
    if statuses & {"waiting", "running", "unfinished"}:
        return STOPPED
    return SOME_FAILED if statuses & {"failed", "unreadable"} else ALL_DONE

"""Plan a sweep: which trials are done, which are left. The trial folders say it; nothing else is remembered."""

import json
from dataclasses import dataclass
from pathlib import Path

from results.schema import EVALS, MANIFEST, TRIALS, TrialEnd, read_evals, trial_end
from rrm.checkpoint import write_atomically
from tune.spec import Cell, Sweep


@dataclass(frozen=True)
class PlannedTrial:
    """A trial of the sweep, where its folder is, how it stands and the step of its last evaluation."""

    cell: Cell
    folder: Path
    end: TrialEnd
    step: int

    def is_left(self, retry_failed: bool) -> bool:
        """Whether a run takes it up. A diverged trial would diverge again: it stays failed unless asked for."""
        if self.end.status == "failed":
            return retry_failed or not self.end.deterministic
        return self.end.status != "done"


def plan(sweep: Sweep) -> list[PlannedTrial]:
    """Every trial of the sweep as its folder stands now, in the order of the spec.

    Raises DamagedFileError if a folder's files cannot be read.
    """
    planned = []
    for trial_id, cell in sweep.trials.items():
        folder = sweep.folder / TRIALS / trial_id
        end = trial_end(folder, cell.config.train.steps)
        step = max(read_evals(folder / EVALS).column("step").to_pylist(), default=0)
        planned.append(PlannedTrial(cell, folder, end, step))
    return planned


def write_manifest(sweep: Sweep) -> None:
    """Say in the sweep's folder which arms, grid points and seeds stand for which trial, beside a copy of the spec."""
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
    manifest = {"sweep": sweep.spec.name, "baseline": sweep.spec.baseline, "cells": cells}
    sweep.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(sweep.folder / MANIFEST, json.dumps(manifest).encode())
    write_atomically(sweep.folder / "spec.yaml", sweep.text.encode())

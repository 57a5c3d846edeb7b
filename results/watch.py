"""What `rrm watch` knows of a storage: its sweeps, how each stands from second to second, and its page."""

import hashlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pandas as pd

from results.gather import SweepTables, gather
from results.page_items import csv_of, plain
from results.progress import told_by_driver, told_by_folders
from results.schema import MANIFEST, TABLES, TRIALS
from results.storage import Location, names_in, side_by_side
from results.trial_files import DamagedFileError, closed_alone, read_json
from results.trial_tables import trial_table
from results.view import TABLES_SHOWN, Live, view

FRESH_SECONDS = 5.0  # a sweep's page is made again at most so often, and
SHARE = 10  # takes at most a tenth of the time
LISTED_SECONDS = 5.0


@dataclass
class _Page:
    """The newest page of a sweep, and what it was made from."""

    tables: SweepTables | None = None
    shown: dict[str, Any] = field(default_factory=dict)
    version: str = ""
    made: float = 0.0
    took: float = 0.0
    error: str = ""


class WatchedSweep:
    """A sweep's folder, read again and again and never written to. Its methods may be called from several threads."""

    def __init__(self, folder: Location):
        self.folder = folder
        self._lock = threading.Lock()
        self._page = _Page()
        self._by_folders: tuple[float, dict[str, Any]] = (0.0, {})

    def progress(self) -> dict[str, Any]:
        """How every trial stands now, by trial id, and the run that trains them (None if none does).

        By what the run's driver wrote in the last minute; where there is no such driver, by the trials' folders.
        """
        told = told_by_driver(self.folder)
        if told is not None:
            return told
        read, found = self._by_folders
        if time.time() - read >= FRESH_SECONDS:
            found = told_by_folders(self.folder)
            self._by_folders = time.time(), found
        return found

    def at_a_glance(self) -> dict[str, Any]:
        """Its name, how many trials have each status, and its run."""
        try:
            told = self.progress()
        except (DamagedFileError, OSError) as error:
            return {"name": self.folder.name, "counts": {}, "run": None, "problem": str(error)}
        counts = Counter(trial["status"] for trial in told["trials"].values())
        return {"name": self.folder.name, "counts": dict(counts), "run": told["run"]}

    def page(self) -> _Page:
        """Its page, made anew if it is old; while one thread makes it, others get the one before."""
        page = self._page
        age = time.time() - page.made
        if page.version and age < max(FRESH_SECONDS, SHARE * page.took):
            return page
        if not self._lock.acquire(blocking=not page.version):
            return page
        try:
            if self._page is not page:
                return self._page
            self._page = self._make(page)
            return self._page
        finally:
            self._lock.release()

    def _make(self, before: _Page) -> _Page:
        started = time.time()
        try:
            tables = gather(self.folder, write=False)
        except (DamagedFileError, OSError) as error:
            return _Page(before.tables, before.shown, before.version, started, 0.0, str(error))
        version = _version(tables)
        if version == before.version:
            return _Page(before.tables, before.shown, version, started, time.time() - started)
        live = Live(f"api/sweeps/{quote(self.folder.name, safe='')}/tables")
        shown = plain(view(tables, live)) | {"version": version}
        return _Page(tables, shown, version, started, time.time() - started)

    def curve(self, trial_id: str) -> list[dict[str, float]]:
        """Clean accuracy of a trial on test by step, from its own folder. KeyError if the sweep has no such trial."""
        manifest = read_json(self.folder / MANIFEST) or {"cells": []}
        if trial_id not in {cell["trial_id"] for cell in manifest["cells"]}:
            raise KeyError(trial_id)
        evals = trial_table(self.folder / TRIALS / trial_id, "evals").to_pandas()
        clean = evals.loc[(evals.split == "test") & (evals.sigma == 0)]
        clean = clean.loc[clean.depth == clean.depth.min()]
        return [
            {"step": int(step), "accuracy": float(accuracy)}
            for step, accuracy in zip(clean.step, clean.exact_accuracy, strict=True)
        ]

    def csv(self, table: str) -> str:
        """A table of its page as CSV. KeyError if there is no such table."""
        if table not in TABLES_SHOWN:
            raise KeyError(table)
        tables = self.page().tables
        return csv_of(pd.DataFrame() if tables is None else getattr(tables, table))


class WatchedStorage:
    """All sweeps of a storage, a folder or s3://bucket/prefix."""

    def __init__(self, storage: Location):
        self.storage = storage
        self._sweeps: dict[str, WatchedSweep] = {}
        self._listed = 0.0

    def sweeps(self) -> dict[str, WatchedSweep]:
        """The sweeps by name, those that came since the last time too. Raises OSError."""
        if time.time() - self._listed >= LISTED_SECONDS:
            names = [name for name in names_in(self.storage) if name != TABLES]
            held = side_by_side(self.storage, lambda name: _is_sweep(self.storage / name), names)
            found = [name for name, is_sweep in zip(names, held, strict=True) if is_sweep]
            self._sweeps = {name: self._sweeps.get(name) or WatchedSweep(self.storage / name) for name in found}
            self._listed = time.time()
        return self._sweeps

    def overview(self) -> dict[str, Any]:
        """Every sweep at a glance."""
        sweeps = [sweep.at_a_glance() for sweep in self.sweeps().values()]
        count = "1 sweep" if len(sweeps) == 1 else f"{len(sweeps)} sweeps"
        return {"now": time.time(), "said": f"{count} in {self.storage}", "sweeps": sweeps}


def _is_sweep(folder: Location) -> bool:
    """Whether a folder holds a sweep; one that is closed to this user may, and says so at a glance."""
    try:
        with closed_alone(folder):
            return (folder / MANIFEST).exists()
    except DamagedFileError:
        return True


def _version(tables: SweepTables) -> str:
    """What changes when the page would: the trials' files, and what could not be read."""
    digest = hashlib.sha256(repr((tables.problems, tables.baseline)).encode())
    for row in tables.trials[["trial_id", "status", "step", "source"]].itertuples(index=False):
        digest.update(repr(tuple(row)).encode())
    return digest.hexdigest()[:16]

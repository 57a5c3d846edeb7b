"""What `rrm watch` knows of a storage: its sweeps, how each stands from second to second, and its page."""

import asyncio
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

from results.page_maker import MadePage, PageMaker
from results.progress import told_by_driver, told_by_folders
from results.schema import MANIFEST, TABLES, TRIALS
from results.storage import Location, names_in, side_by_side
from results.trial_files import DamagedFileError, closed_alone, read_json
from results.trial_tables import trial_table

FRESH_SECONDS = 5.0  # a sweep's page is made again at most so often, and
SHARE = 10  # takes at most a tenth of the time
LISTED_SECONDS = 5.0


class WatchedSweep:
    """A sweep's folder, read again and again and never written to.

    Its methods may be called from several threads, those that are awaited from one event loop.
    """

    def __init__(self, folder: Location, maker: PageMaker):
        self.folder, self._maker = folder, maker
        self._page = MadePage()
        self._making: asyncio.Task[None] | None = None
        self._folders_lock = threading.Lock()
        self._by_folders: dict[str, Any] = {"trials": {}, "run": None}
        self._read, self._took = 0.0, 0.0

    def progress(self) -> dict[str, Any]:
        """How every trial stands now, by trial id, and the run that trains them (None if none does).

        By what the run's driver wrote in the last minute; where there is no such driver, by the trials' folders, which
        one thread reads while the others get what was read before.
        """
        told = told_by_driver(self.folder)
        if told is not None:
            return told
        if time.time() - self._read >= max(FRESH_SECONDS, SHARE * self._took) and self._folders_lock.acquire(
            blocking=not self._read
        ):
            try:
                started = time.time()
                self._by_folders = told_by_folders(self.folder, self._by_folders["trials"])
                self._read, self._took = time.time(), time.time() - started
            finally:
                self._folders_lock.release()
        return self._by_folders

    def at_a_glance(self) -> dict[str, Any]:
        """Its name, how many trials have each status, and its run."""
        try:
            told = self.progress()
        except (DamagedFileError, OSError) as error:
            return {"name": self.folder.name, "counts": {}, "run": None, "problem": str(error)}
        counts = Counter(trial["status"] for trial in told["trials"].values())
        return {"name": self.folder.name, "counts": dict(counts), "run": told["run"]}

    async def page(self) -> MadePage:
        """Its page as it was last made: the first is waited for, an old one is made anew meanwhile."""
        old = time.time() - self._page.made >= max(FRESH_SECONDS, SHARE * self._page.took)
        if old and (self._making is None or self._making.done()):
            self._making = asyncio.create_task(self._make())
        if not self._page.version and self._making:
            await asyncio.shield(self._making)  # which others wait for, too
        return self._page

    async def _make(self) -> None:
        page = self._page
        try:
            made = await self._maker.page(self.folder, page.version)
        except (DamagedFileError, KeyError, OSError) as error:
            made = MadePage(made=time.time(), error=str(error))
        same = made.error or made.version == page.version
        self._page = replace(page, made=made.made, took=made.took, error=made.error) if same else made

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

    async def csv(self, table: str) -> str:
        """A table of its page as CSV. KeyError if there is no such table."""
        return await self._maker.csv(self.folder, table)


class WatchedStorage:
    """All sweeps of a storage, a folder or s3://bucket/prefix."""

    def __init__(self, storage: Location):
        self.storage = storage
        self._maker = PageMaker()
        self._sweeps: dict[str, WatchedSweep] = {}
        self._listed = 0.0

    def sweeps(self) -> dict[str, WatchedSweep]:
        """The sweeps by name, those that came since the last time too. Raises OSError."""
        if time.time() - self._listed >= LISTED_SECONDS:
            names = [name for name in names_in(self.storage) if name != TABLES]
            held = side_by_side(self.storage, lambda name: _is_sweep(self.storage / name), names)
            found = [name for name, is_sweep in zip(names, held, strict=True) if is_sweep]
            known = self._sweeps
            self._sweeps = {name: known.get(name) or WatchedSweep(self.storage / name, self._maker) for name in found}
            self._listed = time.time()
        return self._sweeps

    def close(self) -> None:
        """End the process that makes their pages."""
        self._maker.close()

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

"""Makes the pages of `rrm watch` in a process of its own: one may take seconds and hundreds of megabytes."""

import asyncio
import ctypes
import hashlib
import json
import multiprocessing
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from results.patience import impatiently
from results.schema import LOOKS, MANIFEST
from results.storage import Location, read_bytes
from results.trial_files import DamagedFileError

CONTEXT = multiprocessing.get_context("spawn")
M_ARENA_MAX = -8
ANSWER_SECONDS = 10.0  # for which a storage that has been lost is waited for: then the reader is told
KEPT_BYTES = 250_000_000  # a process that has grown larger than that ends, and the next page has a new one


@dataclass(frozen=True)
class MadePage:
    """The page of a sweep as JSON, its version ("" before the first), when (seconds since 1970) and in how many seconds
    it was made, and why it could not be."""

    json: bytes = b""
    version: str = ""
    made: float = 0.0
    took: float = 0.0
    error: str = ""


class PageMaker:
    """A process that makes one page at a time, from tables that it keeps in a folder of its own.

    Who waits for it holds no thread: one alone asks it. It is started when it is first needed, and again if it died.
    """

    def __init__(self) -> None:
        self._asking = ThreadPoolExecutor(1, "pages")
        self._process: SpawnProcess | None = None
        self._folder: Path | None = None
        self._closed = False

    async def page(self, folder: Location, version: str) -> MadePage:
        """The page of the sweep in `folder`; without its JSON if it is of that version. Raises what `csv` does."""
        return await asyncio.get_running_loop().run_in_executor(self._asking, self._ask, _page, folder, version)

    async def csv(self, folder: Location, table: str) -> str:
        """A table of a sweep as CSV. Raises KeyError if there is no such table, DamagedFileError, OSError."""
        return await asyncio.get_running_loop().run_in_executor(self._asking, self._ask, _csv, folder, table)

    def close(self) -> None:
        """End the process, in the middle of a page if need be."""
        self._closed, process = True, self._process
        if process is not None:
            process.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, what: Callable[..., Any], *arguments: Any) -> Any:
        try:
            answer, error = self._answered(what, *arguments)
        except (EOFError, OSError):  # it died, by this or before it was asked
            answer, error = self._answered(what, *arguments, anew=True)
        if error is not None:
            raise error
        return answer

    def _answered(self, what: Callable[..., Any], *arguments: Any, anew: bool = False) -> tuple[Any, Exception | None]:
        if anew or self._process is None:
            self._process = self._started()
        try:
            self._pipe.send((what, arguments))
            answer, error, ends = self._pipe.recv()
        except (EOFError, OSError) as lost:
            raise OSError("the process that makes pages has died; is there memory left?") from lost
        if ends:
            self._process.join()
            self._process = None
        return answer, error

    def _started(self) -> SpawnProcess:
        if self._closed:
            raise OSError("rrm watch is ending")
        self._folder = self._folder or Path(tempfile.mkdtemp(prefix="rrm-watch-"))
        self._pipe, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_answer, args=(theirs, self._folder), daemon=True)
        process.start()
        theirs.close()
        return process


def _answer(pipe: Connection, tables_in: Path) -> None:
    """Do what is asked for until nobody asks, or until too much memory is held."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)  # threads with a heap each would keep what pages are made of
    ends = False
    while not ends:
        try:
            what, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            with impatiently(ANSWER_SECONDS):
                answer, error = what(tables_in, *arguments), None
        except (KeyError, DamagedFileError, OSError) as raised:
            answer, error = None, raised
        except Exception as raised:  # noqa: BLE001 - whatever odd files made of it: it costs its own page
            answer, error = None, OSError(f"{type(raised).__name__}: {raised}")
        ends = psutil.Process().memory_info().rss > KEPT_BYTES
        pipe.send((answer, error, ends))


def _page(tables_in: Path, folder: Location, version: str) -> MadePage:
    from results.gather import gather
    from results.page_items import plain
    from results.view import Live, view

    started = time.time()
    tables = gather(folder, tables_in=tables_in)
    asked = [b"", b""]
    for i, name in enumerate((MANIFEST, LOOKS)):
        with suppress(OSError):  # not there, or closed: the tables' problems tell of it
            asked[i] = read_bytes(folder / name)
    now = _version(tables, asked)
    if now == version:
        return MadePage(version=now, made=started, took=time.time() - started)
    live = Live(f"api/sweeps/{quote(folder.name, safe='')}/tables")
    shown = json.dumps(plain(view(tables, live)) | {"version": now})
    return MadePage(shown.encode(), now, started, time.time() - started)


def _csv(tables_in: Path, folder: Location, table: str) -> str:
    from results.gather import gather
    from results.page_items import csv_of
    from results.view import TABLES_SHOWN

    if table not in TABLES_SHOWN:
        raise KeyError(table)
    return csv_of(getattr(gather(folder, tables_in=tables_in), table))


def _version(tables: Any, asked: list[bytes]) -> str:
    """What changes when the page would: what is `asked`, the trials' files, and what could not be read."""
    digest = hashlib.sha256(repr(tables.problems).encode())
    for part in asked:
        digest.update(part)
    for row in tables.trials[["trial_id", "status", "step", "source"]].itertuples(index=False):
        digest.update(repr(tuple(row)).encode())
    return digest.hexdigest()[:16]

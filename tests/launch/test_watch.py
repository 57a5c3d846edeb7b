"""`rrm watch` as a user runs it: a page that goes on by itself, and gives nothing that it should not."""

import asyncio
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import browser
import pytest
from psutil import STATUS_ZOMBIE, Process
from sweep_folder import write_sweep

from launch.cli import main
from results.page_maker import MadePage, PageMaker, _answer, _page
from results.schema import PROGRESS
from results.watch import WatchedSweep

needs_chromium = pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium here")
TABLE = "[...document.querySelectorAll('[role=region] table')].find(one => one.textContent.includes('seed'))"
LONG = 150 * "y"
ODD = f"x' & <b>\u05e9\u05dc\u05d5\u05dd{LONG}"
WATCH = """
import sys
from launch.cli import main
from results import page_maker, watch

page_maker.ANSWER_SECONDS, watch.FRESH_SECONDS, watch.LISTED_SECONDS, watch.SHARE = 2.0, 0.5, 0.5, 1
sys.exit(main())
"""


@contextmanager
def watching(storage: Path | str, *options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """The URL that `rrm watch` prints, and its process; it looks and gives up several times as soon."""
    command = [sys.executable, "-c", WATCH, "watch", str(storage), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("Watching "), said
        yield said.rpartition(" (")[0].rpartition(" ")[2], process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


def get(url: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def left_waiting(url: str) -> threading.Thread:
    """A thread that asks, and may be left without an answer."""

    def ask() -> None:
        with suppress(OSError):
            get(url)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread


def write_progress(folder: Path, step: int, status: str = "running", heard: float = 0.0) -> None:
    """What a driver would write of trial 1, which trains, beside those of the folder."""
    cells = json.loads((folder / "sweep.json").read_text())["cells"]
    trials: dict[str, Any] = {cell["trial_id"]: {"status": "done", "step": 1200, "steps": 1200} for cell in cells}
    own = {"status": status, "step": step, "steps": 1200, "rate": 2.5, "heard": time.time() - heard}
    trials[cells[1]["trial_id"]] = own | ({"reason": "the training loss is NaN"} if status == "failed" else {})
    content = {"written": time.time(), "ended": False, "left": 100.0, "trials": trials}
    scratch = folder / "scratch"
    scratch.write_text(json.dumps(content))
    scratch.replace(folder / PROGRESS)


@pytest.fixture
def storage(tmp_path) -> Path:
    """Two sweeps, one underway, and files that are nobody's business."""
    small = {"seeds": 2, "evaluations": 3, "diagnosed": 0, "sigmas": (0.1,)}
    folder = tmp_path / "runs"
    write_sweep(
        folder / "underway",
        {"baseline": 0.0, "multi": 0.5},
        states=lambda n: "unfinished" if n == 1 else "done",
        **small,
    )
    arms, points = {"baseline": 0.0, 200 * "y": 0.5}, (f"{200 * 'q'}=1", "q=2")
    write_sweep(folder / ODD, arms, points=points, states=lambda n: "failed" if n > 3 else "done", **small)
    (folder / "secret.txt").write_text("secret")
    (tmp_path / "sweep.json").write_text('{"baseline": "b", "cells": []}')
    return folder


def hurry(page: browser.Page) -> None:
    """Have a page ask ten times as often."""
    page.evaluate("{ const later = setTimeout; setTimeout = (what, ms) => later(what, what === poll ? ms / 10 : ms) }")


def polled(page: browser.Page) -> None:
    """Wait until the page has asked twice more, and been answered."""
    before, end = len(page.requests), time.monotonic() + 60
    while len(page.requests) < before + 3:
        assert time.monotonic() < end
        page.evaluate("0")  # what came is noted with an answer
        time.sleep(0.1)


def focus(page: browser.Page, id: str) -> None:
    page.evaluate(f"document.getElementById({json.dumps(id)}).focus()")
    assert page.evaluate("document.activeElement.id") == id


def wait(page: browser.Page, condition: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        time.sleep(0.1)


class Address:
    """A URL in the shape of a path that browser.Page opens."""

    def __init__(self, url: str):
        self.url = url

    def as_uri(self) -> str:
        return self.url


@needs_chromium
def test_a_running_sweep_advances_without_a_reload_and_a_lost_source_is_said(storage, tmp_path):
    write_progress(storage / "underway", 300)
    with watching(storage) as (url, process), browser.Page(Address(url), 1400) as page:  # pyright: ignore[reportArgumentType]
        hurry(page)
        wait(page, "document.querySelectorAll('.cards li').length === 2")
        assert page.evaluate("[...document.querySelectorAll('.cards a')].map(a => a.textContent)") == ["underway", ODD]
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        focus(page, "sweep-underway")
        polled(page)
        page.press("Enter")
        wait(page, "document.querySelector('.trial.running')?.title.includes('step 300 of 1200')")
        assert page.evaluate("document.querySelector('section').id") == "trials"
        log = f"rrm logs underway --storage {storage}"
        running = page.evaluate("document.querySelector('.trial.running').id")
        focus(page, running)
        page.press("Enter")
        wait(page, f"document.querySelector('dialog')?.textContent.includes({json.dumps(log)})")
        write_progress(storage / "underway", 450)
        wait(page, "document.querySelector('.trial.running').title.includes('step 450 of 1200')")
        page.press("Escape")
        assert page.evaluate("document.activeElement.id") == running
        page.call("Emulation.setDeviceMetricsOverride", width=390, height=900, deviceScaleFactor=1, mobile=False)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        write_progress(storage / "underway", 600, heard=300)
        wait(page, "document.querySelector('.trial.running.stalled')?.title.includes('step 600 of 1200')")
        write_progress(storage / "underway", 600, status="failed")
        wait(page, "document.querySelector('#squares .bad')?.textContent.includes('the training loss is NaN')")
        page.evaluate("{ const r = document.getElementById('squares-rows'); r.style.height = '30px'; r.scrollTop = 9 }")
        focus(page, running.replace("square", "details"))
        polled(page)
        assert page.evaluate("document.activeElement.id") == running.replace("square", "details")
        assert page.evaluate("document.getElementById('squares-rows').scrollTop") == 9
        assert "sweep=underway" in page.evaluate("location.hash")
        # A page of a new version is as its reader has left it: here, sorted by seed, the last first.
        seed = f"[...{TABLE}.tHead.rows[0].cells].findIndex(cell => cell.textContent === 'seed')"
        seeds = f"[...{TABLE}.tBodies[0].rows].map(row => row.cells[{seed}].textContent)"
        page.evaluate(f"[0, 1].forEach(() => {TABLE}.tHead.rows[0].cells[{seed}].firstChild.click())")
        assert page.evaluate(seeds) == ["1", "1", "0", "0"]
        page.evaluate(f"window.before = {TABLE}")
        focus(page, "boards-puzzle")  # a list that is open is not taken away
        of_list = "document.activeElement.dispatchEvent(new Event('{}', {{bubbles: true}}))"
        page.evaluate(f"{of_list.format('pointerdown')}; used += 1e6 * (used > 0)")
        version = page.evaluate("view.version")
        next((storage / "underway" / "trials").glob("*/done.json")).unlink()
        end = time.monotonic() + 60
        while json.loads(get(f"{url}api/sweeps/underway/progress")[1])["version"] == version:
            assert time.monotonic() < end
            time.sleep(0.2)
        polled(page)
        assert page.evaluate("window.before.isConnected")
        page.evaluate(of_list.format("change"))
        wait(page, "!window.before.isConnected")
        assert page.evaluate(seeds) == ["1", "1", "0", "0"]
        used_as_a_report_is(page, tmp_path)
        assert page.evaluate(seeds) == ["0", "0"]
        # The address leads to another sweep, and Back from it.
        page.evaluate(f"location.hash = 'sweep=' + encodeURIComponent({json.dumps(ODD)})")
        at = "document.querySelector('.trial') !== null && document.querySelector('h1').textContent"
        wait(page, f"{at} === {json.dumps(ODD)}")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate("document.querySelectorAll('#squares > div > div > ul li').length") == 3
        assert page.evaluate("document.getElementById('more-trouble').textContent").startswith("1 more")
        page.evaluate("history.back()")
        wait(page, f"{at} === 'underway'")
        assert page.console == []
        assert {request.split("/")[2] for request in page.requests if request.startswith("http")} == {url.split("/")[2]}
        # A sweep that went, or never was, is said once, and all others are a step away.
        shutil.rmtree(storage / "underway")
        wait(page, "document.getElementById('lost').textContent.startsWith('underway: no such sweep')")
        assert page.evaluate("document.querySelectorAll('.trial').length")
        page.evaluate("location.hash = 'sweep=nowhere'")
        wait(page, "document.getElementById('lost').textContent.startsWith('nowhere: no such sweep')")
        polled(page)
        assert len(page.console) == 2
        focus(page, "to-all")
        page.press("Enter")
        wait(page, "document.querySelectorAll('.cards li').length === 1")
        assert page.evaluate("document.getElementById('lost').hidden")
        # What was answered is said where it is no page.
        (storage / ODD / "sweep.json").write_text("{")
        page.evaluate(f"location.hash = 'sweep=' + encodeURIComponent({json.dumps(ODD)})")
        wait(page, "document.getElementById('lost').textContent.includes('sweep.json: ')")
        assert not page.evaluate("document.getElementById('lost').textContent.startsWith('No answer')")
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
        page.evaluate("heard -= 10_000")
        wait(page, "document.getElementById('lost').textContent.startsWith('No answer from rrm watch')")


def used_as_a_report_is(page: browser.Page, folder: Path) -> None:
    """Hover, filter, move the slider and save, on the live page of a sweep."""
    page.evaluate("document.getElementById('figure-compute').scrollIntoView()")
    dot = "document.querySelector('#figure-compute path[aria-roledescription=point]')"
    wait(page, f"{dot} !== null")
    x, y = page.evaluate(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({dot}.getBoundingClientRect())")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    wait(page, "document.getElementById('vg-tooltip-element')?.textContent.includes('arm')")
    slider = page.evaluate("document.querySelector('#boards input').id")
    page.evaluate(f"document.getElementById('{slider}').value = 1")
    page.evaluate(f"document.getElementById('{slider}').oninput()")
    focus(page, "filter-seed")
    page.press("ArrowDown")
    assert page.evaluate("location.hash").endswith("seed=0")
    assert page.evaluate("document.activeElement.id") == "filter-seed"
    assert page.evaluate("document.querySelector('#boards output').textContent") == "ACT step 1 of 4"
    for id in ("file-underway-trials.csv", "figure-compute-svg", "figure-compute-png"):
        focus(page, id)
        page.press("Enter")
    assert browser.downloaded(folder / "underway-trials.csv").startswith(b"sweep,arm,")
    assert b"Accuracy against compute" in browser.downloaded(folder / "underway-compute.svg")
    assert browser.downloaded(folder / "underway-compute.png").startswith(b"\x89PNG")


def test_it_reads_only_what_is_a_sweep_of_the_storage_and_writes_nothing(storage):
    leftover = storage / "underway" / ".trials.parquet.0.tmp"  # of a writer that was killed long ago
    leftover.touch()
    os.utime(leftover, (0, 0))
    before = sorted(path.relative_to(storage) for path in storage.rglob("*"))
    with watching(storage) as (url, _):
        status, body = get(f"{url}api/sweeps")
        assert status == 200
        assert [sweep["name"] for sweep in json.loads(body)["sweeps"]] == sorted(["underway", ODD])
        status, body = get(f"{url}api/sweeps/underway")
        assert (status, json.loads(body)["title"]) == (200, "underway")
        trial = json.loads((storage / "underway" / "sweep.json").read_text())["cells"][0]["trial_id"]
        assert json.loads(get(f"{url}api/sweeps/underway/trials/{trial}")[1])[-1]["step"] == 1200
        assert get(f"{url}api/sweeps/underway/tables/trials.csv")[1].startswith(b"sweep,arm,")
        for path in (
            *("..", "%2e%2e", "..%2f..", "%2e%2e%2f", "secret.txt", "underway%2f..%2f..", "underway/../..", "tables"),
            *("underway/trials/..%2f..%2f..%2fsecret.txt", "underway/tables/..%2f..%2fsecret.txt", "underway/trials/"),
            *("underway/tables/secrets.csv", "../../sweep.json", "underway/trials/%00"),
        ):
            status, body = get(f"{url}api/sweeps/{path}")
            assert status in (400, 404), path
            assert b"secret" not in body.replace(b"secret.txt", b"").replace(b"secrets", b""), path
        assert get(f"{url}api/sweeps", Host="rebound.example")[0] == 403
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert answer.headers["Set-Cookie"] is None
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert sorted(path.relative_to(storage) for path in storage.rglob("*")) == before


def test_another_address_has_a_token_in_its_url(storage):
    with watching(storage, "--host", "0.0.0.0") as (url, _):
        place, token = url.rstrip("/").rpartition("/")[::2]
        assert len(token) >= 32
        assert place.startswith(f"http://{platform.node()}:")  # a link for another machine
        here = place.replace(platform.node(), "127.0.0.1")
        assert get(f"{here}/{token}/api/sweeps")[0] == 200
        for without in ("/", "/api/sweeps", "/x/api/sweeps", f"/{token[:-1]}/api/sweeps"):
            assert get(here + without)[0] == 404


def test_a_bucket_is_watched_as_a_folder_is(storage, bucket, s3_server):
    from pyarrow import fs

    s3 = fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"])
    fs.copy_files(str(storage / "underway"), f"{bucket.removeprefix('s3://')}/p/underway", destination_filesystem=s3)
    with watching(f"{bucket}/p") as (url, _):
        (sweep,) = json.loads(get(f"{url}api/sweeps")[1])["sweeps"]
        assert (sweep["name"], sweep["counts"]) == ("underway", {"done": 3, "unfinished": 1})
        assert json.loads(get(f"{url}api/sweeps/underway")[1])["title"] == "underway"
        s3_server.stop()
        try:
            said = get(f"{url}api/sweeps")[1]  # not after the minutes that a training waits
        finally:
            s3_server.start()
        assert b"S3 cannot be reached; see AWS_ENDPOINT_URL" in said


def maker_of(process: subprocess.Popen) -> Process:
    living = [one for one in Process(process.pid).children() if one.status() != STATUS_ZOMBIE]
    (maker,) = (one for one in living if "spawn_main" in " ".join(one.cmdline()))
    return maker


def test_pages_are_made_by_a_process_that_may_die_and_that_nobody_waits_for(storage):
    with watching(storage) as (url, process):
        whole = get(f"{url}api/sweeps/underway")[1]
        maker = maker_of(process)
        maker.kill()
        while maker.status() != STATUS_ZOMBIE:
            time.sleep(0.05)
        assert get(f"{url}api/sweeps/underway/tables/trials.csv")[1].startswith(b"sweep,arm,")
        assert get(f"{url}api/sweeps/underway")[1] == whole
        maker_of(process).suspend()
        waits = left_waiting(f"{url}api/sweeps/underway/tables/evals.csv")
        time.sleep(1)
        assert waits.is_alive()
        # Many who wait for a first page hold nothing that others need.
        for _ in range(40):
            left_waiting(f"{url}api/sweeps/{quote(ODD, safe='')}")
        time.sleep(1)
        assert get(f"{url}assets/style.css")[0] == get(f"{url}api/sweeps")[0] == 200
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


class SlowMaker(PageMaker):
    """Makes version after version, each once it may."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may = asyncio.Event()

    async def page(self, folder, version):
        self.asked.append(version)
        await self.may.wait()
        return MadePage(b"{}", f"{len(self.asked)}", time.time(), 0.0)


def test_the_first_page_is_made_once_for_all_and_an_old_one_is_given_while_it_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("results.watch.FRESH_SECONDS", 0.0)

    async def watched() -> None:
        maker = SlowMaker()
        sweep = WatchedSweep(tmp_path, maker)
        first = [asyncio.create_task(sweep.page()) for _ in range(9)]
        await asyncio.sleep(0)
        maker.may.set()
        assert {page.version for page in await asyncio.gather(*first)} == {"1"}
        maker.may.clear()
        for _ in range(3):
            assert (await asyncio.wait_for(sweep.page(), 20)).version == "1"
            await asyncio.sleep(0)
        assert maker.asked == ["", "1"]
        maker.may.set()
        while (await sweep.page()).version == "1":
            await asyncio.sleep(0)

    asyncio.run(watched())


def test_a_page_is_of_another_version_once_something_else_is_asked(tmp_path):
    folder = tmp_path / "s"
    write_sweep(folder, {"baseline": 0.0, "multi": 0.5}, seeds=2, evaluations=2, diagnosed=0, sigmas=(0.1,))
    version = _page(tmp_path / "own", folder, "").version
    assert _page(tmp_path / "own", folder, version).json == b""
    (folder / "sweep.json").write_text(json.dumps(json.loads((folder / "sweep.json").read_text()) | {"margin": 0.3}))
    wider = _page(tmp_path / "own", folder, version).version
    (folder / "looks.json").write_text('{"looks": []}')
    assert len({version, wider, _page(tmp_path / "own", folder, wider).version}) == 3
    (folder / "looks.json").unlink()
    os.mkfifo(folder / "looks.json")
    assert b"looks.json" in _page(tmp_path / "own", folder, "").json  # a problem, and a page


def test_whatever_a_page_fails_by_is_told_and_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("results.page_maker.M_ARENA_MAX", 0)  # no such option
    monkeypatch.setattr("results.page_maker.KEPT_BYTES", float("inf"))
    asked = [(bytes.decode, ()), (Path.exists, ())]  # of the folder of tables
    told = []

    class Pipe:
        def recv(self):
            if not asked:
                raise EOFError
            return asked.pop()

        def send(self, answer):
            told.append(answer)

    _answer(Pipe(), tmp_path)  # pyright: ignore[reportArgumentType]
    (there, none, _), (nothing, error, _) = told
    assert (there, none, nothing) == (True, None, None)
    assert str(error).startswith("TypeError: ")


def test_bad_input_is_one_message(tmp_path, capsys):
    assert main(["watch", str(tmp_path / "none")]) == 2
    assert f"{tmp_path}/none: no such folder; give the storage of a sweep" in capsys.readouterr().err
    for port in ("70000", "-1", "x"):
        assert main(["watch", str(tmp_path), f"--port={port}"]) == 2
        assert capsys.readouterr().err.endswith(f"argument --port: '{port}' is no port; give 0 to 65535\n")

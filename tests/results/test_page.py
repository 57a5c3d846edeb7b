"""The report in a real browser: at two widths, light and dark, used as a reader would."""

import time
from pathlib import Path

import browser
import pytest
from sweep_folder import write_sweep

from results.gather import gather
from results.report import vega, write_report

needs_chromium = pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium here")
LONG = 200 * "y"
ARMS = {"baseline": 0.0, "single": 0.2, "<b>multi</b>": 0.6, LONG: 0.4}
POINT = f"{200 * 'q'}=0.1"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The page of a sweep of four arms and two seeds, one of whose trials failed; long names are among its own."""
    folder = tmp_path_factory.mktemp("page") / (200 * "s")
    write_sweep(
        *(folder, ARMS),
        **{"points": (POINT,), "seeds": 2, "evaluations": 4, "diagnosed": 8, "depths": (8,)},
        states=lambda n: "failed" if n == 3 else "done",
    )
    return write_report(gather(folder), folder / "report.html")


def drawn(page: browser.Page, figure: str) -> None:
    """Wait until a figure that is scrolled to is drawn."""
    page.evaluate(f"document.getElementById('{figure}').scrollIntoView()")
    wait(page, f"document.querySelector('#{figure} svg') !== null")


def wait(page: browser.Page, condition: str, seconds: float = 30) -> None:
    """Wait until a condition holds on a page."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        time.sleep(0.05)


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1400, True)])
def test_it_fits_sorts_filters_hovers_and_is_quiet(report, tmp_path, width, dark):
    with browser.Page(report, width, dark) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")
        assert page.evaluate("document.querySelectorAll('main b').length") == 0  # a name is text
        drawn(page, "figure-differences")
        texts = "[...document.querySelectorAll('#figure-differences text')]"
        assert min(page.evaluate(f"{texts}.map(t => parseFloat(getComputedStyle(t).fontSize))")) >= 10
        assert page.evaluate("document.documentElement.scrollWidth") == width

        # The answer fits the window, a phone's too.
        verdicts = "[...document.querySelectorAll('#table-verdicts [data-label=verdict]')]"
        assert 0 < max(page.evaluate(f"{verdicts}.map(cell => cell.getBoundingClientRect().right)")) <= width
        heights = "[...document.querySelectorAll('#table-verdicts tbody tr')].map(row => row.offsetHeight)"
        assert max(page.evaluate(heights)) < 150

        # The answer's verdict leads to its evidence.
        page.evaluate("document.querySelector('#table-verdicts td a').click()")
        wait(page, "location.hash.includes('at=figure-')")

        # A table sorts, both ways.
        page.evaluate("document.getElementById('table-comparison').open = true")
        head = "[...document.querySelectorAll('#table-comparison th')].find(h => h.textContent === 'difference')"
        cells = f"[...{head}.closest('table').tBodies[0].rows].map(r => r.cells[{head}.cellIndex].dataset.key)"
        before = [float(key) for key in page.evaluate(cells) if key]
        page.evaluate(f"{head}.firstChild.click()")
        assert [float(key) for key in page.evaluate(cells) if key] == sorted(before)
        page.evaluate(f"{head}.firstChild.click()")
        assert [float(key) for key in page.evaluate(cells) if key] == sorted(before, reverse=True)

        # All of a legend is in view.
        drawn(page, "figure-curves")
        names = "[...document.querySelectorAll('#figure-curves .role-legend-label text')]"
        assert len(page.evaluate(f"{names}.map(t => t.textContent)")) == len(ARMS)
        assert max(page.evaluate(f"{names}.map(t => t.getBoundingClientRect().right)")) <= width

        # A filter lives in the URL, leaves the baseline, and reaches tables and figures; the reader stays in place.
        for name in ("single", LONG):
            page.evaluate(f"document.getElementById('filter-arm-{name}').focus()")
            page.press(" ")
            assert page.evaluate("document.activeElement.id") == f"filter-arm-{name}"
        assert "arm=%3Cb%3Emulti" in page.evaluate("location.hash")
        assert page.evaluate("document.getElementById('table-comparison').open")
        left = [float(key) for key in page.evaluate(cells) if key]
        assert left == sorted(left, reverse=True)
        rows = "[...document.querySelectorAll('#table-comparison tbody tr')]"
        assert set(page.evaluate(f"{rows}.map(r => r.cells[0].textContent)")) == {"<b>multi</b>"}
        drawn(page, "figure-curves")
        names = page.evaluate("document.querySelector('#figure-curves svg').textContent")
        assert "baseline" in names
        strokes = "[...document.querySelectorAll('#figure-curves .mark-line path')].map(p => p.getAttribute('stroke'))"
        assert len(set(page.evaluate(strokes))) == 2  # the arm's, and the baseline's

        # A point's filter leaves an arm that ignores a part of the grid at every point that agrees with it.
        page.evaluate("state.append('point', 'optim.lr=1 perturb.sigma=0.1')")
        owns = ("optim.lr=1", "optim.lr=10", "optim.lr=1 perturb.sigma=0.1", "optim.lr=1 perturb.sigma=0.10", "")
        fit = [page.evaluate(f"fits({{arm: '<b>multi</b>', point: '{own}'}})") for own in owns]
        assert fit == [True, False, True, False, True]
        page.evaluate("state.delete('point')")

        # The slider shows the model think.
        page.evaluate("document.getElementById('boards').scrollIntoView()")
        said = "document.querySelector('#boards output').textContent"
        assert page.evaluate(said) == "ACT step 4 of 4"
        move = "const s = document.querySelector('#boards input'); s.value = 1; s.dispatchEvent(new Event('input'))"
        page.evaluate(f"{{ {move} }}")
        assert page.evaluate(said) == "ACT step 1 of 4"
        assert page.evaluate("document.querySelectorAll('.board').length") == 4
        tops = page.evaluate("[...document.querySelectorAll('.grid')].map(grid => grid.getBoundingClientRect().top)")
        assert tops[0] == tops[1]  # side by side, however long their headings are

        # A trial's square opens what is known of it, and closed, that leads back.
        page.evaluate("document.querySelector('.trial').focus()")
        page.press("Enter")
        wait(page, "document.querySelector('dialog svg') !== null")
        page.press("Escape")
        assert page.evaluate("document.activeElement === document.querySelector('.trial')")

        # Where there is no curve, or a driver's clock is ahead, it says what is so.
        page.evaluate("view.curves = null")
        page.press("Enter")
        wait(page, "document.querySelector('dialog')?.textContent.includes('Its curve cannot be shown: a report of')")
        page.press("Escape")
        ahead = "describe({arm: 'a', seed: 0, status: 'running', step: 1, steps: 2, heard: now() + 30})"
        assert page.evaluate(ahead).endswith("last heard 0 s ago")

        # Hovering tells which trial.
        drawn(page, "figure-compute")
        spot = page.evaluate(
            "(() => { const b = document.querySelector('#figure-compute path[aria-roledescription=point]')"
            ".getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=spot[0], y=spot[1])
        wait(page, "(document.getElementById('vg-tooltip-element') || {}).textContent?.includes('arm')")
        gone = "!document.getElementById('vg-tooltip-element').classList.contains('visible')"
        assert page.evaluate(f"keepingPlace(render), {gone}")  # with the mark that it was of

        # What a reader chose of a figure stays on a page that came anew, as those of a live one do.
        seeds = "document.querySelector('#figure-curves .vega-bind input')"
        drawn(page, "figure-curves")
        page.evaluate(f"{seeds}.click()")
        page.evaluate(f"view = JSON.parse(document.getElementById('view').textContent), window.before = {seeds}")
        page.evaluate("keepingPlace(render)")
        drawn(page, "figure-curves")
        assert page.evaluate(f"{seeds} !== window.before && {seeds}.checked")
        page.screenshot(tmp_path / "report.png")
        assert page.console == []
        assert {url.partition("#")[0] for url in page.requests if not url.startswith(("data:", "blob:"))} == {
            report.as_uri()
        }
    assert (tmp_path / "report.png").stat().st_size > 20_000


@needs_chromium
def test_it_gives_its_tables_as_csv_and_its_figures_as_pictures(report, tmp_path):
    stem = 60 * "s"
    with browser.Page(report, 1400, dark=True) as page:
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        undrawn = "[...document.querySelectorAll('figure')].filter(one => !one.querySelector('svg')).length"
        assert page.evaluate(undrawn) > 0  # what is far below the window
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(undrawn) == 0  # at once: a browser prints what is there then
        files = page.evaluate("[...document.querySelectorAll('#downloads a')].map(a => a.download)")
        assert f"{stem}-evals.csv" in files
        assert f"{stem}-windows.csv" not in files  # it has no rows
        for id in (f"file-{stem}-trials.csv", "figure-curves-svg", "figure-curves-png"):
            page.evaluate(f"document.getElementById('{id}').focus()")
            page.press("Enter")
        table, svg, png = (
            browser.downloaded(tmp_path / f"{stem}-{name}") for name in ("trials.csv", "curves.svg", "curves.png")
        )
    lines = table.decode().splitlines()
    assert lines[0].startswith("sweep,arm,")
    assert len(lines) == 1 + len(ARMS) * 2
    assert b"Clean accuracy on test" in svg
    assert b'fill="white"' in svg
    assert png.startswith(b"\x89PNG")


def test_the_page_of_eighty_trials_is_small(tmp_path):
    write_sweep(tmp_path / "s", {f"arm{i}": 0.1 * i for i in range(8)}, evaluations=6, diagnosed=8, sigmas=(0.1,))
    path = write_report(gather(tmp_path / "s"), tmp_path / "report.html")
    assert path.stat().st_size < 3_000_000


def test_its_library_is_bundled_once_a_node(tmp_path, monkeypatch):
    monkeypatch.setenv("RRM_CACHE", str(tmp_path / "cache"))
    assert vega.__wrapped__() == vega()
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_text("kept")
    assert vega.__wrapped__() == "kept"

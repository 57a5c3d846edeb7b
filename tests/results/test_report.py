"""The report: what it says of sweeps in every state, and how it behaves in a real browser."""

import re
from dataclasses import replace
from pathlib import Path

import browser
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from results.comparison import compare
from results.gather import SweepTables
from results.report import report, write_report
from results.schema import UNROLLS_SCHEMA

from .test_comparison import diagnoses_of, evals_of, trials_of, two_arms

needs_chromium = pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium here")
NOWHERE = Path("/nowhere")  # the folder of a sweep that has no files
MARKUP = '<b>&"it\'s" $x_1$'


def tables_of(seeds=6, diagnoses=True, sweep="s", problems=(), folder=NOWHERE, **changes) -> SweepTables:
    trials, evals = two_arms(range(seeds), **changes)
    diagnosed = diagnoses_of(trials.trial_id if diagnoses else [], lambda name: 1 if name[:5] == "multi" else 3)
    diagnosed = diagnosed.assign(solved=lambda table: table.example < 6, settled=True) if diagnoses else diagnosed
    comparison = compare(trials, evals, diagnosed if diagnoses else None, baseline="baseline")
    return SweepTables(
        sweep, "baseline", trials, evals, diagnosed, comparison, pd.DataFrame(), [], list(problems), folder
    )


def test_a_finished_sweep_has_its_verdict_figures_and_tables():
    page = report(tables_of())
    assert "12 trials: 12 done" in page
    assert "not at its end" not in page
    assert "Each arm against <b>baseline</b>." in page
    assert "at 4.0x the compute: helps; perturbed success at sigma 0.3 up +25.0" in page
    assert page.count("<svg") == 3
    assert page.count("<table>") == 3
    assert "currentColor" in page
    assert len(page) < 3_000_000


def test_the_page_of_a_large_sweep_is_small_enough_for_a_phone():
    small = tables_of()
    of_trial = small.diagnostics.assign(lambda_1=lambda table: table.lambda_1 + 0.01 * table.example)
    many = pd.concat([of_trial.assign(example=i) for i in range(200)], ignore_index=True)
    rows = pd.concat([small.comparison] * 60, ignore_index=True)
    trials = pd.concat([small.trials.assign(seed=i) for i in range(60)], ignore_index=True)
    page = report(replace(small, diagnostics=many, comparison=rows, trials=trials))
    assert f"The first 500 of {len(rows)} rows; the parquet file has all." in page
    assert len(page) < 3_000_000


def test_running_and_failed_trials_are_shown_as_what_they_are():
    changes = {"multi0": {"status": "failed", "reason": "loss is NaN"}, "multi1": {"status": "unfinished"}}
    page = report(tables_of(2, **changes, problems=["x/evals.parquet: not a table of evals; move it away"]))
    assert "4 trials: 2 done, 1 failed, 1 unfinished" in page
    assert "The sweep is not at its end:</b> 1 failed, 1 unfinished" in page
    assert "<b>multi</b>: clean accuracy (best): interim, 0 of 2 seeds" in page
    assert "loss is NaN" in page
    assert "left out: x/evals.parquet" in page


def test_a_sweep_that_has_only_begun_has_a_page():
    trials, evals = trials_of([0]).assign(status="waiting"), two_arms([0])[1].iloc[:0]
    empty = pd.DataFrame()
    comparison = compare(trials, evals, baseline="baseline")
    page = report(SweepTables("s", "baseline", trials, evals, empty, comparison, pd.DataFrame(), [], [], NOWHERE))
    assert "2 trials: 2 waiting" in page


def test_names_are_text_wherever_they_stand():
    trials, evals = two_arms(range(2))
    trials["arm"] = trials.arm.replace("multi", MARKUP)
    comparison = compare(trials, evals, baseline="baseline")
    page = report(
        SweepTables(
            MARKUP, "baseline", trials, evals, pd.DataFrame(), comparison, pd.DataFrame(), [], [MARKUP], NOWHERE
        )
    )
    assert '<b>&"' not in page
    assert page.count("&lt;b&gt;&amp;") > 5


def test_nothing_on_the_page_asks_the_network():
    page = report(tables_of())
    asked = re.findall(r'(?:src|href)="(?!#|data:)([^"]*)|url\((?!#)([^)]*)', page)
    assert asked == []


def write_unrolls(folder, trial_id, step=40):
    """What a trial that solved a 4x4 Sudoku wrote."""
    (folder / "trials" / trial_id).mkdir(parents=True)
    texts = {"question": "1234341221434.21", "answer": "1234341221434321", "predicted": ["1234341221434121"] * 4}
    row = {"trial_id": trial_id, "step": step, "example": 0, "q_halt": [0.5] * 4} | texts
    table = pa.Table.from_pylist([row | {"sigma": 0.0}, row | {"sigma": 0.3}], schema=UNROLLS_SCHEMA)
    pq.write_table(table, folder / "trials" / trial_id / "unrolls.parquet")


def test_puzzles_are_solved_step_by_step_by_the_first_seed_of_each_arm(tmp_path):
    for trial_id in ("multi0", "multi1", "baseline0", "baseline1"):
        write_unrolls(tmp_path, trial_id, step=40 if trial_id == "multi0" else 30)
    page = report(tables_of(2, folder=tmp_path))
    assert page.count("<svg") == 3 + 2
    assert page.index("seed 0 of baseline: test puzzle 0 after 30 batches") < page.index(
        "seed 0 of multi: test puzzle 0 after 40 batches"
    )
    assert "seed 1 of" not in page
    assert page.count(">1 wrong, q +0.5<") == 2 * 2 * 4


def test_at_most_three_arms_are_shown_and_those_that_have_begun(tmp_path):
    arms = ("c", "multi", "b", "a", "baseline")
    trials = trials_of([0], arms, c0={"status": "waiting"})
    evals = pd.DataFrame([row for arm in arms[1:] for row in evals_of(f"{arm}0", [0.1, 0.5])])
    for arm in arms:
        write_unrolls(tmp_path, f"{arm}0")
    comparison = compare(trials, evals, baseline="baseline")
    page = report(
        SweepTables("s", "baseline", trials, evals, pd.DataFrame(), comparison, pd.DataFrame(), [], [], tmp_path)
    )
    assert re.findall(r"seed 0 of (\w+):", page) == ["baseline", "multi", "b"]


def test_unrolls_that_cannot_be_read_are_a_line_on_the_page(tmp_path):
    for trial_id in ("multi0", "baseline0"):
        write_unrolls(tmp_path, trial_id)
    (tmp_path / "trials" / "baseline0" / "unrolls.parquet").write_bytes(b"PAR1")
    page = report(tables_of(2, folder=tmp_path))
    assert f"left out: {tmp_path}/trials/baseline0/unrolls.parquet: not a table of unrolls" in page
    assert "seed 0 of multi: test puzzle 0" in page


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_in_a_browser_it_fits_sorts_and_is_quiet(tmp_path, width, dark):
    write_unrolls(tmp_path, "baseline0")
    path = write_report(tables_of(folder=tmp_path), tmp_path / "report.html")
    with browser.Page(path, width, dark) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert (
            page.evaluate("Math.max(...[...document.querySelectorAll('.figures svg')].map(s => s.clientWidth))") < width
        )
        assert page.evaluate("document.querySelector('.wide svg').clientWidth") > 500  # it scrolls in its own place
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")
        head = "[...document.querySelectorAll('th')].find(h => h.textContent === 'difference')"
        cells = f"[...{head}.closest('table').tBodies[0].rows].map(r => r.cells[{head}.cellIndex].dataset.key)"
        before = [float(key) for key in page.evaluate(cells) if key]
        assert before != sorted(before)
        page.evaluate(f"{head}.firstChild.click()")
        assert [float(key) for key in page.evaluate(cells) if key] == sorted(before)
        page.evaluate(f"{head}.firstChild.click()")
        assert [float(key) for key in page.evaluate(cells) if key] == sorted(before, reverse=True)
        assert page.evaluate(f"{head}.getAttribute('aria-sort')") == "descending"
        page.screenshot(tmp_path / "report.png")
        assert page.console == []
        assert [url for url in page.requests if not url.startswith("data:")] == [path.as_uri()]
    assert (tmp_path / "report.png").stat().st_size > 20_000

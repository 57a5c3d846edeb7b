"""What the page says of sweeps in every state."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from results.comparison import compare_by_seed
from results.gather import SweepTables
from results.page_items import ROWS, plain, table
from results.report import report
from results.schema import UNROLLS_SCHEMA
from results.view import Live, view
from tune.provenance import provenance

from .test_comparison import diagnoses_of, trials_of, two_arms

NOWHERE = Path("/nowhere")  # the folder of a sweep that has no files
MARKUP = '</script><b onclick="x">&\'it"s $x_1$ \u05e9\u05dc\u05d5\u05dd'


def tables_of(seeds=6, diagnoses=True, sweep="s", problems=(), folder=NOWHERE, **changes) -> SweepTables:
    trials, evals = two_arms(range(seeds), **changes)
    diagnosed = diagnoses_of(trials.trial_id if diagnoses else [], lambda name: 1 if name[:5] == "multi" else 3)
    diagnosed = diagnosed.assign(solved=lambda table: table.example < 6, settled=True) if diagnoses else diagnosed
    compared = compare_by_seed(trials, evals, diagnosed if diagnoses else None, baseline="baseline")
    trials = trials.assign(provenance="[]")
    return SweepTables(sweep, "baseline", trials, evals, diagnosed, *compared, [], list(problems), folder)


def sections_of(shown: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {section["id"]: section for section in shown["sections"]}


def items_of(section: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [item for item in section["items"] if item["kind"] == kind]


def test_the_answer_comes_first_and_each_verdict_leads_to_its_evidence():
    tables = tables_of()
    shown = view(tables)
    ids = ["answer", "sure", "came", "diagnosis", "trials", "again", "downloads"]
    assert [section["id"] for section in shown["sections"]] == ids
    (table,) = items_of(shown["sections"][0], "table")
    names = [column["name"] for column in table["columns"]]
    assert names[0] == "arm"
    (row,) = table["rows"]
    verdict = row[names.index("verdict")]
    for name in ("difference", "cost"):  # words about numbers, which they are sorted by: -5.3 is below -4.4
        assert table["columns"][names.index(name)]["number"]
    (primary,) = tables.comparison.loc[tables.comparison.primary].difference
    assert row[names.index("difference")]["key"] == primary
    assert row[names.index("difference")]["text"].startswith(f"{100 * primary:+.1f}")
    figures = [item["id"] for section in shown["sections"] for item in items_of(section, "figure")]
    assert verdict["at"] in figures
    assert {"figure-differences", "figure-map", "figure-curves", "figure-compute", "figure-lambda"} <= set(figures)
    live = items_of(sections_of(view(tables, Live("x")))["came"], "figure")[0]["spec"]
    assert [param["name"] for param in live["params"]] == ["seeds"]  # thin lines, on request


def test_an_infinite_number_is_sorted_as_the_largest():
    shown = plain(table("t", "", pd.DataFrame({"x": [float("inf"), 2.0, float("-inf")]}), None))
    assert [cell["text"] for (cell,) in shown["rows"]] == ["inf", "2", "-inf"]
    assert [cell["key"] for (cell,) in shown["rows"]] == [1e308, 2.0, -1e308]


def test_a_view_is_json():
    shown = plain(view(tables_of()))
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown


def test_a_sweep_that_is_not_at_its_end_shows_how_it_stands_first_and_says_interim():
    failed, unfinished = {"status": "failed", "reason": "loss is NaN"}, {"status": "unfinished"}
    problem = "x/evals.parquet: not a table of evals; move it away"
    shown = view(tables_of(2, diagnoses=False, multi0=failed, multi1=unfinished, problems=[problem]))
    assert shown["said"].startswith("4 trials: 2 done, 1 failed, 1 unfinished.")
    assert [section["id"] for section in shown["sections"]][:2] == ["trials", "answer"]
    texts = [item["text"] for item in items_of(sections_of(shown)["answer"], "text")]
    assert any(text.startswith("Interim: the sweep is not at its end (1 unfinished)") for text in texts)
    ended = sections_of(view(tables_of(2, diagnoses=False, multi0=failed)))["answer"]
    assert not [item for item in items_of(ended, "text") if "Interim" in item["text"]]  # a failure is an outcome
    trials = sections_of(shown)["trials"]
    (squares,) = items_of(trials, "trials")
    assert {trial["reason"] for trial in squares["trials"]} == {None, "loss is NaN"}
    assert items_of(trials, "text")[0]["text"].startswith("left out: x/evals.parquet")


def test_a_sweep_that_has_only_begun_has_a_page():
    trials, evals = trials_of([0]).assign(status="waiting", provenance="[]"), two_arms([0])[1].iloc[:0]
    compared = compare_by_seed(trials, evals, baseline="baseline")
    shown = view(SweepTables("s", "baseline", trials, evals, pd.DataFrame(), *compared, [], [], NOWHERE))
    assert shown["said"].startswith("2 trials: 2 waiting")
    assert not [item for section in shown["sections"] for item in items_of(section, "figure")]


def test_a_report_of_too_many_trials_has_none_of_their_own_curves(monkeypatch):
    assert set(view(tables_of(2, diagnoses=False))["curves"]) == {"baseline0", "baseline1", "multi0", "multi1"}
    monkeypatch.setattr("results.trials_section.CURVES", 3)
    assert view(tables_of(2, diagnoses=False))["curves"] is None


def test_long_tables_are_cut_with_a_word_and_the_csv_has_all():
    small = tables_of()
    rows = pd.concat([small.comparison] * 60, ignore_index=True)
    shown = view(replace(small, comparison=rows))
    (table,) = items_of(sections_of(shown)["sure"], "table")
    assert len(table["rows"]) == ROWS
    assert table["note"] == f"The first {ROWS} of {len(rows)} rows; filters choose among these. The CSV below has all."
    files = {file["name"]: file["said"] for file in items_of(sections_of(shown)["downloads"], "downloads")[0]["files"]}
    assert files[f"{small.sweep}-comparison.csv"] == f"{len(rows)} rows"


def test_a_long_table_that_is_in_no_file_is_said_to_be_in_none():
    assert "CSV" not in table("t", "", pd.DataFrame({"x": range(ROWS + 1)}), None)["note"]


def test_no_name_can_end_the_script_that_holds_the_data():
    trials, evals = two_arms(range(2))
    trials = trials.assign(provenance="[]", arm=trials.arm.replace("multi", MARKUP))
    compared = compare_by_seed(trials, evals, baseline="baseline")
    page = report(SweepTables(MARKUP, "baseline", trials, evals, pd.DataFrame(), *compared, [], [MARKUP], NOWHERE))
    assert "<b onclick" not in page
    data = page.partition('id="view">')[2].partition("</script>")[0]
    assert json.loads(data)["title"] == MARKUP
    assert MARKUP in [arm["name"] for arm in json.loads(data)["arms"]]


def write_unrolls(folder, trial_id, *predicted):
    """What a trial answered to 4x4 Sudokus: the last answer of each, clean and perturbed alike, or both."""
    (folder / "trials" / trial_id).mkdir(parents=True)
    texts = {"question": "1234341221434.21", "answer": "1234341221434321"}
    rows = [
        {"trial_id": trial_id, "step": 40, "example": example, "q_halt": [-0.5, 0.5], "sigma": sigma}
        | texts
        | {"predicted": [texts["question"].replace(".", "1"), last]}
        for example, lasts in enumerate(predicted)
        for sigma, last in zip((0.0, 0.3), (lasts, lasts) if isinstance(lasts, str) else lasts, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=UNROLLS_SCHEMA), folder / "trials" / trial_id / "unrolls.parquet")


RIGHT, WRONG = "1234341221434321", "1234341221434121"


def test_the_puzzles_on_which_the_arms_differ_come_first(tmp_path):
    write_unrolls(tmp_path, "baseline0", RIGHT, WRONG, (RIGHT, WRONG))
    write_unrolls(tmp_path, "multi0", RIGHT, RIGHT, (RIGHT, WRONG))  # on the last the noise alone makes a difference
    write_unrolls(tmp_path, "multi1", WRONG, WRONG)  # of each arm the lowest seed alone
    shown = view(tables_of(2, folder=tmp_path))
    (item,) = items_of(sections_of(shown)["puzzles"], "puzzles")
    names = [puzzle["name"] for puzzle in item["puzzles"]]
    assert names == [f"test puzzle {at}: solved in {n} of 4" for at, n in ((1, 2), (0, 4), (2, 2))]
    assert [run["name"] for run in item["puzzles"][0]["runs"]] == [
        "baseline, seed 0, clean",
        "baseline, seed 0, perturbed, sigma 0.3",
        "multi, seed 0, clean",
        "multi, seed 0, perturbed, sigma 0.3",
    ]
    assert {run["seed"] for run in item["puzzles"][0]["runs"]} == {0}  # by which a page filters


def test_unrolls_that_cannot_be_read_cost_their_boards_alone_and_are_named(tmp_path):
    for trial_id in ("multi0", "baseline0"):
        write_unrolls(tmp_path, trial_id, RIGHT)
    (tmp_path / "trials" / "baseline0" / "unrolls.parquet").write_bytes(b"PAR1")
    shown = view(tables_of(2, folder=tmp_path))
    (item,) = items_of(sections_of(shown)["puzzles"], "puzzles")
    assert {run["arm"] for run in item["puzzles"][0]["runs"]} == {"multi"}
    (text,) = items_of(sections_of(shown)["trials"], "text")
    assert f"left out: {tmp_path}/trials/baseline0/unrolls.parquet: not a table of unrolls" in text["text"]


def test_a_sweeps_file_is_shown_as_far_as_it_is_text_and_no_other_is(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "secret").write_text("a token")
    (tmp_path / "s" / "spec.yaml").symlink_to(tmp_path / "secret")
    tables = tables_of(2, diagnoses=False, folder=tmp_path / "s")
    assert "a token" not in json.dumps(view(tables))
    (tmp_path / "s" / "spec.yaml").unlink()
    (tmp_path / "s" / "spec.yaml").write_bytes(b"name: s # \xff")
    assert items_of(sections_of(view(tables))["again"], "code")[-1]["text"] == "name: s # \ufffd"


def test_it_says_how_to_do_it_again(tmp_path):
    folder = tmp_path / "it's; here"
    folder.mkdir()
    (folder / "spec.yaml").write_text("name: s\nbase: {}\n")
    tables = tables_of(2, diagnoses=False, folder=folder)
    attempts = [provenance(torch.device("cpu"), 1, [{"host": "node", "pid": pid}]) for pid in range(4)]
    tables.trials["provenance"] = [json.dumps([attempt | {"fence": 7}]) for attempt in attempts]
    section = sections_of(view(tables))["again"]
    command, spec = items_of(section, "code")
    assert command["text"].endswith(f"rrm run {shlex.quote(str(folder))[:-1]}/spec.yaml'")
    assert spec["text"] == "name: s\nbase: {}\n"
    (versions,) = items_of(section, "table")
    names = [column["name"] for column in versions["columns"]]
    assert {"commit", "torch", "device", "threads"} <= set(names)
    assert not {"pid", "host", "workers", "started", "fence"} & set(names)
    ((trials, *_),) = versions["rows"]  # of one kind, whichever process trained them
    assert trials["text"] == "4"
    tables.trials["commit"] = "c0ffee-dirty"  # no name that git checks out
    changed = items_of(sections_of(view(tables))["again"], "code")[0]["text"]
    assert changed.startswith("git checkout c0ffee  # and the changes to it that were not committed\nrrm run ")


def test_the_answer_is_first_once_nothing_more_will_come(tmp_path):
    tables = tables_of(2, diagnoses=False, folder=tmp_path / "o'clock; x")
    firsts = []
    for status, live in (("failed", None), ("failed", Live("x")), ("running", None), ("done", Live("x"))):
        tables.trials.loc[tables.trials.index[0], "status"] = status
        firsts.append(view(tables, live)["sections"][0]["id"])
    assert firsts == ["answer", "trials", "trials", "answer"]
    (squares,) = items_of(sections_of(view(tables))["trials"], "trials")
    storage = shlex.quote(str(tmp_path))
    assert squares["log"] == f"rrm logs s --storage {storage}; of a job: rrm logs s --address URL"


def test_mazes_have_the_figures_of_every_outcome():
    tables = tables_of()
    of_maze = tables.evals.assign(valid_correct=tables.evals.correct, shortest_correct=tables.evals.correct)
    deeper = pd.concat([of_maze, of_maze[of_maze.sigma == 0].assign(depth=8)], ignore_index=True)
    puzzles = pd.DataFrame({"test_digest": "d", "example": range(40), "path_length": [at // 10 for at in range(40)]})
    why = sections_of(view(replace(tables, evals=deeper, puzzles=puzzles)))["why"]
    outcomes = ("solved", "valid", "shortest")
    names = [f"figure-{name}-{outcome}" for name in ("difficulty", "escape") for outcome in outcomes]
    assert [item["id"] for item in items_of(why, "figure")] == names
    assert items_of(why, "figure")[4]["title"] == "Escape by depth (solved: a valid path)"


def test_escape_by_depth_is_drawn_where_depths_were_evaluated():
    tables = tables_of(2)
    deeper = pd.concat([tables.evals, tables.evals.assign(depth=8)], ignore_index=True)
    shown = view(replace(tables, evals=deeper))
    assert "figure-escape" in [item["id"] for item in sections_of(shown)["why"]["items"]]


def test_of_many_grid_points_the_first_are_drawn_and_it_says_so(monkeypatch):
    """Else figures grow with the sweep until no browser draws them; tables, the map and squares have every point."""
    monkeypatch.setattr("results.view.POINTS", 2)
    tables, names = tables_of(seeds=2, diagnoses=False), ["lr=1", "lr=2", "lr=3"]

    def at(frame: pd.DataFrame, point: str) -> pd.DataFrame:
        changes = {"points": [[point]] * len(frame)} if "points" in frame else {"point": point}
        return frame.assign(**changes, **({"trial_id": frame.trial_id + point} if "trial_id" in frame else {}))

    of = ("trials", "evals", "comparison", "differences")
    many = {name: pd.concat([at(getattr(tables, name), p) for p in names], ignore_index=True) for name in of}
    sections = sections_of(view(replace(tables, **many)))
    for name in ("sure", "came"):
        assert (
            sections[name]["note"]
            == "Of 3 grid points the first 2 are drawn; the map under How sure and the tables have all."
        )
    figures = items_of(sections["sure"], "figure") + items_of(sections["came"], "figure")
    drawn = {figure["id"]: [name for name in names if name in json.dumps(figure["spec"])] for figure in figures}
    assert drawn["figure-differences"] == drawn["figure-curves"] == ["lr=1", "lr=2"]
    assert drawn["figure-map"] == names
    assert len(items_of(sections["trials"], "trials")[0]["trials"]) == 12
    (verdicts,) = items_of(sections["answer"], "table")
    verdict = [column["name"] for column in verdicts["columns"]].index("verdict")
    assert {row[verdict]["at"] for row in verdicts["rows"]} == {"figure-map"}

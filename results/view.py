"""What the page shows of a sweep, as plain values: the report writes them into it, `rrm watch` sends them."""

import base64
import gzip
import json
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from altair.utils.schemapi import debug_mode

from results import plots
from results.compared import COMPARISON_SCHEMA
from results.curves import curve, seed_curves, snapshot
from results.depths import escape
from results.diagnosis_section import diagnosis_items, told_by
from results.difficulty import by_difficulty
from results.gather import SweepTables
from results.metrics import METRICS
from results.page_items import csv_of, figure, file_stem, table
from results.plots.style import CONFIG, Arms
from results.query import unroll
from results.rows import counted, outcomes_of, rows_of
from results.schema import SPEC
from results.signals import difference, metric_name, probability, short_verdict, verdicts
from results.storage import Location, read_bytes
from results.text import no_answer
from results.trial_files import DamagedFileError
from results.trials_section import trial_curves, trial_items

TABLES_SHOWN = (
    *("comparison", "differences", "trials", "evals", "diagnostics", "windows", "depths", "restarts", "robustness"),
    "puzzles",
)
POINTS = 40  # grid points that figures draw; a table has its rows of each
DIRTY = "-dirty"  # what git describe adds
CSV_BYTES = 1_000_000  # of a compressed table in the report; a larger one is left to the parquet files
ENDED = ("done", "stopped", "failed", "unreadable")
PUZZLE_ARMS = 4  # of a puzzle's boards: the baseline's and those of the first arms
_COMPARED = (
    *("arm", "point", "metric", "sigma", "depth", "role", "n_seeds", "baseline_mean", "arm_mean", "difference", "low"),
    *("high", "p_adjusted", "verdict", "paired_by", "worst_seed", "worst_difference", "bound", "detectable"),
    *("detectable_seeds", "probability_of_improvement", "collapsed", "compute_ratio", "device_hours", "minutes"),
)


@dataclass(frozen=True)
class Live:
    """What `rrm watch` adds: the URL below which tables are downloaded."""

    url: str


@debug_mode(False)  # altair holds each part to Vega-Lite's schema, half of the time: tests do, of whole figures
def view(tables: SweepTables, live: Live | None = None) -> dict[str, Any]:
    """The whole page of a sweep as JSON's own types; results/page draws it.

    A sweep that runs, failed in part or was stopped is shown as what it is. With `live`, tables are downloads by URL,
    no trial's own curve is inside, and the trials come first if any failed.
    """
    shown = snapshot(tables.trials, tables.evals)
    arms = Arms(tuple(dict.fromkeys((tables.baseline, *tables.trials.arm))), tables.baseline)
    puzzles, unread = _puzzles(tables)
    standing = _section("trials", "Trials and failures", trial_items(tables, shown, unread))
    at_its_end = shown.status.isin(["done", "stopped"] if live else ENDED).all()
    drawn, note = _drawn(tables)
    of_drawn = shown.loc[shown.trial_id.isin(drawn.trials.trial_id)]
    sections = [
        *([] if at_its_end else [standing]),
        *_answer(tables, shown),
        *_figures("sure", "How sure", _how_sure(tables, drawn, arms), _comparison(tables), note=note),
        *_figures("came", "How it came", _how_it_came(drawn, of_drawn, arms), note=note),
        *_figures("why", "Why", _why(tables, arms)),
        *_diagnosis(tables, arms),
        *puzzles,
        *([standing] if at_its_end else []),
        *_again(tables),
        _downloads(tables, live),
    ]
    said = (
        f"{len(shown)} trials: {counted(shown.status)}. Written {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}."
    )
    return {
        "title": tables.sweep,
        "file": file_stem(tables.sweep),
        "baseline": tables.baseline,
        "said": said,
        "look": CONFIG,
        "arms": [{"name": name, "colour": arms.colours[name], "dash": arms.dashes[name]} for name in arms.ordered],
        "points": _points(tables),
        "seeds": sorted(map(int, set(tables.trials.seed))),
        "sections": sections,
        "curves": None if live else trial_curves(tables),
        "run": None,
    }


def _points(tables: SweepTables) -> list[str]:
    return list(dict.fromkeys(point for points in tables.trials.points for point in points if point))


def _drawn(tables: SweepTables) -> tuple[SweepTables, str]:
    """The tables of the first POINTS grid points, and what is to be said of the others."""
    points = _points(tables)
    if len(points) <= POINTS:
        return tables, ""
    kept = {"", *points[:POINTS]}
    trials = tables.trials.loc[[bool(kept & set(own)) for own in tables.trials.points]]
    few = replace(
        tables,
        trials=trials,
        evals=tables.evals.loc[tables.evals.trial_id.isin(trials.trial_id)],
        comparison=tables.comparison.loc[tables.comparison.point.isin(kept)],
        differences=tables.differences.loc[tables.differences.point.isin(kept)],
    )
    return (
        few,
        f"Of {len(points)} grid points the first {POINTS} are drawn; the map under How sure and the tables have all.",
    )


def _section(id: str, title: str, items: list[dict[str, Any]], note: str = "") -> dict[str, Any]:
    return {"id": id, "title": title, "note": note, "items": items}


def _answer(tables: SweepTables, shown: pd.DataFrame) -> Iterator[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    unfinished = counted(shown.status[~shown.status.isin(ENDED)])
    if unfinished:
        said = f"Interim: the sweep is not at its end ({unfinished}). What follows is what is known so far."
        items.append({"kind": "text", "text": said, "bad": True})
    found = rows_of(verdicts(tables.comparison)) if len(tables.comparison) else []
    if found:
        what = metric_name(rows_of(tables.comparison.loc[tables.comparison.primary])[0])
        rows = [
            {
                "arm": row.arm,
                "point": row.point,
                "verdict": short_verdict(row),
                "difference": "" if pd.isna(row.difference) else difference(row),
                "p": ""
                if pd.isna(row.p_adjusted)
                else probability(row.p_adjusted).removeprefix("p ").removeprefix("= "),
                "cost": "" if pd.isna(row.compute_ratio) else f"{row.compute_ratio:.1f}x",
                "baseline": _score(row, row.baseline_mean),
                "arm mean": _score(row, row.arm_mean),
                "in words": row.headline,
            }
            for row in found
        ]
        drawn_in = "figure-differences" if len(_points(tables)) <= POINTS else "figure-map"
        to = drawn_in if _in_figures(tables).any() else "table-comparison"
        keys = {
            "difference": [row.difference for row in found],
            "p": [row.p_adjusted for row in found],
            "cost": [row.compute_ratio for row in found],
            "baseline": [row.baseline_mean for row in found],
            "arm mean": [row.arm_mean for row in found],
        }
        items.append(table("verdicts", "", pd.DataFrame(rows), None, links={"verdict": to}, keys=keys))
        note = (
            f"Each arm against {tables.baseline} by {what} over all seeds, accuracies in points, on test puzzles. "
            "\N{PLUS-MINUS SIGN}: 95 % interval. A verdict leads to its evidence."
        )
    else:
        items.append({"kind": "text", "text": f"{no_answer(tables)}."})
        note = ""
    yield _section("answer", "The answer", items, note)


def _score(row: Any, mean: float) -> str:
    """A mean of the primary metric, in points where it is a share."""
    return "" if pd.isna(mean) else f"{100 * mean:.1f}" if row.unit == "share" else f"{mean:.4g}"


def _figures(
    id: str, title: str, figures: Any, *tables: dict[str, Any] | None, note: str = ""
) -> Iterator[dict[str, Any]]:
    items = [figure(name, chart) for name, chart in figures]
    items += [table for table in tables if table is not None]
    if items:
        yield _section(id, title, items, note)


def _how_sure(tables: SweepTables, drawn: SweepTables, arms: Arms) -> Iterator[tuple[str, Any]]:
    if _in_figures(drawn).any():
        yield "differences", plots.paired_differences(drawn.comparison, drawn.differences, arms=arms)
    if _in_figures(tables).any():
        yield "map", plots.difference_map(tables.comparison)


def _in_figures(tables: SweepTables) -> pd.Series:
    """Which rows of the comparison the figures of differences draw."""
    return tables.comparison.difference.notna() & tables.comparison.metric.isin(plots.SHOWN)


def _how_it_came(tables: SweepTables, shown: pd.DataFrame, arms: Arms) -> Iterator[tuple[str, Any]]:
    if ((tables.evals.split == "test") & (tables.evals.sigma == 0)).any() if len(tables.evals) else False:
        each = seed_curves(tables.trials, tables.evals)
        yield "curves", plots.accuracy_curves(curve(tables.trials, tables.evals), shown, each, arms=arms)
    if (shown.final.notna() & shown.flops_per_step.notna()).any():
        yield "compute", plots.accuracy_against_compute(shown, arms=arms)


def _why(tables: SweepTables, arms: Arms) -> Iterator[tuple[str, Any]]:
    ladder = plots.training_sigma(tables.comparison)
    if tables.comparison.difference.notna().any() and ladder.nunique() > 1:
        yield "ladder", plots.sigma_ladder(tables.comparison, ladder, arms=arms)
    outcomes = outcomes_of(tables.evals)
    for outcome in outcomes:
        more, suffix = told_by(outcome, outcomes)
        solved = by_difficulty(tables.trials, tables.evals, tables.puzzles, outcome=outcome)
        if len(solved):
            yield f"difficulty{suffix}", plots.solved_by_difficulty(solved, arms=arms, more=more)
    for outcome in outcomes:
        more, suffix = told_by(outcome, outcomes)
        escaped = escape(tables.trials, tables.evals, outcome=outcome)
        if len(escaped):
            yield f"escape{suffix}", plots.escape_by_depth(escaped, arms=arms, title=f"Escape by depth{more}")


def _comparison(tables: SweepTables) -> dict[str, Any] | None:
    if not len(tables.comparison):
        return None
    frame = tables.comparison.loc[:, [name for name in _COMPARED if name in tables.comparison]]
    terms = [(name, METRICS[name][1]) for name in METRICS if name in set(frame.metric)]
    return table(
        "comparison", "Every metric", frame, COMPARISON_SCHEMA, terms=terms, folded=True, whole="The CSV below has all."
    )


def _diagnosis(tables: SweepTables, arms: Arms) -> Iterator[dict[str, Any]]:
    items = list(diagnosis_items(tables, arms))
    if items:
        note = "Of the averaged weights, on test puzzles, at each trial's last diagnosis; all seeds of an arm together."
        yield _section("diagnosis", "Diagnosis", items, note)


def _puzzles(tables: SweepTables) -> tuple[list[dict[str, Any]], list[str]]:
    """The unrolled test puzzles, those first on which the arms differ, each run a board; and what cannot be read."""
    evaluated = tables.trials.loc[tables.trials.trial_id.isin(tables.evals.trial_id)].sort_values("seed", kind="stable")
    arms = dict.fromkeys((tables.baseline, *tables.trials.arm))
    firsts = [mine.iloc[0] for arm in arms if len(mine := evaluated.loc[evaluated.arm == arm])]
    boards: dict[tuple[int, str, str], dict[str, Any]] = {}
    unread = []
    for trial in firsts[:PUZZLE_ARMS]:
        try:
            unrolls = rows_of(unroll(tables.folder.parent, tables.folder.name, trial.trial_id))
        except DamagedFileError as error:
            unread.append(str(error))
            continue
        for row in unrolls:
            key = (row.example, row.question, row.answer)  # arms may have other test puzzles
            board = boards.setdefault(key, {"question": row.question, "answer": row.answer, "runs": []})
            how = f"perturbed, sigma {row.sigma:g}" if row.sigma else "clean"
            run = {"arm": trial.arm, "seed": int(trial.seed), "name": f"{trial.arm}, seed {trial.seed}, {how}"}
            run |= {"sigma": float(row.sigma)}
            answers = {"predicted": list(row.predicted), "q_halt": [float(q) for q in row.q_halt]}
            board["runs"].append(run | answers)
    if not boards:
        return [], unread
    order = sorted(boards, key=lambda key: (-_disagreement(boards[key]), key))
    puzzles = [boards[key] | {"name": f"test puzzle {key[0]}{_said(boards[key])}"} for key in order]
    note = (
        "What the model answers after each ACT step of its last evaluation, which never halts. q is the halting logit; "
        "above 0 the model says that it is done. Boards are of each arm's first seed."
    )
    return [_section("puzzles", "Puzzles", [{"kind": "puzzles", "id": "boards", "puzzles": puzzles}], note)], unread


def _solved(board: dict[str, Any]) -> list[bool]:
    return [run["predicted"][-1] == board["answer"] for run in board["runs"]]


def _disagreement(board: dict[str, Any]) -> int:
    """How evenly the arms differ, solved against failed: clean, or at the sigma where it is most."""
    arms: dict[float, list[bool]] = {}
    for run, solved in zip(board["runs"], _solved(board), strict=True):
        arms.setdefault(run["sigma"], []).append(solved)
    return max(min(sum(solved), len(solved) - sum(solved)) for solved in arms.values())


def _said(board: dict[str, Any]) -> str:
    solved = _solved(board)
    return f": solved in {sum(solved)} of {len(solved)}" if any(solved) else ": solved by none"


def _again(tables: SweepTables) -> Iterator[dict[str, Any]]:
    """What it takes to do it again: the file, the command, the code and its versions."""
    items: list[dict[str, Any]] = []
    spec = _spec(tables.folder)
    commits = tables.trials.commit.dropna().value_counts()
    commands = []
    if len(commits):  # that which most trials ran with; the table below has all
        commit = str(commits.index[0]).removesuffix(DIRTY)
        changed = commit != commits.index[0]
        commands.append(f"git checkout {commit}" + ("  # and the changes to it that were not committed" * changed))
    if spec:
        commands.append(f"rrm run {shlex.quote(str(tables.folder / SPEC))}")
    if commands:
        items.append({"kind": "code", "title": "Command", "text": "\n".join(commands)})
    facts = _versions(tables)
    if len(facts):
        items.append(table("versions", "Code, versions and devices of the trials", facts, None))
    if spec:
        items.append({"kind": "code", "title": f"The sweep, {SPEC}", "text": spec})
    if items:
        yield _section("again", "How to do it again", items)


def _spec(folder: Location) -> str:
    """The sweep's file, as far as it is text; "" if it cannot be read, or is a link that leads out of the folder."""
    path = folder / SPEC
    if isinstance(path, Path) and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(path.parent)):
        return ""
    try:
        return read_bytes(path).decode(errors="replace")
    except OSError:
        return ""


def _versions(tables: SweepTables) -> pd.DataFrame:
    """A row for each combination of commit, versions and device that trials ran with, and how many did."""
    found: dict[str, int] = {}
    for attempts in tables.trials.provenance.dropna():
        for attempt in json.loads(attempts)[-1:]:
            facts = {name: value for name, value in attempt.items() if name not in _OF_ONE_ATTEMPT}
            key = json.dumps(facts, sort_keys=True, default=str)
            found[key] = found.get(key, 0) + 1
    return pd.DataFrame([{"trials": n, **json.loads(facts)} for facts, n in found.items()])


_OF_ONE_ATTEMPT = frozenset(("pid", "host", "workers", "visible_gpus", "started", "fence"))


def _downloads(tables: SweepTables, live: Live | None) -> dict[str, Any]:
    files = []
    for name in TABLES_SHOWN:
        frame, file = getattr(tables, name), f"{file_stem(tables.sweep)}-{name}.csv"
        if frame.empty:
            continue
        said = f"{len(frame)} rows"
        if live:
            files.append({"name": file, "said": said, "url": f"{live.url}/{name}.csv"})
            continue
        packed = gzip.compress(csv_of(frame).encode(), mtime=0)
        if len(packed) > CSV_BYTES:
            said += f": too large for this page; it stands in the storage, tables/{name}/sweep={tables.sweep}"
            files.append({"name": file, "said": said})
            continue
        files.append({"name": file, "said": said, "gzip": base64.b64encode(packed).decode()})
    note = "Below every figure are buttons that save it as SVG or PNG."
    return _section("downloads", "The data", [{"kind": "downloads", "files": files}], note)

"""A sweep on one HTML page that needs nothing else: verdicts, figures, tables that sort."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from results import plots
from results.curves import curve, snapshot
from results.diagnostics import summary
from results.gather import SweepTables
from results.query import unroll
from results.rows import counted, rows_of
from results.schema import COMPARISON_SCHEMA, METRICS, TRIALS_SCHEMA, DamagedFileError
from results.signals import verdicts
from results.storage import Location, write_atomically

ROWS = 500  # a table: the page stays small enough to open on a phone; the parquet files have all
SOLVING = 3  # figures of puzzles solved step by step: the baseline's and those of the first arms
_COMPARED = (
    *("arm", "point", "metric", "sigma", "depth", "verdict", "n_seeds", "n_examples", "baseline_mean", "arm_mean"),
    *("difference", "low", "high", "p", "p_adjusted", "paired_by", "worst_seed", "worst_difference", "bound"),
    *("baseline_iqm", "arm_iqm", "difference_sd", "detectable", "detectable_seeds", "probability_of_improvement"),
    *("mcnemar_gained", "mcnemar_lost", "mcnemar_p"),
    *("regressed", "collapsed", "compute_ratio", "device_hours", "minutes"),
)


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the number it is sorted by: "" for an unknown one, None in a column of text."""

    text: str
    key: str | None


@dataclass(frozen=True)
class Column:
    """A column's heading, what it is, and whether it holds numbers."""

    name: str
    description: str
    number: bool


@dataclass(frozen=True)
class Table:
    """A table of the page; terms are words in it that want explaining."""

    title: str
    note: str
    terms: list[tuple[str, str]]
    columns: list[Column]
    rows: list[list[Cell]]


def report(tables: SweepTables) -> str:
    """The page, as HTML. A sweep that runs, failed in part or was stopped is shown as what it is."""
    runs = snapshot(tables.trials, tables.evals)
    solving, unread = _solving(tables)
    environment = Environment(
        loader=PackageLoader("results", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        sweep=tables.sweep,
        baseline=tables.baseline,
        states=f"{len(runs)} trials: {counted(runs.status)}",
        unfinished=counted(runs.status[~runs.status.isin(["done", "stopped"])]),
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        problems=[*tables.problems, *unread],
        verdicts=[
            (" ".join(filter(None, (row.arm, row.point))), row.headline) for row in rows_of(verdicts(tables.comparison))
        ],
        figures=_figures(tables, runs),
        solving=solving,
        tables=_tables(tables, runs),
    )


def write_report(tables: SweepTables, path: Location) -> Location:
    """Write the page to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, report(tables).encode())
    return path


def _figures(tables: SweepTables, runs: pd.DataFrame) -> list[str]:
    figures = {}
    if len(tables.evals):
        figures["curves"] = plots.accuracy_curves(curve(tables.trials, tables.evals), runs)
    if tables.comparison.difference.notna().any():
        figures["differences"] = plots.paired_differences(tables.comparison)
        ladder = plots.training_sigma(tables.comparison)
        if ladder.nunique() > 1:
            figures["ladder"] = plots.sigma_ladder(tables.comparison, ladder)
    if len(tables.diagnostics):
        figures["lambda"] = plots.lambda_by_outcome(tables.trials, tables.diagnostics)
    return [plots.svg(figure, name) for name, figure in figures.items()]


def _solving(tables: SweepTables) -> tuple[list[tuple[str, float]], list[str]]:
    """Of the lowest seed of each of the first arms, what it last unrolled as SVG, its width in inches; and problems."""
    evaluated = tables.trials.loc[tables.trials.trial_id.isin(tables.evals.trial_id)].sort_values("seed", kind="stable")
    arms = dict.fromkeys((tables.baseline, *tables.trials.arm))
    firsts = [mine.iloc[0] for arm in arms if len(mine := evaluated.loc[evaluated.arm == arm])]
    drawn, problems = [], []
    for trial in firsts[:SOLVING]:
        try:
            unrolls = unroll(tables.folder.parent, tables.folder.name, trial.trial_id)
        except DamagedFileError as error:
            problems.append(str(error))
            continue
        if len(unrolls):
            point = trial.points[0] if len(trial.points) == 1 else ""
            figure = plots.solving(unrolls, name=f"seed {trial.seed} of " + " ".join(filter(None, (trial.arm, point))))
            drawn.append((plots.svg(figure, f"solving {trial.trial_id}"), float(figure.get_figwidth())))
    return drawn, problems


def _tables(tables: SweepTables, runs: pd.DataFrame) -> list[Table]:
    shown = []
    if len(tables.comparison):
        terms = [(name, METRICS[name][1]) for name in METRICS if name in set(tables.comparison.metric)]
        note = f"Against {tables.baseline}, on test puzzles, with 95 % intervals."
        if (tables.comparison.paired_by == "puzzle").any():
            note += " Paired by puzzle: the interval is for these training runs only; another seed may differ by more."
        frame = tables.comparison.loc[:, list(_COMPARED)]
        shown.append(_table("Comparison", note, frame, COMPARISON_SCHEMA, terms))
    runs = runs.drop(columns=["sweep", "trial_id", "points"])
    note = "Clean exact accuracy on test; the best step is chosen on validation."
    shown.append(_table("Trials", note, runs, TRIALS_SCHEMA))
    if len(tables.diagnostics):
        shown.append(_table("Lyapunov diagnoses", "The last of each trial, on test puzzles.", _diagnoses(tables), None))
    return shown


def _diagnoses(tables: SweepTables) -> pd.DataFrame:
    last = tables.diagnostics.step == tables.diagnostics.groupby("trial_id").step.transform("max")
    diagnosed, rows = dict(iter(tables.diagnostics.loc[last].groupby("trial_id"))), []
    for trial in rows_of(tables.trials):
        mine = diagnosed.get(trial.trial_id)
        if mine is not None:
            found = summary(mine)._asdict()
            rows.append({"arm": trial.arm, "seed": trial.seed, "step": mine.step.iloc[0], "puzzles": len(mine)} | found)
    return pd.DataFrame(rows)


def _table(title: str, note: str, frame: pd.DataFrame, schema: Any, terms: Any = ()) -> Table:
    frame = frame.loc[:, [name for name in frame if set(frame[name].dropna().map(str)) - {""}]]
    described = {field.name: field.metadata[b"description"].decode() for field in schema or ()}
    numbers = {name: pd.api.types.is_numeric_dtype(frame[name]) and frame[name].dtype != bool for name in frame}
    columns = [Column(str(name).replace("_", " "), described.get(str(name), ""), numbers[name]) for name in frame]
    rows = [
        [_cell(value, number) for value, number in zip(row, numbers.values(), strict=True)]
        for row in rows_of(frame.head(ROWS))
    ]
    if len(frame) > ROWS:
        note += f" The first {ROWS} of {len(frame)} rows; the parquet file has all."
    return Table(title, note, list(terms), columns, rows)


def _cell(value: Any, number: bool) -> Cell:
    if number:
        known = not pd.isna(value)
        whole = known and float(value).is_integer() and not isinstance(value, float)
        return Cell((str(value) if whole else f"{value:.4g}") if known else "", str(float(value)) if known else "")
    if isinstance(value, list | np.ndarray):  # a value a seed
        return Cell(", ".join(f"{one:.3g}" for one in value), None)
    if isinstance(value, bool):
        return Cell("yes" if value else "no", None)
    return Cell("" if pd.isna(value) else str(value), None)

"""Figures as functions of tables, for a notebook and for the report. Each returns a matplotlib Figure."""

import io
import json
import re
from itertools import cycle, islice
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.grids import BLUE_INK, COLOURS, INK, PANEL, draw_maze, draw_sudoku
from results.rows import rows_of

SIZE = (5.2, 3.3)  # inches
MOST = 30  # lines or rows of a figure; the tables have all
STEPS = 6  # ACT steps of a figure of a puzzle

_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.fonttype": "none",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def accuracy_curves(curve: pd.DataFrame, snapshot: pd.DataFrame) -> Figure:
    """Clean accuracy on test against step: a line an arm and point, a 95 % band over seeds, a ring at each best step.

    The first MOST lines; a legend where it has room.

    curve, snapshot: of `results.curve` and `results.snapshot`, of one sweep.
    """
    figure, axes = _figure("Clean accuracy on test", "batches trained", "exact accuracy")
    clean = curve.loc[(curve.split == "test") & (curve.sigma == 0)]
    clean = clean.loc[clean.depth == clean.groupby("arm").depth.transform("min")]  # each arm's own depth
    bests = snapshot.dropna(subset=["best"])
    bests = bests.drop(columns="point").explode("points").rename(columns={"points": "point"})
    lines: Any = clean.groupby(["arm", "point"], sort=False)
    for ((arm, point), line), colour in zip(islice(lines, MOST), cycle(COLOURS), strict=False):
        axes.plot(line.step, line["mean"], color=colour, label=_name(arm, point))
        axes.fill_between(line.step, line.low.clip(0), line.high.clip(upper=1), color=colour, alpha=0.15, linewidth=0)
        mine = bests.loc[(bests.arm == arm) & (bests.point.map(str) == point)]
        axes.plot(mine.best_step.astype(float), mine.best, "o", color=colour, fillstyle="none", markersize=5)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.05 * high), high)  # not as far below 0 as above where nothing is solved yet
    return _finish(figure, axes)


def paired_differences(comparison: pd.DataFrame, metrics: tuple[str, ...] = ("final", "best", "perturbed")) -> Figure:
    """Arm minus baseline with its 95 % interval, in points: the first MOST arms, points and metrics."""
    rows = comparison.loc[comparison.metric.isin(metrics) & comparison.difference.notna()]
    rows = rows.loc[rows.trained_depth][:MOST].iloc[::-1].reset_index(drop=True)
    figure, axes = _figure("Difference to the baseline, 95 % intervals", "points of exact accuracy", "")
    figure.set_figheight(max(SIZE[1] * 0.6, 0.9 + 0.24 * len(rows)))
    middle = 100 * rows.difference.astype(float)
    ends = [middle - 100 * rows.low.astype(float), 100 * rows.high.astype(float) - middle]
    colours: Any = [COLOURS[metrics.index(metric) % len(COLOURS)] for metric in rows.metric]
    axes.axvline(0, color=INK, linewidth=0.8, alpha=0.5)
    axes.errorbar(middle, rows.index, xerr=np.nan_to_num(ends), fmt="none", ecolor=colours, elinewidth=2)
    axes.scatter(middle, rows.index, color=colours, zorder=3, s=18)
    labels = [_metric_name(*row) for row in zip(rows.arm, rows.point, rows.metric, rows.sigma, strict=True)]
    axes.set_yticks(list(rows.index), labels)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    return _finish(figure, axes, legend=False)


def sigma_ladder(comparison: pd.DataFrame, ladder: pd.Series) -> Figure:
    """Clean accuracy (solid) and perturbed success (dashed) against the sigma of training, on a log axis.

    ladder: sigma of each row of the comparison (`training_sigma`), nan where there is none; a line an arm.
    """
    figure, axes = _figure("Sigma of the training", "sigma", "exact accuracy")
    rows = comparison.assign(ladder=ladder).dropna(subset=["ladder", "arm_mean"])
    rows = rows.loc[rows.trained_depth]
    for arm, colour in zip(rows.arm.unique(), cycle(COLOURS), strict=False):
        mine = rows.loc[rows.arm == arm].sort_values(by=["ladder"])
        for (metric, sigma), line in mine.loc[mine.metric.isin(["final", "perturbed"])].groupby(["metric", "sigma"]):
            style, what = ("-", "clean") if metric == "final" else ("--", f"perturbed, sigma {sigma:g}")
            axes.plot(line.ladder, line.arm_mean, style, marker="o", markersize=4, color=colour, label=f"{arm}, {what}")
    for metric, style, what in (("final", "-", "clean"), ("perturbed", "--", "perturbed")):
        for value in rows.loc[rows.metric == metric].groupby("sigma").baseline_mean.mean():
            axes.axhline(value, linestyle=style, color=INK, linewidth=0.8, alpha=0.5, label=f"baseline, {what}")
    axes.set_xscale("log")
    return _finish(figure, axes)


def training_sigma(comparison: pd.DataFrame) -> pd.Series:
    """The sigma each row's arm was trained with, from its `perturb`: the geometric middle of an interval.

    nan without noise, and for sigma 0, which has no place on a log axis.
    """
    return comparison.perturb.map(_sigma_of).astype(float)


def _sigma_of(perturb: Any) -> float:
    sigmas = np.array(json.loads(perturb)["sigma"] if isinstance(perturb, str) else 0.0)
    return float(np.exp(np.log(sigmas).mean())) if sigmas.all() else np.nan


def lambda_by_outcome(trials: pd.DataFrame, diagnostics: pd.DataFrame) -> Figure:
    """Distribution of lambda_1 at each trial's last diagnosis, solved and failed test puzzles side by side, by arm."""
    figure, axes = _figure("First Lyapunov exponent by outcome", "lambda_1, nats a sub-update", "")
    trial = ["sweep", "trial_id"]
    last = diagnostics.loc[diagnostics.step == diagnostics.groupby(trial).step.transform("max")]
    rows = last[[*trial, "solved", "lambda_1"]].merge(trials[[*trial, "arm"]], on=trial)
    labels, place = [], 0
    for arm, mine in rows.groupby("arm", sort=False):
        for solved, colour in ((True, COLOURS[0]), (False, COLOURS[1])):
            values = mine.loc[mine.solved == solved].lambda_1.to_numpy()
            labels.append(f"{_short(str(arm))}, {'solved' if solved else 'failed'} ({len(values)})")
            jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(values))
            axes.scatter(values, place + jitter, s=6, color=colour, alpha=0.5, linewidths=0, rasterized=True)
            if len(values):
                axes.plot([np.median(values)] * 2, [place - 0.35, place + 0.35], color=colour, linewidth=2)
            place += 1
    axes.axvline(0, color=INK, linewidth=0.8, alpha=0.5)
    axes.set_yticks(range(place), labels)
    axes.set_ylim(place - 0.4, -0.6)
    figure.set_figheight(max(SIZE[1] * 0.6, 0.9 + 0.3 * place))
    return _finish(figure, axes, legend=False)


def solving(unrolls: pd.DataFrame, example: int = 0, name: str = "") -> Figure:
    """A Sudoku or maze as the model thinks: the puzzle, what is answered after up to STEPS ACT steps, the true answer.

    A row of answers for the clean run and one for the perturbed one; each says how many of its cells are wrong, and the
    halting logit q.

    unrolls: of `results.unroll`. name: whose it is, for the title. Raises ValueError if it has no such example.
    """
    runs = rows_of(unrolls.loc[unrolls.example == example].sort_values("sigma"))
    if not runs:
        raise ValueError(f"example: {example} is not unrolled here; give one of {sorted(set(unrolls.example))}")
    question, answer = runs[0].question, runs[0].answer
    draw = draw_maze if "S" in question else draw_sudoku  # no Sudoku has that many digits
    steps = np.unique(np.linspace(1, len(runs[0].predicted), STEPS).round().astype(int))
    with rc_context(_STYLE | {"axes.titlesize": 8, "axes.titlelocation": "center"}):
        figure = Figure(figsize=(PANEL * (len(steps) + 2), (PANEL + 0.3) * len(runs) + 0.7), layout="constrained")
        title = f"test puzzle {example} after {runs[0].step} batches"
        figure.suptitle(f"{_short(name)}: {title}" if name else title.capitalize(), fontsize=10, x=0.01, ha="left")
        places = figure.add_gridspec(len(runs), len(steps) + 2, width_ratios=[1.1, *[1] * len(steps), 1.1])
        draw(figure.add_subplot(places[:, 0], title="puzzle", anchor="W"), question, question, question)
        for row, run in enumerate(runs):
            for column, step in enumerate(steps, start=1):
                shown = run.predicted[step - 1]
                wrong = sum(cell != true for cell, true in zip(shown, answer, strict=True))
                says = f"{wrong} wrong" if wrong else "solved"
                title = f"ACT step {step}\n{says}, q {run.q_halt[step - 1]:+.1f}".replace("-", "\N{MINUS SIGN}")
                draw(figure.add_subplot(places[row, column], title=title), question, answer, shown)
            figure.axes[-len(steps)].set_ylabel(f"sigma {run.sigma:g}" if run.sigma else "clean")
        signs = draw(figure.add_subplot(places[:, -1], title="true answer", anchor="E"), question, answer, answer)
        figure.legend(handles=signs, fontsize=8, loc="outside lower left", ncols=len(signs))
    return figure


def svg(figure: Figure, salt: str) -> str:
    """The figure as an SVG element that takes its text colour, and digits' blue (--blue), from the page.

    salt: what its ids are unique by.
    """
    text = io.StringIO()
    with rc_context(_STYLE | {"svg.hashsalt": salt}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    element = text.getvalue()[text.getvalue().index("<svg") :].replace(INK, "currentColor")
    element = element.replace(BLUE_INK.lower(), f"var(--blue, {BLUE_INK})")
    element = element.replace("image-rendering:crisp-edges;image-rendering:pixelated", "")  # grids are shrunk
    head, _, body = element.partition(">")
    return re.sub(r' (width|height)="[^"]*"', "", head) + ">" + body  # the page says how large it is


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    with rc_context(_STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def _finish(figure: Figure, axes: Axes, legend: bool = True) -> Figure:
    if legend and 0 < len(axes.get_legend_handles_labels()[0]) <= MOST / 2:
        with rc_context(_STYLE):
            figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    return figure


def _name(arm: str, point: str) -> str:
    return _short(", ".join(filter(None, (arm, point))))


def _metric_name(arm: str, point: str, metric: str, sigma: float) -> str:
    return f"{_name(arm, point)}: {metric}" + (f" {sigma:g}" if sigma else "")


def _short(name: str) -> str:
    name = name.replace("$", r"\$")  # matplotlib would read it as mathematics
    return name if len(name) <= 40 else f"{name[:39]}…"

"""Whether failures wander or settle wrong, and what frees them: charts of the tables that `results.diagnosis` makes.

Each takes a table with a column `arm`: made with by=("arm",) of diagnoses that have their trial's arm.
"""

import math
from typing import Any

import altair as alt
import pandas as pd

from results.diagnosis import DECILES
from results.plots.style import (
    COLOURS,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    ROW,
    WIDTH,
    Arms,
    arms_of,
    difficulty,
    finish,
    mark_at,
    panels,
    tips,
    together_or_apart,
    values,
)

_HALF = alt.Axis(title="AUC")
_AUC = alt.Scale(domain=[0, 1])


def auc_by_measure(areas: pd.DataFrame, *, arms: Arms | None = None, more: str = "") -> Any:
    """How well each measure of the whole run tells the solved from the failed: of `results.diagnosis.auc`."""
    arms = arms or arms_of(areas)
    rows = areas.loc[(areas.window == "all") & areas.auc.notna()]
    told = [*tips("arm:N", "measure:N", "n:Q", "n_solved:Q"), *_told("auc", "low", "high")]
    base = _row("measure", rows, arms)
    layers = [
        mark_at(0.5),
        base.mark_rule(strokeWidth=1.5).encode(alt.X("low:Q", scale=_AUC, axis=_HALF), alt.X2("high:Q")),
        base.mark_point(filled=True, size=50, opacity=1).encode(alt.X("auc:Q", scale=_AUC, axis=_HALF), tooltip=told),
    ]
    says = (
        "1: every solved puzzle is above every failed one; 0.5: it says nothing. 95 % bootstrap intervals; all seeds."
    )
    title = f"What tells the solved from the failed{more}"
    return together_or_apart(layers, _beside(rows, arms), arms, title, says, _step(rows))


def auc_by_window(areas: pd.DataFrame, *, arms: Arms | None = None, more: str = "") -> Any:
    """The AUC of -lambda_1 over each window of the run, in their order: of `results.diagnosis.auc` with windows."""
    rows = areas.loc[(areas.window != "all") & (areas.measure == "-lambda_1") & areas.auc.notna()]
    x = alt.X("window:N", title=None, sort=list(dict.fromkeys(rows.window)), axis=alt.Axis(labelAngle=-30))
    says = "Early windows near 0.5: what decides is not yet there. 95 % bootstrap intervals; all seeds."
    return _with_intervals(rows, x, "auc", arms, f"The first exponent as the run goes on{more}", says, line=False)


def auc_by_decile(deciles: pd.DataFrame, *, arms: Arms | None = None, more: str = "") -> Any:
    """Whether lambda_1 says more than drift does: of `results.diagnosis.by_decile`."""
    scale = alt.Scale(domain=list(range(1, DECILES + 1)))  # those without an AUC have their place
    x = alt.X("decile:O", title="decile of late drift, of the unsettled", axis=alt.Axis(labelAngle=0), scale=scale)
    says = "AUC of -lambda_1 among puzzles that drift about as much; 0.5: no more than drift says. All seeds."
    rows = deciles.loc[deciles.auc.notna()]
    return _with_intervals(rows, x, "auc", arms, f"Exponent beyond drift{more}", says)


def auc_by_difficulty(bins: pd.DataFrame, *, arms: Arms | None = None, more: str = "") -> Any:
    """Whether lambda_1 says more than difficulty does: of `results.diagnosis.by_difficulty`."""
    rows = bins.loc[bins.auc.notna()]
    name = str(bins.measure.iloc[0]).replace("_", " ")
    x = difficulty(name)
    says = "AUC of -lambda_1 among puzzles of about the same difficulty. All seeds."
    return _with_intervals(rows, x, "auc", arms, f"Exponent within difficulty{more}", says)


def settled_by_threshold(below: pd.DataFrame, *, more: str = "") -> Any:
    """The 2 x 2 for every threshold: of `results.diagnosis.thresholds`, a panel an arm."""
    names = {"settled_solved": "solved", "settled_failed": "failed"}
    rows = below.melt(["arm", "percentile"], list(names), "outcome", "share").assign(
        outcome=lambda rows: rows.outcome.map(names)
    )
    scale = alt.Scale(domain=["solved", "failed"], range=[COLOURS[0], COLOURS[1]])
    colour = alt.Color("outcome:N", scale=scale, title=None, legend=alt.Legend(orient="top"))
    x = alt.X("percentile:Q", title="threshold: percentile of late drift")
    y = alt.Y("share:Q", axis=alt.Axis(format="%", title="settled"), scale=alt.Scale(domain=[0, 1]))
    told = [*tips("arm:N", "outcome:N", "percentile:Q"), alt.Tooltip("share:Q", format=".1%")]
    panel = alt.Chart().mark_line(strokeWidth=2, point=True).encode(x, y, colour, tooltip=told)
    says = "Share of the solved and of the failed below a threshold of late drift, whichever it is. All seeds."
    panel = panel.properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)
    chart = panels(panel, "arm", list(dict.fromkeys(rows.arm)), rows.dropna())
    return finish(chart, f"Settled, by threshold{more}", says)


def freed_by_restart(restarts: pd.DataFrame, *, arms: Arms | None = None, more: str = "") -> Any:
    """The share of the failed puzzles that some restart solves, by sigma: of `results.diagnosis.restarts`."""
    ticks, scale = alt.Axis(values=sorted(set(restarts.sigma))), alt.Scale(type="log", nice=False)
    x = alt.X("sigma:Q", title="sigma of the start", scale=scale, axis=ticks)
    says = (
        f"Of {int(restarts.restarts.max())} starts z0 + sigma xi a failed puzzle: those that none solves fail by their "
        "input. 95 % Wilson intervals over puzzles; all seeds."
    )
    return _with_intervals(restarts, x, "some", arms, f"Freed by a restart{more}", says, percent=True)


def fates_of_failed(fates: pd.DataFrame, *, arms: Arms | None = None, more: str = "") -> alt.LayerChart:
    """What has become of the failed far past training, an arm a row: of `results.diagnosis.fates`."""
    arms = arms or arms_of(fates)
    names = {"escaped": "escaped", "moving": "still moving", "settled_wrong": "settled wrong"}
    of_arm = fates.loc[fates.failed > 0].replace(math.inf, math.nan)  # no half-life where none escapes
    rows = of_arm.melt(["arm", "failed", "half_life"], list(names), "fate", "puzzles")
    rows = rows.assign(share=rows.puzzles / rows.failed, place=rows.fate.map(list(names).index))
    rows["fate"] = rows.fate.map(names)
    scale = alt.Scale(domain=list(names.values()), range=[COLOURS[0], COLOURS[5], COLOURS[1]])
    share = alt.Tooltip("share:Q", format=".1%")
    half = alt.Tooltip("half_life:Q", format=".3g", title="half-life, ACT steps")
    base = alt.Chart(values(rows)).encode(
        alt.X("share:Q", stack="zero", axis=alt.Axis(format="%", title="of the failed"), scale=_AUC),
        alt.Y("arm:N", title=None, sort=list(arms.ordered)),
        order="place:Q",
    )
    legend = alt.Legend(orient="top")
    bars = base.mark_bar().encode(
        alt.Color("fate:N", scale=scale, title=None, legend=legend),
        tooltip=[*tips("arm:N", "fate:N", "puzzles:Q", "failed:Q"), share, half],
    )
    says = (
        "Of the puzzles that fail after as many ACT steps as in training, at the end of a run far past it. All seeds."
    )
    return finish(alt.layer(bars), f"Fates of the failed{more}", says, width=WIDTH - 160, height=alt.Step(ROW))


def varied_estimates(robustness: pd.DataFrame, *, arms: Arms | None = None) -> Any:
    """How much lambda_1 changes with how it is estimated: of `results.diagnosis.robustness`."""
    arms = arms or arms_of(robustness)
    base = _row("variation", robustness, arms)
    changes = [alt.Tooltip(f"{x}:Q", format=".2g") for x in _CHANGES]
    told = [*tips("arm:N", "variation:N", "n:Q"), *_told("order"), *changes]
    layers = [
        base.mark_rule(strokeWidth=1.5).encode(alt.X("mean:Q", title=_CHANGE), alt.X2("largest:Q")),
        base.mark_point(filled=True, size=50, opacity=1).encode(alt.X("mean:Q"), tooltip=told),
        base.mark_tick(thickness=2, size=8).encode(alt.X("largest:Q"), tooltip=told),
    ]
    says = (
        "Against the usual estimate of the same puzzles: a dot is the mean change, a line's end the largest. All seeds."
    )
    rows = _beside(robustness, arms)
    return together_or_apart(layers, rows, arms, "The estimator, varied", says, _step(rows))


_CHANGES = ("mean", "largest")
_CHANGE = "change of lambda_1, nats a sub-update"


def _row(name: str, rows: pd.DataFrame, arms: Arms) -> alt.Chart:
    """Marks in a row for each value of column `name`, those of an arm in its colour, beside each other."""
    order, scale = list(dict.fromkeys(rows[name])), alt.Scale(paddingInner=0.5)
    y = alt.Y(f"{name}:N", title=None, sort=order, scale=scale)
    return alt.Chart().encode(y, alt.YOffset("beside:O"), arms.colour())


def _beside(rows: pd.DataFrame, arms: Arms) -> pd.DataFrame:
    """With column `beside`: the place of an arm among those of its panel."""
    places = {name: int(name != arms.baseline) if arms.apart else at for at, name in enumerate(arms.ordered)}
    return rows.assign(beside=rows.arm.map(places))


def _step(rows: pd.DataFrame) -> alt.Step:
    return alt.Step(ROW if len(set(rows.arm)) == 1 else 8)


def _told(*names: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:Q", format=".3f") for name in names]


def _with_intervals(
    rows: pd.DataFrame,
    x: alt.X,
    name: str,
    arms: Arms | None,
    title: str,
    says: str,
    *,
    percent: bool = False,
    line: bool = True,
) -> Any:
    """Points with their intervals (low, high) over x, an arm a colour."""
    arms = arms or arms_of(rows)
    axis = alt.Axis(format="%", title="puzzles") if percent else _HALF
    y = alt.Y(f"{name}:Q", axis=axis, scale=_AUC)
    base, colour = alt.Chart(), arms.colour()
    told = ["arm:N", x, *_told(name, "low", "high")]
    layers = [
        base.mark_rule(opacity=0.5).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), colour),
        *([base.mark_line(strokeWidth=2).encode(x, y, colour)] if line else []),
        base.mark_point(filled=True, size=50, opacity=1).encode(x, y, colour, tooltip=[t for t in told if t is not x]),
    ]
    return together_or_apart(layers, rows, arms, title, says)

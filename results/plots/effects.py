"""What is the answer, and how sure: arms against their baseline."""

import json
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from scipy.special import stdtrit

from results.plots.style import (
    BASELINE,
    COLOURS,
    HEIGHT,
    PANEL_WIDTH,
    ROW,
    WIDTH,
    Arms,
    arms_of,
    finish,
    jittered,
    log_ticks,
    mark_at,
    named,
    panels,
    tips,
    titles,
    values,
)
from results.points import point_fields
from results.rows import rows_of
from results.signals import metric_name

SHOWN = ("best", "final", "equal_compute", "perturbed")
_POINTS = alt.Axis(title="points of exact accuracy", format="+.1~f")


def paired_differences(
    comparison: pd.DataFrame,
    differences: pd.DataFrame | None = None,
    metrics: tuple[str, ...] = SHOWN,
    *,
    arms: Arms | None = None,
) -> alt.FacetChart:
    """Arm minus baseline with its 95 % interval, in points: a panel a metric and sigma, a row an arm and grid point.

    Dots are the seeds' own differences. Every arm is there, however many there are.

    comparison, differences: the tables of those names, of one sweep.
    """
    arms = arms or arms_of(comparison)
    effects = _own_depth(comparison).loc[lambda rows: rows.metric.isin(metrics) & rows.difference.notna()]
    keys = ["arm", "point", "metric", "sigma"]
    what = dict(zip(zip(effects.metric, effects.sigma, strict=True), map(metric_name, rows_of(effects)), strict=True))
    parts = [effects[[*keys, "depth", "difference", "low", "high", "n_seeds"]].assign(part="effect")]
    if differences is not None and len(differences):
        seeds = differences.merge(effects[[*keys, "depth"]], on=[*keys, "depth"])
        offset = [jittered(64)[int(seed) % 64] for seed in seeds.seed]
        parts.append(seeds[[*keys, "seed", "trial_id", "difference"]].assign(part="seed", offset=offset))
    rows = pd.concat(parts, ignore_index=True)
    for column in ("difference", "low", "high"):
        rows[column] = 100 * rows[column].astype(float)
    rows["row"] = titles(rows)
    rows["what"] = [what[key] for key in zip(rows.metric, rows.sigma, strict=True)]
    x = alt.X("difference:Q", axis=_POINTS)
    y = alt.Y("row:N", title=None, sort=list(dict.fromkeys(rows["row"])))
    colour = arms.colour(legend=False)
    told = [alt.Tooltip(f"{name}:Q", format="+.2f") for name in ("difference", "low", "high")]
    base = alt.Chart()
    effect, seed = base.transform_filter("datum.part == 'effect'"), base.transform_filter("datum.part == 'seed'")
    layers = [mark_at(0)]
    if len(parts) > 1:
        dots = seed.mark_circle(size=16, opacity=0.45)
        lie = alt.YOffset("offset:Q", scale=alt.Scale(domain=[-1.6, 1.6]))
        layers.append(dots.encode(x, y, lie, colour, tooltip=[*named(rows), *tips("seed:Q", "trial_id:N"), told[0]]))
    layers += [
        effect.mark_rule(strokeWidth=2.5).encode(alt.X("low:Q"), y, alt.X2("high:Q"), colour),
        effect.mark_point(size=70, filled=True, opacity=1).encode(
            x, y, colour, tooltip=[*named(rows), *tips("what:N"), *told, alt.Tooltip("n_seeds:Q", title="seeds")]
        ),
    ]
    says = f"Arm minus {arms.baseline} over all seeds, with 95 % intervals."
    says += " Small dots are seeds." if len(parts) > 1 else ""
    panel = alt.layer(*layers).properties(width=WIDTH - 160, height=alt.Step(ROW))
    chart = panels(panel, "what", list(dict.fromkeys(rows.what)), rows, columns=1)
    return finish(chart, "Paired differences", says)


def sigma_ladder(comparison: pd.DataFrame, ladder: pd.Series, *, arms: Arms | None = None) -> alt.FacetChart:
    """Accuracy against the sigma of training, on a log axis: a panel a metric, a line an arm, the baseline as a band.

    Where the grid has other fields besides sigma, a panel a metric and point of those. The band is the 95 % t interval
    of the baseline's mean over its seeds; of one seed, a line.

    ladder: sigma of each row of the comparison (`training_sigma`), nan where there is none.
    """
    arms = arms or arms_of(comparison)
    rows = _own_depth(comparison.assign(ladder=ladder)).dropna(subset=["ladder", "arm_mean"])
    rows = rows.loc[rows.metric.isin(SHOWN)].sort_values("ladder", kind="stable")
    rows = rows.assign(what=[metric_name(row) for row in rows_of(rows)])
    half = _half_width(rows.baseline_sd, rows.n_seeds)
    low, high = (rows.baseline_mean - half).clip(lower=0), (rows.baseline_mean + half).clip(upper=1)
    rows = rows.assign(base_low=low, base_high=high)
    rest = [_without_sigma(point) for point in rows.point.fillna("")]
    of_panel = titles(rows.assign(point=rest, arm=rows.arm if arms.apart else ""))
    rows = rows.assign(panel=[": ".join(filter(None, pair)) for pair in zip(rows.what, of_panel, strict=True)])
    kept = ["arm", "point", "what", "panel", "ladder", "baseline_mean", "arm_mean", "base_low", "base_high", "n_seeds"]
    ticks = alt.Axis(values=log_ticks(rows.ladder))
    x = alt.X("ladder:Q", scale=alt.Scale(type="log"), title="sigma of the training", axis=ticks)
    axis = alt.Axis(format="%", title="exact accuracy")
    y = alt.Y("arm_mean:Q", axis=axis, scale=alt.Scale(zero=False))
    base = alt.Chart()
    band = base.mark_area(opacity=0.12, color=BASELINE)
    told = [alt.Tooltip(f"{name}:Q", format=".4f") for name in ("arm_mean", "baseline_mean")]
    told = [*named(rows), alt.Tooltip("ladder:Q", title="sigma"), *told, alt.Tooltip("n_seeds:Q", title="seeds")]
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=45, filled=True))
    panel = alt.layer(
        band.encode(x, alt.Y("min(base_low):Q", axis=axis), alt.Y2("max(base_high):Q")),
        base.mark_line(strokeWidth=1, color=BASELINE).encode(x, alt.Y("mean(baseline_mean):Q")),
        line.encode(x, y, arms.colour(), arms.dash(), tooltip=told),
    ).properties(width=PANEL_WIDTH + 40, height=HEIGHT - 80)
    order = list(dict.fromkeys(rows.sort_values("what", kind="stable").panel))
    says = f"Lines are arms' means over all seeds, the grey band is {arms.baseline} with its 95 % interval over seeds."
    return finish(panels(panel, "panel", order, rows[kept], columns=2), "Sigma of the training", says)


def difference_map(comparison: pd.DataFrame, metrics: tuple[str, ...] = SHOWN) -> alt.LayerChart | alt.FacetChart:
    """The difference to the baseline in points, bold where the 95 % interval leaves out 0.

    Arms and grid points x metrics and evaluated sigmas. Where arms are trained with several sigmas, a panel a metric:
    arms x the sigma of the training.
    """
    rows = _own_depth(comparison)
    rows = rows.loc[rows.metric.isin(metrics) & rows.difference.notna()]
    rows = rows.assign(
        row=titles(rows),
        what=[metric_name(row) for row in rows_of(rows)],
        apart=(rows.low > 0) | (rows.high < 0),
        **{name: 100 * rows[name].astype(float) for name in ("difference", "low", "high")},
    )
    limit = float(rows.difference.abs().max() or 1)
    kept = ["arm", "point", "row", "what", "difference", "low", "high", "n_seeds", "apart"]
    trained = training_sigma(rows).fillna(0.0)
    rows = rows.assign(ladder=trained.map(_rung))
    on_ladder = (len(set(trained[trained > 0])) > 1) and not rows.duplicated(["arm", "ladder", "what"]).any()
    if on_ladder:
        kept.append("ladder")
        rows = rows.assign(row=rows.arm)
        order = list(dict.fromkeys(map(_rung, sorted(trained))))
        x = alt.X("ladder:N", title="sigma of the training", sort=order, axis=alt.Axis(labelAngle=-35))
    else:
        x = alt.X("what:N", title=None, sort=list(dict.fromkeys(rows.what)), axis=alt.Axis(labelAngle=-35))
    y = alt.Y("row:N", title=None, sort=list(dict.fromkeys(rows["row"])))
    above = alt.condition("datum.difference > 0", alt.value(COLOURS[0]), alt.value(COLOURS[1]))
    size = alt.Opacity("size:Q", scale=alt.Scale(domain=[0, limit], range=[0, 0.75]), legend=None)
    told = [alt.Tooltip(f"{name}:Q", format="+.2f") for name in ("difference", "low", "high")]
    base = alt.Chart().encode(x, y)
    text = alt.Text("difference:Q", format="+.1f")
    chart = alt.layer(
        base.transform_calculate(size="abs(datum.difference)")
        .mark_rect()
        .encode(size, color=above, tooltip=[*named(rows), *tips("what:N"), *told, *tips("n_seeds:Q")]),
        base.transform_filter("datum.apart").mark_text(fontWeight="bold").encode(text=text),
        base.transform_filter("!datum.apart").mark_text().encode(text=text),
    ).properties(width=alt.Step(46), height=alt.Step(24))
    chart = (
        panels(chart, "what", list(dict.fromkeys(rows.what)), rows[kept], columns=1)
        if on_ladder
        else chart.properties(data=values(rows[kept]))
    )
    says = "Points of exact accuracy above (blue) or below the baseline, over all seeds. "
    says += "Bold: the 95 % interval leaves out 0."
    return finish(chart, "Differences at a glance", says)


def _rung(sigma: float) -> str:
    return f"{sigma:.4g}" if sigma else "none"


def training_sigma(comparison: pd.DataFrame) -> pd.Series:
    """The sigma each row's arm was trained with, from its `perturb`: the geometric middle of an interval.

    nan without noise, and for sigma 0, which has no place on a log axis.
    """
    return comparison.perturb.map(_sigma_of).astype(float)


def _without_sigma(point: str) -> str:
    fields = point_fields(point).items()
    return " ".join(f"{field}={value}" for field, value in fields if field not in ("perturb", "perturb.sigma"))


def _sigma_of(perturb: Any) -> float:
    sigmas = np.array(json.loads(perturb)["sigma"] if isinstance(perturb, str) else 0.0)
    return float(np.exp(np.log(sigmas).mean())) if sigmas.all() else np.nan


def _half_width(sd: pd.Series, n: pd.Series) -> pd.Series:
    """Half the 95 % t interval of a mean; 0 of one value."""
    counts = n.astype(float)
    half: Any = stdtrit((counts - 1).clip(lower=1), 0.975) * sd.astype(float) / np.sqrt(counts)
    return half.where(counts > 1, 0.0).fillna(0.0)


def _own_depth(comparison: pd.DataFrame) -> pd.DataFrame:
    """The rows that are read after as many ACT steps as each arm was trained with."""
    return comparison.loc[comparison.trained_depth.fillna(False).astype(bool)]

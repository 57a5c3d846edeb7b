"""How it came: accuracy on its way, and against what it cost."""

import altair as alt
import pandas as pd

from results.plots.style import (
    HEIGHT,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    WIDTH,
    Arms,
    arms_of,
    finish,
    log_ticks,
    named,
    panels,
    tips,
    titles,
    together_or_apart,
    values,
)

MOST_SEED_LINES = 400  # beyond so many runs the thin lines would be most of the page
_ACCURACY = alt.Axis(format="%", title="exact accuracy")


def accuracy_curves(
    curve: pd.DataFrame,
    snapshot: pd.DataFrame | None = None,
    runs: pd.DataFrame | None = None,
    *,
    arms: Arms | None = None,
) -> alt.LayerChart | alt.FacetChart:
    """Clean accuracy on test against step: a line an arm and grid point, a 95 % band over seeds.

    A ring is the best step of a seed, chosen on validation and scored on test. Thin lines are the seeds, on request.
    More than six arms besides the baseline, or any grid points, are small multiples: each panel has the baseline again,
    in black.

    curve, snapshot, runs: of `results.curve`, `results.snapshot` and `results.seed_curves`, of one sweep; each arm is
    drawn at the depth it was trained with.
    """
    arms = arms or arms_of(curve)
    parts = {"line": _clean(curve)}
    if snapshot is not None:
        parts["best"] = _bests(snapshot)
    if runs is not None and runs.trial_id.nunique() <= MOST_SEED_LINES:
        parts["seed"] = _clean(runs).rename(columns={"value": "mean"})
    joined = pd.concat([part.assign(part=name) for name, part in parts.items()], ignore_index=True)
    rows: pd.DataFrame = joined.reindex(columns=list(_DRAWN))
    rows = rows.assign(panel=titles(rows))
    says = f"Lines are means over all seeds{_counted(parts['line'], snapshot)}. Bands are their 95 % intervals."
    if "best" in parts:
        says += " A ring is a seed's best step, chosen on validation, scored on test."
    title, own = "Clean accuracy on test", rows.arm == arms.baseline
    if not arms.apart and len(set(rows.point.dropna())) < 2:
        # Rows that name a panel are shown on a page beside others of theirs: here all stand in one.
        chart = alt.layer(*_layers(rows, arms, legend=True), data=values(rows.drop(columns="panel")))
        return finish(chart, title, says, width=WIDTH, height=HEIGHT)
    order = list(dict.fromkeys(rows.panel if own.all() else rows.panel[~own]))
    if not own.all():
        # In each panel stands the baseline of its grid point, without its seeds, below the arm.
        base = rows.loc[own & (rows.part == "line")].drop(columns="panel")
        places = rows.loc[~own, ["panel", "point"]].drop_duplicates()
        rows = pd.concat([base.merge(places, on="point"), rows.loc[~own]], ignore_index=True)
        says += f" In each panel {arms.baseline} is black."
    panel = alt.layer(*_layers(rows, arms)).properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)
    return finish(panels(panel, "panel", order, rows), title, says)


def _counted(line: pd.DataFrame, snapshot: pd.DataFrame | None) -> str:
    """In brackets, of how many seeds the means are; where that differs, why, as far as the trials' states tell."""
    low, high = line.n_seeds.min(), line.n_seeds.max()
    if low == high:
        return f" ({low})"
    states = set() if snapshot is None else set(snapshot.status)
    if states - {"done", *_CUT_SHORT}:
        return f" ({low} to {high}, as many as have come so far)"
    early = " or ".join(words for state, words in _CUT_SHORT.items() if state in states)
    return f" ({low} to {high}, fewer where a trial {early})" if early else f" ({low} to {high})"


_CUT_SHORT = {"failed": "failed", "stopped": "was stopped", "unreadable": "is unreadable"}


_DRAWN = ("part", "arm", "point", "step", "mean", "low", "high", "n_seeds", "seed", "trial_id")


def _layers(rows: pd.DataFrame, arms: Arms, legend: bool = False) -> list[alt.Chart]:
    """The marks of the parts line, best and seed. Axes span all rows, those that are not shown yet, too."""
    ticks = alt.Axis(grid=False, tickCount=6, tickMinStep=1)
    x = alt.X("step:Q", title="batches trained", axis=ticks, scale=_span(rows.loc[:, ["step"]]))
    y = alt.Y("mean:Q", axis=_ACCURACY, scale=_span(rows.loc[:, ["mean", "low", "high"]]))
    colour, detail = arms.colour(legend=legend), alt.Detail(["arm:N", "point:N"])
    accuracy = alt.Tooltip("mean:Q", title="accuracy", format=".4f")
    known = [end for end in ("low", "high") if len(rows[end].dropna())]
    ends = [alt.Tooltip(f"{end}:Q", title=f"95 %, {end}", format=".4f") for end in known]
    told = [*named(rows), *tips("step:Q"), accuracy, *ends, alt.Tooltip("n_seeds:Q", title="seeds")]

    def of(part: str) -> alt.Chart:
        return alt.Chart().transform_filter(f"datum.part == '{part}'")

    band = of("line").transform_filter("isValid(datum.low)").mark_area(opacity=0.15)
    # From below: a mark takes the pointer from those under it, seen or not, so the means' own come last.
    layers: list[alt.Chart] = [band.encode(x, alt.Y("low:Q", axis=_ACCURACY), alt.Y2("high:Q"), colour, detail)]
    if "seed" in set(rows.part):
        show = alt.param(name="seeds", bind=alt.binding_checkbox(name="each seed "), value=False)
        seeds = of("seed").transform_filter(show).encode(x, y, colour, alt.Detail("trial_id:N"))
        layers.append(seeds.mark_line(strokeWidth=0.8, opacity=0.6).add_params(show))
        layers.append(
            seeds.mark_point(filled=True, size=40, opacity=0).encode(
                tooltip=[*_of_seed(rows), *tips("step:Q"), accuracy]
            )
        )
    layers.append(of("line").mark_line(strokeWidth=2).encode(x, y, colour, arms.dash(legend), detail))
    if "best" in set(rows.part):
        rings = of("best").mark_point(size=50, strokeWidth=1.5, filled=False)
        best = alt.Tooltip("step:Q", title="best step")
        layers.append(rings.encode(x, y, colour, tooltip=[*_of_seed(rows), best, accuracy]))
    means = of("line").mark_point(filled=True, size=60, opacity=0)
    return [*layers, means.encode(x, y, colour, detail, tooltip=told)]


def _span(rows: pd.DataFrame) -> alt.Scale:
    numbers = rows.astype(float)
    return alt.Scale(domain=[numbers.min().min(), numbers.max().max()], nice=True)


def _of_seed(rows: pd.DataFrame) -> list[alt.Tooltip]:
    return [*named(rows), *tips("seed:Q"), alt.Tooltip("trial_id:N", title="trial")]


def _clean(curve: pd.DataFrame) -> pd.DataFrame:
    """The clean rows on test, at the depth that each was trained with."""
    rows = curve.loc[(curve.split == "test") & (curve.sigma == 0)]
    by = ["trial_id"] if "trial_id" in rows else ["arm", "point"]
    return rows.loc[rows.depth == rows.groupby(by, observed=True, dropna=False).depth.transform("min")]


def _bests(snapshot: pd.DataFrame) -> pd.DataFrame:
    best = snapshot.dropna(subset=["best"]).rename(columns={"best": "mean"})
    best = best.assign(step=best.best_step.astype(float), point=best.points).explode("point")
    return best.loc[:, ["arm", "point", "seed", "trial_id", "step", "mean"]]


def accuracy_against_compute(snapshot: pd.DataFrame, *, arms: Arms | None = None) -> alt.LayerChart | alt.FacetChart:
    """Clean accuracy at the end against the FLOPs trained: a dot a seed, a large one an arm's mean.

    snapshot: of `results.snapshot`, of one sweep.
    """
    arms = arms or arms_of(snapshot)
    rows = snapshot.dropna(subset=["final"])
    rows = rows.assign(flops=rows.flops_per_step * rows.final_step.astype(float)).dropna(subset=["flops"])
    by = ["arm", "point"]
    means = rows.groupby(by, sort=False, as_index=False).agg(
        flops=("flops", "mean"), final=("final", "mean"), n=("final", "size")
    )
    dots = rows[["arm", "point", "seed", "trial_id", "flops", "final", "status"]]
    held = pd.concat([dots.assign(part="seed"), means.assign(part="mean")], ignore_index=True)
    scale = alt.Scale(type="log", nice=False, padding=20)
    ticks = alt.Axis(format=".2~s", values=log_ticks(rows.flops))
    x = alt.X("flops:Q", title="FLOPs trained", scale=scale, axis=ticks)
    y = alt.Y("final:Q", axis=_ACCURACY, scale=alt.Scale(zero=False))
    told = [alt.Tooltip("flops:Q", format=".3s", title="FLOPs"), alt.Tooltip("final:Q", format=".4f", title="accuracy")]
    colour = arms.colour()
    seeds, mean = (alt.Chart().transform_filter(f"datum.part == '{part}'") for part in ("seed", "mean"))
    layers = [
        seeds.mark_point(size=30, opacity=0.5, filled=True).encode(
            x, y, colour, tooltip=[*_of_seed(held), *tips("status:N"), *told]
        ),
        mean.mark_point(size=140, filled=True, opacity=1).encode(
            x, y, colour, tooltip=[*named(held), *told, *tips("n:Q")]
        ),
    ]
    says = "A small mark is a seed, a large one an arm's mean over all seeds."
    return together_or_apart(layers, held, arms, "Accuracy against compute", says)

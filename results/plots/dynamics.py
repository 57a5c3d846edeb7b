"""Why: how solved and failed puzzles differ in their dynamics."""

import altair as alt
import pandas as pd

from results.plots.style import (
    COLOURS,
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

_OUTCOME = alt.Color(
    "outcome:N",
    scale=alt.Scale(domain=["solved", "failed"], range=[COLOURS[0], COLOURS[1]]),
    title=None,
    legend=alt.Legend(orient="top"),
)
_TRIAL = ["sweep", "trial_id"]


def _last(trials: pd.DataFrame, diagnostics: pd.DataFrame) -> pd.DataFrame:
    """The rows of each trial's last diagnosis, with its arm."""
    last = diagnostics.loc[diagnostics.step == diagnostics.groupby(_TRIAL).step.transform("max")]
    own = last.drop(columns=[name for name in ("arm", "seed") if name in last])
    return own.merge(trials[[*_TRIAL, "arm", "seed"]], on=_TRIAL)


def lambda_by_outcome(trials: pd.DataFrame, diagnostics: pd.DataFrame, *, more: str = "") -> alt.LayerChart:
    """lambda_1 at each trial's last diagnosis, solved beside failed puzzles, an arm a row.

    A box is the middle half of all seeds' puzzles, its line their median, the whiskers 5 % and 95 %.
    """
    rows = _last(trials, diagnostics)
    rows = rows.assign(outcome=rows.solved.map({True: "solved", False: "failed"}))
    by = rows.groupby(["arm", "outcome"], sort=False).lambda_1
    boxes = by.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack()
    boxes.columns = ["q05", "q25", "median", "q75", "q95"]
    boxes = boxes.assign(puzzles=by.size()).reset_index()
    y = alt.Y("arm:N", title=None, sort=list(dict.fromkeys(trials.arm)))
    beside = alt.YOffset("outcome:N", sort=["solved", "failed"])
    base = alt.Chart(values(boxes)).encode(y, beside)
    quantiles = [alt.Tooltip(f"{q}:Q", format="+.4f") for q in boxes.columns[2:7]]
    told = [*tips("arm:N", "outcome:N", "puzzles:Q"), *quantiles]
    whiskers = alt.X("q05:Q", title="lambda_1, nats a sub-update")
    chart = alt.layer(
        mark_at(0),
        base.mark_rule(strokeWidth=1.5).encode(whiskers, alt.X2("q95:Q"), _OUTCOME),
        base.mark_bar(size=10).encode(alt.X("q25:Q"), alt.X2("q75:Q"), _OUTCOME, tooltip=told),
        base.mark_tick(thickness=2, size=14, color="white").encode(alt.X("median:Q"), tooltip=told),
    )
    says = "Boxes: middle half of the puzzles of all seeds; whiskers: 5 to 95 %."
    return finish(chart, f"First Lyapunov exponent by outcome{more}", says, width=WIDTH - 160, height=alt.Step(ROW))


def settled_by_outcome(trials: pd.DataFrame, diagnostics: pd.DataFrame, *, more: str = "") -> alt.FacetChart:
    """The 2 x 2 of each arm: whether a puzzle's run settled, and whether it was solved; shares of all puzzles."""
    rows = _last(trials, diagnostics)
    rows = rows.assign(
        outcome=rows.solved.map({True: "solved", False: "failed"}),
        end=rows.settled.map({True: "settled", False: "wanders"}),
    )
    cells = rows.groupby(["arm", "end", "outcome"], sort=False).lambda_1.agg(puzzles="size", lambda_1="median")
    cells = cells.reset_index()
    cells = cells.assign(share=cells.puzzles / cells.groupby("arm").puzzles.transform("sum"))
    order = [arm for arm in arms_of(trials).names if arm in set(cells.arm)]
    base = alt.Chart().encode(
        alt.X("outcome:N", title=None, sort=["solved", "failed"], axis=alt.Axis(labelAngle=0)),
        alt.Y("end:N", title=None, sort=["settled", "wanders"]),
    )
    shade = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.08, 0.7]), legend=None)
    median = alt.Tooltip("lambda_1:Q", format="+.4f", title="median lambda_1")
    told = [*tips("arm:N", "end:N", "outcome:N", "puzzles:Q"), alt.Tooltip("share:Q", format=".1%"), median]
    panel = alt.layer(
        base.mark_rect().encode(shade, _OUTCOME, tooltip=told),
        base.mark_text().encode(text=alt.Text("share:Q", format=".0%")),
    ).properties(width=140, height=70)
    says = "Shares of the diagnosed puzzles of all seeds; settled: the late drift is below Otsu's threshold."
    return finish(panels(panel, "arm", order, cells), f"Settled and solved{more}", says)


def solved_by_difficulty(
    solved: pd.DataFrame, *, arms: Arms | None = None, more: str = ""
) -> alt.LayerChart | alt.FacetChart:
    """Share solved against difficulty: a line an arm over bins of puzzles, each with its 95 % Wilson interval.

    solved: a row an arm and bin, of `results.by_difficulty`: arm, difficulty (the bin's middle), measure, n, share, low
    and high.
    """
    arms = arms or arms_of(solved)
    x = difficulty(str(solved.measure.iloc[0]))
    y = alt.Y("share:Q", axis=alt.Axis(format="%", title="solved"))
    base, colour = alt.Chart(), arms.colour()
    ends = (alt.Tooltip(f"{name}:Q", format=".3f") for name in ("share", "low", "high"))
    layers = [
        base.mark_rule(opacity=0.5).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), colour),
        base.mark_line(strokeWidth=2).encode(x, y, colour),
        base.mark_point(filled=True, size=50, opacity=1).encode(
            x, y, colour, tooltip=[*tips("arm:N", "difficulty:Q", "n:Q"), *ends]
        ),
    ]
    return together_or_apart(layers, solved, arms, f"Solved against difficulty{more}", "Clean, at the end, all seeds.")


def escape_by_depth(
    escape: pd.DataFrame, *, arms: Arms | None = None, title: str = "Escape by depth"
) -> alt.LayerChart | alt.FacetChart:
    """Of the puzzles failed at the training's depth, the share that more ACT steps solve: a line an arm.

    escape: of `results.escape`: a row an arm and depth, with depth, escaped (share), failed (puzzles) and solved (the
    share of all puzzles right at that depth).
    """
    arms = arms or arms_of(escape)
    depths = sorted(map(int, set(escape.depth)))
    x = alt.X("depth:Q", title="ACT steps", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=depths))
    most = max(0.1, float(escape.escaped.max()))
    y = alt.Y("escaped:Q", axis=alt.Axis(format="%", title="escaped"), scale=alt.Scale(domain=[0, most], nice=True))
    base, colour = alt.Chart(), arms.colour()
    shares = [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("escaped", "solved")]
    told = [*tips("arm:N", "depth:Q"), *shares, *tips("failed:Q")]
    layers = [
        base.mark_line(strokeWidth=2).encode(x, y, colour),
        base.mark_point(filled=True, size=50, opacity=1).encode(x, y, colour, tooltip=told),
    ]
    says = "Share, of the puzzles failed at the training's depth, that are right after more ACT steps. All seeds."
    return together_or_apart(layers, escape, arms, title, says)

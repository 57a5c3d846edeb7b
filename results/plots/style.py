"""What all charts share: an arm's colour and mark, their look, and tables as their data."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from results.points import point_fields

INK = "currentColor"  # the page's text colour, in its light and its dark dress; black in a notebook and in a paper
BASELINE = "currentColor"
# Okabe and Ito, "Color Universal Design" (2008), without the yellow, which a white page swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ([1, 0], [6, 3], [2, 2])
MOST_TOGETHER = 6  # arms in one panel besides the baseline; more are small multiples
WIDTH, HEIGHT, PANEL_WIDTH, PANEL_HEIGHT, ROW = 520, 260, 220, 130, 18
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        **dict.fromkeys(("labelColor", "titleColor", "tickColor", "domainColor", "gridColor"), INK),
        **{"gridOpacity": 0.12, "domainOpacity": 0.5, "tickOpacity": 0.5, "labelFontSize": 12, "titleFontSize": 12},
        **{"titleFontWeight": "normal", "labelLimit": 260, "labelSeparation": 8},
    },
    "legend": {
        **{"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "labelLimit": 260},
        **{"orient": "top", "columns": 3, "symbolOpacity": 1},
    },
    "header": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "labelLimit": 240},
    "title": {"color": INK, "anchor": "start", "offset": 10, "fontSize": 14, "subtitleColor": INK},
    "text": {"color": INK},
    "rule": {"color": INK},
}


@dataclass(frozen=True)
class Arms:
    """The arms of a sweep in its own order, and how each looks in every chart: the baseline black, drawn through.

    Six colours that the colour-blind tell apart; an arm beyond the sixth has the first's again, in other dashes.
    """

    names: tuple[str, ...]
    baseline: str

    @property
    def others(self) -> tuple[str, ...]:
        """All but the baseline."""
        return tuple(name for name in self.names if name != self.baseline)

    @property
    def ordered(self) -> tuple[str, ...]:
        """The baseline first."""
        return (*(name for name in self.names if name == self.baseline), *self.others)

    @property
    def apart(self) -> bool:
        """Whether they are too many for one panel: charts then have a panel an arm."""
        return len(self.others) > MOST_TOGETHER

    @property
    def colours(self) -> dict[str, str]:
        """The colour of each arm."""
        others = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(self.others)}
        return {name: others.get(name, BASELINE) for name in self.ordered}

    @property
    def dashes(self) -> dict[str, list[int]]:
        """The dashes of each arm, in pixels drawn and left out."""
        others = {name: DASHES[i // len(COLOURS) % len(DASHES)] for i, name in enumerate(self.others)}
        return {name: others.get(name, DASHES[0]) for name in self.ordered}

    def colour(self, legend: bool = True) -> alt.Color:
        """The encoding of `arm` as its colour; no legend where each panel has an arm's name."""
        scale = alt.Scale(domain=list(self.colours), range=list(self.colours.values()))
        return alt.Color("arm:N", scale=scale, title=None, **self._legend(legend))

    def dash(self, legend: bool = True) -> alt.StrokeDash:
        """The encoding of `arm` as its dashes."""
        scale = alt.Scale(domain=list(self.dashes), range=list(self.dashes.values()))
        return alt.StrokeDash("arm:N", scale=scale, title=None, **self._legend(legend))

    def _legend(self, wanted: bool) -> dict[str, Any]:
        return {} if wanted and not self.apart else {"legend": None}


def arms_of(table: pd.DataFrame, baseline: str | None = None) -> Arms:
    """The arms of a table of trials, curves or comparisons, in its order.

    The baseline is the table's own where it has a column of that name; else the first arm, if none is given.
    """
    names = [str(name) for name in dict.fromkeys(table.arm)]
    if baseline is None:
        own = list(table["baseline"].dropna()) if "baseline" in table else names
        baseline = str(own[0]) if own else ""
    return Arms(tuple(names if baseline in names else (baseline, *names)), baseline)


class Values(alt.InlineData):
    """A chart's own data. It never changes: a chart is copied whenever something is added to it, and this is not."""

    def __deepcopy__(self, memo: Any = None) -> "Values":
        return self


def values(rows: pd.DataFrame | Iterable[dict[str, Any]]) -> Values:
    """A table as a chart's own data, numbers to five digits; what is missing is left out."""
    records: Any = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
    known = [
        {str(name): value for name, value in row.items() if isinstance(value, str) or pd.notna(value)}
        for row in records
    ]
    return Values(values=[{name: _plain(value) for name, value in row.items()} for row in known])


def _plain(value: Any) -> Any:
    if isinstance(value, str | bool):
        return value
    number = float(value)
    return int(number) if number.is_integer() else float(f"{number:.5g}")


def finish(chart: Any, title: str, subtitle: str = "", **size: Any) -> Any:
    """The chart with its title, what one must know to read it, and the look of all."""
    words = alt.Title(title, subtitle=_lines(subtitle)) if subtitle else alt.Title(title)
    return chart.properties(title=words, **size).configure(**CONFIG)


def together_or_apart(
    layers: list[alt.Chart], rows: pd.DataFrame, arms: Arms, title: str, says: str, height: Any = None
) -> Any:
    """Layers over `rows` in one panel; of more than six arms a panel an arm, each with the baseline again."""
    if not arms.apart:
        return finish(alt.layer(*layers, data=values(rows)), title, says, width=WIDTH, height=height or HEIGHT)
    own = rows.loc[rows.arm != arms.baseline]
    names = pd.DataFrame({"panel": list(dict.fromkeys(own.arm))})
    again = rows.loc[rows.arm == arms.baseline].merge(names, how="cross")
    held = pd.concat([again, own.assign(panel=own.arm)], ignore_index=True)  # what comes later is drawn above
    panel = alt.layer(*layers).properties(width=PANEL_WIDTH, height=height or PANEL_HEIGHT)
    says = f"{says} In each panel {arms.baseline} is black."
    return finish(panels(panel, "panel", list(names.panel), held), title, says)


def panels(panel: Any, by: str, order: list[str], rows: pd.DataFrame, columns: int = 3) -> alt.FacetChart:
    """A panel for each value of column `by` of the rows.

    Each of several columns has its own x axis: a shared one would stand below empty places of an incomplete row, too.
    """
    header = alt.Header(labelAnchor="middle" if columns > 1 else "start")
    facet = alt.Facet(f"{by}:N", title=None, sort=order, header=header)
    chart = panel.facet(facet, data=values(rows), columns=columns)
    return chart.resolve_axis(x="independent" if columns > 1 else "shared")


def _lines(text: str, width: int = 76) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f"{word} "
    return [line.strip() for line in lines]


def difficulty(measure: str) -> alt.X:
    """The encoding of `difficulty` by what it is measured in: all but a rating are whole numbers."""
    step = alt.Undefined if measure == "rating" else 1
    return alt.X("difficulty:Q", title=measure, scale=alt.Scale(zero=False), axis=alt.Axis(tickMinStep=step))


def mark_at(x: float) -> alt.Chart:
    """A thin line at x: what the marks of a chart are read against."""
    return alt.Chart(values([{}])).mark_rule(opacity=0.5).encode(x=alt.datum(x))


def log_ticks(found: Iterable[float]) -> list[float]:
    """Few ticks for a log axis over values above 0: powers of ten; over less than two decades 1, 2 and 5 of each."""
    low, high = min(found := list(found)), max(found)
    least, most = 0.999 * low, 1.001 * high
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ("1", "125"):
        ticks = [tick for power in powers for step in steps if least <= (tick := float(f"{step}e{power}")) <= most]
        if len(ticks) > 2:
            return ticks
    return ticks or sorted({low, high})


def titles(rows: pd.DataFrame) -> list[str]:
    """The arm and grid point of each row in words; of a field's path its end, where no other field has the same."""
    points = [point_fields(point) for point in rows.point.fillna("")]
    fields = dict.fromkeys(field for point in points for field in point)
    ends = Counter(field.rpartition(".")[2] for field in fields)
    short = {field: end if ends[end := field.rpartition(".")[2]] == 1 else field for field in fields}
    words = [" ".join(f"{short[field]}={value}" for field, value in point.items()) for point in points]
    return [", ".join(filter(None, pair)) for pair in zip(rows.arm.astype(str), words, strict=True)]


def tips(*fields: str) -> list[alt.Tooltip]:
    """Fields as lines of a tooltip. Of text altair makes the same, and takes a hundred times as long."""
    return [alt.Tooltip(field) for field in fields]


def named(rows: pd.DataFrame) -> list[alt.Tooltip]:
    """What a tooltip begins with: the arm, and its grid point where rows have one."""
    return tips("arm:N", "point:N") if rows.point.fillna("").astype(bool).any() else tips("arm:N")


def jittered(n: int) -> list[float]:
    """Offsets between -1 and 1 that keep n dots of one place apart, always the same."""
    return [((i * 0.6180339887) % 1) * 2 - 1 for i in range(n)]

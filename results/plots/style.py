"""What all charts share: an arm's colour and mark, their look, and tables as their data."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

INK = "currentColor"  # the page's text colour, in its light and its dark dress; black in a notebook and in a paper
BASELINE = "currentColor"
# Okabe and Ito, "Color Universal Design" (2008), without the yellow, which a white page swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ([1, 0], [6, 3], [2, 2])
MOST_TOGETHER = 6  # arms in one panel; more are small multiples
WIDTH, HEIGHT, PANEL_WIDTH, PANEL_HEIGHT, ROW = 520, 260, 220, 130, 18
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        **dict.fromkeys(("labelColor", "titleColor", "tickColor", "domainColor", "gridColor"), INK),
        **{"gridOpacity": 0.12, "domainOpacity": 0.5, "tickOpacity": 0.5, "labelFontSize": 12, "titleFontSize": 12},
        **{"titleFontWeight": "normal", "labelLimit": 260},
    },
    "legend": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "labelLimit": 260},
    "header": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "labelLimit": 240},
    "title": {"color": INK, "anchor": "start", "fontSize": 14, "subtitleColor": INK},
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
    def colours(self) -> dict[str, str]:
        """The colour of each arm."""
        others = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(self.others)}
        return {name: others.get(name, BASELINE) for name in self.ordered}

    def colour(self, title: str | None = None, legend: bool = True) -> alt.Color:
        """The encoding of `arm` as its colour."""
        scale = alt.Scale(domain=list(self.colours), range=list(self.colours.values()))
        return alt.Color("arm:N", scale=scale, title=title, legend=_legend() if legend else None)

    def dash(self, legend: bool = True) -> alt.StrokeDash:
        """The encoding of `arm` as its dashes."""
        dashes = [DASHES[i // len(COLOURS) % len(DASHES)] for i in range(len(self.others))]
        scale = alt.Scale(domain=list(self.ordered), range=[DASHES[0], *dashes][-len(self.ordered) :])
        return alt.StrokeDash("arm:N", scale=scale, title=None, legend=_legend() if legend else None)


def arms_of(table: pd.DataFrame, baseline: str | None = None) -> Arms:
    """The arms of a table of trials, curves or comparisons, in its order.

    The baseline is the table's own where it has a column of that name; else the first arm, if none is given.
    """
    names = [str(name) for name in dict.fromkeys(table.arm)]
    if baseline is None:
        own = list(table["baseline"].dropna()) if "baseline" in table else names
        baseline = str(own[0]) if own else ""
    return Arms(tuple(names if baseline in names else (baseline, *names)), baseline)


def values(rows: pd.DataFrame | Iterable[dict[str, Any]]) -> alt.InlineData:
    """A table as a chart's own data, numbers to five digits; what is missing is left out."""
    records: Any = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
    known = [
        {str(name): value for name, value in row.items() if isinstance(value, str) or pd.notna(value)}
        for row in records
    ]
    return alt.InlineData(values=[{name: _plain(value) for name, value in row.items()} for row in known])


def _plain(value: Any) -> Any:
    if isinstance(value, str | bool):
        return value
    number = float(value)
    return int(number) if number.is_integer() else float(f"{number:.5g}")


def finish(chart: Any, title: str, subtitle: str = "", **size: Any) -> Any:
    """The chart with its title, what one must know to read it, and the look of all."""
    words = alt.Title(title, subtitle=_lines(subtitle)) if subtitle else alt.Title(title)
    return chart.properties(title=words, **size).configure(**CONFIG)


def together_or_apart(layers: list[alt.Chart], rows: pd.DataFrame, arms: Arms, title: str, says: str) -> Any:
    """Layers over `rows` in one panel; of more than six arms a panel an arm, each with the baseline again."""
    if len(arms.others) <= MOST_TOGETHER:
        return finish(alt.layer(*layers, data=values(rows)), title, says, width=WIDTH, height=HEIGHT)
    own = rows.loc[rows.arm != arms.baseline]
    panels = pd.DataFrame({"panel": list(dict.fromkeys(own.arm))})
    again = rows.loc[rows.arm == arms.baseline].merge(panels, how="cross")
    held = values(pd.concat([own.assign(panel=own.arm), again], ignore_index=True))
    panel = alt.layer(*layers).properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)
    facet = alt.Facet("panel:N", title=None, sort=list(panels.panel))
    return finish(panel.facet(facet, data=held, columns=3), title, f"{says} In each panel {arms.baseline} is black.")


def _lines(text: str, width: int = 76) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f"{word} "
    return [line.strip() for line in lines]


def _legend() -> alt.Legend:
    return alt.Legend(orient="top", columns=3, symbolOpacity=1)


def place(arm: Any, point: Any) -> str:
    """An arm and its grid point in words."""
    return ", ".join(filter(None, (str(arm), "" if pd.isna(point) else str(point))))


def jittered(n: int) -> list[float]:
    """Offsets between -1 and 1 that keep n dots of one place apart, always the same."""
    return [((i * 0.6180339887) % 1) * 2 - 1 for i in range(n)]

"""The parts that a page is made of, as JSON's own types: tables, figures, and a table as CSV."""

import math
import re
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

ROWS = 500  # of a table on the page
_WORDS = frozenset(("reason", "in words"))  # columns whose text is a sentence


def table(
    id: str,
    title: str,
    frame: pd.DataFrame,
    schema: Any,
    *,
    note: str = "",
    terms: Any = (),
    links: dict[str, str] | None = None,
    keys: dict[str, list[float]] | None = None,
    folded: bool = False,
    whole: str = "",
) -> dict[str, Any]:
    """A table that sorts; `links` says where the cells of a column lead, `terms` what words in it mean.

    Columns that hold nothing are left out. `schema` describes the others. `keys` are the numbers that a column of words
    about numbers is sorted by. `whole` says where all rows of one that is cut are.
    """
    keys = keys or {}
    frame = frame.loc[:, [name for name in frame if name == "arm" or set(frame[name].dropna().map(str)) - {""}]]
    described = {field.name: field.metadata[b"description"].decode() for field in schema or ()}
    numeric = {name: pd.api.types.is_numeric_dtype(frame[name]) and frame[name].dtype != bool for name in frame}
    columns = [
        {
            "name": str(name),
            "label": str(name).replace("_", " "),
            "title": described.get(str(name), ""),
            "number": number or name in keys,
            "words": name in _WORDS,
        }
        for name, number in numeric.items()
    ]
    to = [(links or {}).get(str(name)) for name in frame]
    rows = [
        [cell_of(value, number, at) for value, number, at in zip(row, numeric.values(), to, strict=True)]
        for row in frame.head(ROWS).itertuples(index=False)
    ]
    for at, name in enumerate(frame):
        for row, key in zip(rows, keys.get(str(name), ()), strict=False):
            row[at] = {"text": row[at], "key": None if pd.isna(key) else _key(key)}
    if len(frame) > ROWS:
        note = f"{note} The first {ROWS} of {len(frame)} rows; filters choose among these. {whole}".strip()
    item = {"kind": "table", "id": f"table-{id}", "title": title, "note": note, "columns": columns, "rows": rows}
    return item | {"terms": [list(term) for term in terms], "folded": folded}


def cell_of(value: Any, number: bool, at: str | None) -> Any:
    """What the page takes for a cell: its text, or with it the number it is sorted by, or the place it leads to."""
    if number:
        if pd.isna(value):
            return ""
        whole = float(value).is_integer() and not isinstance(value, float)
        return {"text": str(int(value)) if whole else f"{value:.4g}", "key": _key(value)}
    if isinstance(value, list | np.ndarray):  # a value a seed
        return ", ".join(f"{one:.3g}" if isinstance(one, float) else str(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "" if pd.isna(value) else str(value)
    return {"text": text, "at": at} if at and text else text


def _key(value: float) -> float:
    """What a number is sorted by; JSON has no infinite one."""
    return float(np.clip(value, -1e308, 1e308))


def figure(name: str, chart: alt.TopLevelMixin) -> dict[str, Any]:
    """A chart as the page takes it; its title and what one must know to read it are words apart, too, which wrap."""
    spec = chart.to_dict(validate=False)
    title = spec["title"]
    spec.pop("$schema", None)
    note = " ".join(title["subtitle"]) if "subtitle" in title else ""
    return {"kind": "figure", "id": f"figure-{name}", "title": title["text"], "note": note, "spec": spec}


def file_stem(sweep: str) -> str:
    """What the names of a sweep's files begin with: of its name what every file system takes, and not too much."""
    return re.sub(r"[^\w.-]+", "_", sweep).lstrip(".")[:60]


def csv_of(frame: pd.DataFrame) -> str:
    """A table as CSV, numbers to seven digits, without packed bits."""
    objects = [name for name in frame if frame[name].dtype == object]
    packed = [name for name in objects if any(isinstance(value, bytes) for value in frame[name])]
    return frame.drop(columns=packed).to_csv(index=False, float_format="%.7g")


def plain(value: Any) -> Any:
    """A view as JSON can hold it: what is not a number is null."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

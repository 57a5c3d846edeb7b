"""A sweep on one HTML page that needs nothing else: `rrm results report`."""

import json
import os
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from results.gather import SweepTables
from results.page_items import plain
from results.storage import Location, write_atomically
from results.view import view

_PAGE = files("results") / "page"
_SCRIPTS = ("page.js", "tables.js", "figures.js", "puzzles.js", "trials.js", "live.js")  # of which the last starts it


def report(tables: SweepTables) -> str:
    """The page, as HTML, with its data, its script and Vega inside."""
    return page(tables.sweep, view(tables))


def page(title: str, shown: dict[str, Any] | None = None) -> str:
    """The page's HTML: with `shown` (of results.view) all that it needs is inside, without it asks `rrm watch`."""
    environment = Environment(loader=PackageLoader("results", "page"), autoescape=True, undefined=StrictUndefined)
    # In a script element nothing is escaped, and "</script>" or "<!--" in a name would end it.
    data = "" if shown is None else json.dumps(plain(shown), allow_nan=False).replace("<", "\\u003c")
    inside = {"vega": vega(), "style": style(), "script": script()} if data else {}
    return environment.get_template("page.html.j2").render(title=title, view=data, **inside)


def style() -> str:
    """The page's style sheet."""
    return _text("style.css")


def script() -> str:
    """What draws the page: its scripts as one."""
    return "\n".join(map(_text, _SCRIPTS))


def _text(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


@cache
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script: kept in this node's cache, since to bundle them takes seconds."""
    import vl_convert

    bundler: Any = vl_convert  # its own types lack its version, and ask for an argument that a bundle does not need
    kept = None
    with suppress(RuntimeError):  # nobody's home
        kept = Path(os.environ.get("RRM_CACHE") or Path.home() / ".cache" / "rrm") / f"vega-{bundler.__version__}.js"
    with suppress(OSError, UnicodeError):
        if kept:
            return kept.read_text(encoding="utf-8")
    script = bundler.javascript_bundle()
    with suppress(OSError):
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, script.encode())
    return script


def write_report(tables: SweepTables, path: Location) -> Location:
    """Write the page to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, report(tables).encode())
    return path

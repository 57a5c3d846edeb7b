"""Where commands print: a terminal, a pipe or a log."""

import sys

from rich.console import Console


def console() -> Console:
    """A console for wide tables: in a pipe or a log there is no width to fit, and they stay whole."""
    return Console() if sys.stdout.isatty() else Console(width=200)

"""Tables as lines of text, Markdown or LaTeX. No cell is ever cut: what does not fit goes on a line below."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

_GAP = 2
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", "<": "$<$"}
    | {">": "$>$"}
)


@dataclass(frozen=True)
class Column:
    """A heading, its cells [rows], whether they are numbers, and whether they tell the rows apart."""

    heading: str
    cells: list[str]
    number: bool = True
    key: bool = False


def lines(columns: list[Column], width: int) -> list[str]:
    """The table in lines no wider than `width`, as long as a key or a value is not: see `_stacked` for narrow ones."""
    columns = [column for column in columns if any(column.cells)]
    if not columns:
        return []
    if sum(map(_width, columns)) + _GAP * (len(columns) - 1) <= width:
        return _rows(columns)
    return _stacked(columns, width)


def _stacked(columns: list[Column], width: int) -> list[str]:
    """The keys of a row on a line of their own, its values below them, in as many lines as they take."""
    keys, values = ([column for column in columns if column.key is wanted] for wanted in (True, False))
    blocks: list[list[Column]] = [[]]
    for column in values:
        if blocks[-1] and _GAP + sum(_GAP + _width(one) for one in (*blocks[-1], column)) > width:
            blocks.append([])
        blocks[-1].append(column)
    names, *rows = _rows(keys) if keys else [""] * (1 + len(columns[0].cells))
    below = [_rows(block) for block in blocks]
    found = []
    for at, name in enumerate([names, *rows]):
        found += [name] if keys else []
        found += [" " * _GAP + block[at] for block in below]
    return found


def _rows(columns: list[Column]) -> list[str]:
    """The heading and the rows, a line each."""
    table = zip(*[[column.heading, *column.cells] for column in columns], strict=True)
    return [
        (" " * _GAP).join(_padded(cell, column) for cell, column in zip(row, columns, strict=True)).rstrip()
        for row in table
    ]


def _padded(cell: str, column: Column) -> str:
    width = _width(column)
    return " " * (width - cell_len(cell)) + cell if column.number else set_cell_size(cell, width)


def _width(column: Column) -> int:
    return max(cell_len(cell) for cell in (column.heading, *column.cells))


def paragraph(text: str, width: int, indent: str = "  ") -> list[str]:
    """A sentence in lines no wider than `width`, all but the first of them indented; a long word stays whole."""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def markdown(columns: list[Column]) -> Iterator[str]:
    """The table in Markdown."""
    marks = ["---:" if column.number else "---" for column in columns]
    rows = zip(*[[column.heading, *column.cells] for column in columns], strict=True)
    escaped = [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in rows]
    for row in (escaped[0], marks, *escaped[1:]):
        yield f"| {' | '.join(row)} |"


def latex(columns: list[Column]) -> Iterator[str]:
    """The table as a LaTeX tabular, with the rules of the package booktabs."""
    yield f"\\begin{{tabular}}{{{''.join('r' if column.number else 'l' for column in columns)}}}"
    yield "\\toprule"
    rows = [
        " & ".join(cell.translate(_LATEX) for cell in row) + r" \\"
        for row in zip(*[[column.heading, *column.cells] for column in columns], strict=True)
    ]
    yield from (rows[0], "\\midrule", *rows[1:], "\\bottomrule", "\\end{tabular}")

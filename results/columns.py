"""How a table's columns are written down: name, type, unit and what each is."""

import json
from typing import Any

import pyarrow as pa

TEXT, INT, FLOAT, BOOL, TIME = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", tz="UTC")

HARD = (
    ("rating", FLOAT, "", "How hard it is, as its CSV says; null where that says nothing."),
    ("givens", INT, "cells", "Sudoku: cells that are given; null for other tasks."),
    ("path_length", INT, "cells", "Mazes: cells on the answer's path, start and goal counted; null for other tasks."),
)
FIDELITY = (  # what a noise_fidelity is of
    "in train.forward_dtype and in float32, after one ACT step, at the smallest sigma of training; null where clean."
)


def schema_of(*columns: tuple[str, pa.DataType, str, str], newer: dict[str, Any] | None = None) -> pa.Schema:
    """A table's schema from (name, type, unit, description) of each column.

    `newer` says which columns older tables lack, and what they hold there.
    """
    return pa.schema(
        [
            pa.field(name, kind, metadata={"unit": unit, "description": text} | _before(name, newer or {}))
            for name, kind, unit, text in columns
        ]
    )


def _before(name: str, newer: dict[str, Any]) -> dict[str, str]:
    return {"before": json.dumps(newer[name])} if name in newer else {}


def completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns of `schema`, those that are newer than it filled in. Raises pa.ArrowException."""
    if table.schema.equals(schema):
        return table
    for field in schema:
        if field.name not in table.column_names and b"before" in field.metadata:
            table = table.append_column(
                field, pa.array([json.loads(field.metadata[b"before"])] * len(table), field.type)
            )
    if sorted(table.column_names) == sorted(schema.names):
        table = table.select(schema.names)
    return table.cast(schema)

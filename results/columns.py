"""How a table's columns are written down: name, type, unit and what each is."""

import pyarrow as pa

TEXT, INT, FLOAT, BOOL, TIME = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", tz="UTC")

FIDELITY = (  # what a noise_fidelity is of
    "in train.forward_dtype and in float32, after one ACT step, at the smallest sigma of training; null where clean."
)


def schema_of(*columns: tuple[str, pa.DataType, str, str]) -> pa.Schema:
    """A table's schema from (name, type, unit, description) of each column."""
    return pa.schema(
        [
            pa.field(name, kind, metadata={"unit": unit, "description": description})
            for name, kind, unit, description in columns
        ]
    )

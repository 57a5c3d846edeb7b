"""Tables as DataFrames whose column types do not depend on what the rows hold, computed or read from a file.

Int64 and boolean can miss a value; text is `str` and floats are float64, both with nan; times are UTC; `point` is an
ordered category, so that it sorts and groups by value.
"""

from typing import Any

import pandas as pd
import pyarrow as pa

from results.points import in_order

_NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
POINT = "point"


def frame(table: pa.Table) -> pd.DataFrame:
    """A table of results.schema as a DataFrame."""
    read: Any = table.to_pandas(types_mapper=_NULLABLE.get)
    if POINT in read:
        read[POINT] = by_value(read[POINT])
    return read


def by_value(points: Any) -> Any:
    """A column of grid points as an ordered category: see results.points.in_order."""
    categories = pd.Index(in_order(points.dropna()), dtype="str")
    return points.astype(pd.CategoricalDtype(categories, ordered=True))


def typed(rows: list[dict[str, Any]], schema: pa.Schema) -> pd.DataFrame:
    """Rows as a DataFrame with the columns of the schema, in their order; null where a row has none."""
    # By column, with what pandas misses (nan, NA) as null: three times as fast as a dictionary a row.
    columns = [pa.array([row.get(field.name) for row in rows], field.type, from_pandas=True) for field in schema]
    return frame(pa.Table.from_arrays(columns, schema=schema))


def table_of(data: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """A DataFrame as a table of the schema."""
    plain = data.assign(**{POINT: data[POINT].astype("str")}) if POINT in data else data
    return pa.Table.from_pandas(plain, schema=schema, preserve_index=False)

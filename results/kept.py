"""The comparison of a sweep's last gathering, kept for as long as nothing that it was made of has changed."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from results.compared import COMPARISON_SCHEMA, DIFFERENCES_SCHEMA
from results.comparison import VERSION as RULES
from results.comparison import Compared
from results.looks import Look
from results.schema import PARTITION, VERSION, file_schema, table_file
from results.storage import Location, read_bytes
from results.types import frame

MADE_OF = b"made of"  # metadata of the files of both tables
_SCHEMAS = {"comparison": COMPARISON_SCHEMA, "differences": DIFFERENCES_SCHEMA}


def made_of(trials: list[dict[str, Any]], how: dict[str, Any], looks: Sequence[Look] | None) -> bytes:
    """Digest of all that a comparison depends on: its trials, by `source`, in their order; how; the looks; the rules.

    Empty, and no comparison is kept, while a trial runs, for nothing says whether its files are those of the last time;
    and while the looks cannot be read (None).
    """
    sources = [trial["source"] for trial in trials]
    if looks is None or not all(sources):
        return b""
    # A look at all pairs of a place is none before it: the one that is recorded of this comparison changes nothing.
    seen = [[look.arm, look.point, sorted(look.pairs), look.margin, look.planned, look.needed] for look in looks]
    text = json.dumps([RULES, VERSION[b"version"].decode(), sources, how, seen], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest().encode()


def kept(sweep_folder: Location, digest: bytes) -> Compared | None:
    """The comparison in the tables of the sweep if it was made of that; None if it must be made."""
    found = []
    for name, schema in _SCHEMAS.items() if digest else ():
        try:
            path = table_file(sweep_folder.parent, name, sweep_folder.name)
            table = pq.read_table(pa.BufferReader(read_bytes(path)))
        except (pa.ArrowException, OSError):
            return None
        if table.schema != file_schema(name) or (table.schema.metadata or {}).get(MADE_OF) != digest:
            return None
        sweep = pa.array([sweep_folder.name] * len(table), schema.field(PARTITION).type)
        found.append(frame(table.add_column(0, schema.field(PARTITION), sweep).select(schema.names)))
    return Compared(*found) if found else None

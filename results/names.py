"""What a sweep may be called: its name is a partition of the tables."""

import re

from results.schema import TABLES

# What pandas, pyarrow, polars or duckdb take for a number, a date or a truth value where a partition is called so.
_NOT_TEXT = re.compile(
    r"[^a-z]*|[\d.]+e[+-]?\d+|0[xb]\w+|[\d.-]+t[\d.:-]+z?|nan|inf|infinity|true|false|epoch", re.ASCII | re.IGNORECASE
)


def sweep_name_problem(name: str) -> str | None:
    """What is wrong with a sweep's name, as what its partition of the tables is called; None if it is good.

    Every reader guesses the type of a partition's name: 001 would be the number 1, merged with another, or refused.
    """
    if name == TABLES:
        return f"{name!r} is the folder of all sweeps' tables in a storage; give another name"
    if _NOT_TEXT.fullmatch(name):
        mend = f"put a word into it, such as sweep-{name}"
        return f"{name!r} is a number, a date or a truth value to pandas, pyarrow, polars or duckdb; {mend}"
    return None

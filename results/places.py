"""A path as a user writes it: `~` and `$VAR` are filled in; s3://bucket/name is in a bucket, all else on this node."""

import os
import re
from pathlib import Path

S3 = "s3://"
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)  # as os.path.expandvars has it
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


class PlaceError(ValueError):
    """A path that cannot be what it says: the text holds the path, why, and the mend."""


def filled_in(text: str) -> str:
    """The path with `~`, `~user`, `$VAR` and `${VAR}` filled in. Raises PlaceError."""
    for match in _VARIABLE.finditer(text):
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise PlaceError(f"{text!r}: {name} is not set here; set it, or write the path out")
    whole = os.path.expandvars(text)
    if not whole or "\0" in whole:
        raise PlaceError(f"{text!r} is no path; give one")
    if whole.startswith(S3):
        if not whole.removeprefix(S3).strip("/"):
            raise PlaceError(f"{text!r} names no bucket; give s3://bucket/prefix")
        return whole
    if _SCHEME.match(whole):
        raise PlaceError(f"{text!r} is no place; give a path that every node sees, or s3://bucket/prefix")
    if whole.startswith("~"):
        try:
            return str(Path(whole).expanduser())
        except RuntimeError as error:
            raise PlaceError(f"{text!r}: no home folder is known for that; write the path out") from error
    return whole

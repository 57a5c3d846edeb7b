"""Paths as arguments of a command: filled in, in a bucket too; what cannot be one is refused by the argument's name."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from results.places import PlaceError, filled_in
from results.storage import Location, S3Path, location


def input_path(text: str) -> str:
    """The type of an argument that is read: a path or URL, filled in; a data set's name stays as it is."""
    try:
        return filled_in(text)
    except PlaceError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def folder_path(text: str) -> Location:
    """The type of an argument that is a folder."""
    return location(input_path(text))


def output_file(text: str) -> Location:
    """The type of an argument that is a file to be written."""
    where = folder_path(text)
    if isinstance(where, S3Path) and "/" not in where.key:
        raise argparse.ArgumentTypeError(f"{text!r} is a bucket; give s3://bucket/name")
    if isinstance(where, Path) and where.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder; give a file in it, such as {where / 'name'}")
    return where


@contextmanager
def folder_for(target: Location) -> Iterator[Path]:
    """A folder to write into: the one asked for, or one whose files are put into the bucket once all are written."""
    if isinstance(target, Path):
        yield target
        return
    with tempfile.TemporaryDirectory(prefix="rrm-") as scratch:
        yield Path(scratch)
        for file in sorted(Path(scratch).rglob("*")):
            if file.is_file():
                (target / file.relative_to(scratch).as_posix()).put(file.read_bytes())

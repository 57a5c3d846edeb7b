"""Puzzle files in S3: fetched once a node, into a cache whose names are digests of their content."""

import hashlib
import json
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from rrm.puzzles.formats import ARRAYS, METADATA, array_path
from rrm.puzzles.puzzle import SPLITS

S3 = "s3://"
_OF_A_SPLIT = (METADATA, *(array_path(Path(), name).name for name in ARRAYS))
# All that is ever read below a URL: the files of a processed split, or of a data set. Nothing else is fetched.
_READ = {
    *_OF_A_SPLIT,
    *(f"{split}.csv" for split in SPLITS),
    *(f"{split}/{name}" for split in SPLITS for name in _OF_A_SPLIT),
}
_FILE = "puzzles.csv"  # what the copy of a single file is called


def cache_folder() -> Path:
    """Where this node keeps them: $RRM_CACHE, else ~/.cache/rrm."""
    return Path(os.environ.get("RRM_CACHE") or Path.home() / ".cache" / "rrm")


@lru_cache
def local_copy(url: str) -> Path:
    """The file at s3://bucket/name, or a folder with the puzzle files below it, on this node. Looked up once a process.

    The folder in the cache is named after what S3 says the files' content is (their ETags): another content is another
    folder. Many may fetch at once: each into a folder of its own, and the first to rename it wins. A bucket's keys are
    names that anybody may have chosen: no file here is called after one. Raises OSError, FileNotFoundError if there is
    nothing.
    """
    from pyarrow import fs

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    s3 = fs.S3FileSystem(endpoint_override=endpoint)
    key = url.removeprefix(S3).strip("/")
    info = s3.get_file_info(key)
    if info.is_file:
        files = {_FILE: s3.open_input_file(key)}
    else:
        below = s3.get_file_info(fs.FileSelector(key, recursive=True, allow_not_found=True))
        names = [file.path[len(key) + 1 :] for file in below if file.is_file]
        if not names:
            raise FileNotFoundError("no such object")
        for name in names:
            if {"", ".", ".."} & set(name.split("/")):
                raise OSError(f"the key {name!r} below it is a path out of the folder; remove it from the bucket")
        files = {name: s3.open_input_file(f"{key}/{name}") for name in names if name in _READ}
    kept = cache_folder() / _digest({name: file.metadata() for name, file in files.items()})
    if not kept.is_dir():
        cache_folder().mkdir(parents=True, exist_ok=True)
        fetched = Path(tempfile.mkdtemp(dir=cache_folder(), prefix="."))
        try:
            for name, file in files.items():
                (fetched / name).parent.mkdir(parents=True, exist_ok=True)
                (fetched / name).write_bytes(file.read())
            os.sync()  # what a crash cut short must not be found under the name of the whole
            fetched.rename(kept)
        except OSError:
            shutil.rmtree(fetched, ignore_errors=True)
            if not kept.is_dir():  # no other was first
                raise
    return kept / _FILE if info.is_file else kept


def _digest(metadata: dict[str, dict[Any, Any]]) -> str:
    tags = {name: [found[key].decode() for key in ("ETag", "Content-Length")] for name, found in metadata.items()}
    return hashlib.sha256(json.dumps(tags, sort_keys=True).encode()).hexdigest()

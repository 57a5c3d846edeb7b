"""Puzzle files in S3: fetched once a node, into a cache whose names are digests of their content."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from rrm.puzzles.formats import ARRAYS, METADATA, array_path
from rrm.puzzles.puzzle import CALLED

S3 = "s3://"
ATTEMPTS = 24
_OF_A_SPLIT = (METADATA, *(array_path(Path(), name).name for name in ARRAYS))
_SPLITS = [name for names in CALLED.values() for name in names]
# All that is ever read below a URL: the files of a processed split, or of a data set. Nothing else is fetched.
_READ = {
    *_OF_A_SPLIT,
    *(f"{split}.csv" for split in _SPLITS),
    *(f"{split}/{name}" for split in _SPLITS for name in _OF_A_SPLIT),
}
_FILE = "puzzles.csv"  # what the copy of a single file is called
_FETCHING = ".fetching-"  # how the folder of a fetch begins; one that is killed leaves it, for a day


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

    s3, key = _s3(), url.removeprefix(S3).strip("/")
    info = s3.get_file_info(key)
    if info.is_file:
        return _kept({_FILE: s3.open_input_file(key)}) / _FILE
    below = s3.get_file_info(fs.FileSelector(key, recursive=True, allow_not_found=True))
    names = [file.path[len(key) + 1 :] for file in below if file.is_file]
    if not names:
        raise FileNotFoundError("no such object")
    for name in names:
        if {"", ".", ".."} & set(name.split("/")):
            raise OSError(f"the key {name!r} below it is a path out of the folder; remove it from the bucket")
    return _kept({name: s3.open_input_file(f"{key}/{name}") for name in names if name in _READ})


@lru_cache
def local_file(url: str, beside: tuple[str, ...]) -> Path:
    """The file at s3://bucket/name on this node, and in its folder those of the files `beside` it that are there.

    Kept as puzzles are. Raises as `local_copy` does.
    """
    s3, key = _s3(), url.removeprefix(S3).strip("/")
    keys = {"checkpoint": key} | {name: f"{key.rpartition('/')[0]}/{name}" for name in beside}
    infos = dict(zip(keys, s3.get_file_info(list(keys.values())), strict=True))
    if not infos["checkpoint"].is_file:
        raise FileNotFoundError("no such object")
    return _kept({name: s3.open_input_file(keys[name]) for name in keys if infos[name].is_file}) / "checkpoint"


def _s3() -> Any:
    from pyarrow import fs

    # A busy bucket turns requests away for a while. The pauses between these double, up to 20 s, and are drawn at
    # random: minutes in all. Three attempts, the default, are over within seconds.
    return fs.S3FileSystem(
        endpoint_override=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def _kept(files: dict[str, Any]) -> Path:
    """The folder of the cache that holds these files of a bucket, by the names that they are given there."""
    kept = cache_folder() / _digest({name: file.metadata() for name, file in files.items()})
    if not kept.is_dir():
        cache_folder().mkdir(parents=True, exist_ok=True)
        for cut_short in cache_folder().glob(f"{_FETCHING}*"):
            with suppress(FileNotFoundError):
                if time.time() - cut_short.stat().st_mtime > 24 * 3600:
                    shutil.rmtree(cut_short, ignore_errors=True)
        fetched = Path(tempfile.mkdtemp(dir=cache_folder(), prefix=_FETCHING))
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
    return kept


def _digest(metadata: dict[str, dict[Any, Any]]) -> str:
    tags = {name: [found[key].decode() for key in ("ETag", "Content-Length")] for name, found in metadata.items()}
    return hashlib.sha256(json.dumps(tags, sort_keys=True).encode()).hexdigest()

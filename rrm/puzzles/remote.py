"""Puzzle files in S3: fetched once a node, into a cache whose names are digests of their content."""

import hashlib
import json
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

S3 = "s3://"


def cache_folder() -> Path:
    """Where this node keeps them: $RRM_CACHE, else ~/.cache/rrm."""
    return Path(os.environ.get("RRM_CACHE") or Path.home() / ".cache" / "rrm")


@lru_cache
def local_copy(url: str) -> Path:
    """The file at s3://bucket/name, or the folder with all that is below it, on this node. Looked up once a process.

    The folder in the cache is named after what S3 says the files' content is (their ETags): another content is another
    folder. Many may fetch at once: each into a folder of its own, and the first to rename it wins. Raises OSError,
    FileNotFoundError if there is nothing.
    """
    from pyarrow import fs

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    s3 = fs.S3FileSystem(endpoint_override=endpoint)
    key = url.removeprefix(S3).strip("/")
    info = s3.get_file_info(key)
    if info.is_file:
        files = {info.base_name: s3.open_input_file(key)}
    else:
        below = s3.get_file_info(fs.FileSelector(key, recursive=True, allow_not_found=True))
        files = {file.path[len(key) + 1 :]: s3.open_input_file(file.path) for file in below if file.is_file}
    if not files:
        raise FileNotFoundError("no such object")
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
    return kept / info.base_name if info.is_file else kept


def _digest(metadata: dict[str, dict[Any, Any]]) -> str:
    tags = {name: [found[key].decode() for key in ("ETag", "Content-Length")] for name, found in metadata.items()}
    return hashlib.sha256(json.dumps(tags, sort_keys=True).encode()).hexdigest()

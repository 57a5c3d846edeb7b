"""Where sweeps are stored: a folder, or s3://bucket/prefix. A file is the old one or the new one, whole, on both."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

_Thing = TypeVar("_Thing")
_Read = TypeVar("_Read")
S3 = "s3://"
REQUEST_SECONDS = 60
# What S3 answers, by the name that the AWS library gives it, and what a user can do about it.
_MENDS = {
    "NO_SUCH_BUCKET": "there is no such bucket; make it, or mend the name",
    "ACCESS_DENIED": "S3 refuses these credentials; see AWS_ACCESS_KEY_ID and what it may do in this bucket",
    "INVALID_ACCESS_KEY_ID": "S3 does not know these credentials; see AWS_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH": "S3 refuses these credentials; see AWS_SECRET_ACCESS_KEY",
    "NETWORK_CONNECTION": "S3 cannot be reached; see AWS_ENDPOINT_URL and the network",
}


class StorageError(OSError):
    """S3 did not do what was asked: `filename` is the URL, `strerror` says why and what to mend."""


@dataclass(frozen=True)
class S3Path:
    """An object in a bucket, or all objects below a name: as much of pathlib.Path as a sweep needs.

    The endpoint, the credentials and the region come from the environment and files that the AWS command line reads
    too: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, a role. Methods raise StorageError, or
    FileNotFoundError.
    """

    key: str  # bucket/prefix/name

    def __truediv__(self, name: str) -> "S3Path":
        return S3Path(f"{self.key}/{name}")

    def __str__(self) -> str:
        return S3 + self.key

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> "S3Path":
        return S3Path(self.key.rpartition("/")[0])

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0] or self.name

    def with_name(self, name: str) -> "S3Path":
        return self.parent / name

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Nothing: a bucket has no folders to make."""

    def exists(self) -> bool:
        return self._do(lambda s3: s3.get_file_info(self.key)).type.name == "File"

    def read_bytes(self) -> bytes:
        return self._do(lambda s3: s3.open_input_file(self.key).read())

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._do(lambda s3: s3.delete_file(self.key))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def ages(self) -> dict[str, float]:
        """The objects below this name, one level down: their names, and when the server had them, in its own time."""
        from pyarrow import fs

        infos = self._do(lambda s3: s3.get_file_info(fs.FileSelector(self.key, allow_not_found=True)))
        return {info.base_name: info.mtime_ns / 1e9 for info in infos if info.type.name == "File"}

    def glob(self, pattern: str) -> Iterator["S3Path"]:
        """The objects one level down whose names fit."""
        return (self / name for name in sorted(self.ages()) if fnmatchcase(name, pattern))

    def put(self, content: bytes) -> None:
        """Write the object in one put (a large one in parts, that count once the last is there)."""

        def write(s3: Any) -> None:
            # No `with`: leaving it early would close the stream, and that makes an object of what it has so far.
            stream = s3.open_output_stream(self.key)
            stream.write(content)
            stream.close()

        self._do(write)

    def copy_to(self, target: "S3Path") -> None:
        """Copy on the server."""
        self._do(lambda s3: s3.copy_file(self.key, target.key))

    def _do(self, operation: Any) -> Any:
        try:
            return operation(_s3(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")))
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self)) from error
        except OSError as error:
            known = re.search(r"AWS Error (\w+)", str(error))
            mend = _MENDS.get(known[1] if known else "", str(error).partition("\n")[0])
            raise StorageError(errno.EIO, mend, str(self)) from error


@lru_cache
def _s3(endpoint: str | None) -> Any:
    from pyarrow import fs

    # pyarrow knows the other variables by itself. A delayed open makes a small file one request, not three. A server
    # may be silent for as long as it copies a large state: the default gives up after three seconds.
    return fs.S3FileSystem(
        endpoint_override=endpoint, allow_delayed_open=True, request_timeout=REQUEST_SECONDS, connect_timeout=10
    )


Location = Path | S3Path


def location(text: str) -> Location:
    """The place that a user names: s3://bucket/prefix, or a folder (which becomes absolute)."""
    if text.startswith(S3):
        return S3Path(text.removeprefix(S3).strip("/"))
    return Path(text).expanduser().absolute()


def write_atomically(path: Location, content: bytes) -> None:
    """Write a file so that it is the old one or the new one, whole, whenever the machine stops."""
    if isinstance(path, S3Path):
        path.put(content)
        return

    def write(temporary: Path) -> None:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    _replace(path, write)


def copy(source: Location, target: Location) -> None:
    """Make `target` a file with the content of `source`, as atomically as a write, without sending the bytes again."""
    if isinstance(source, S3Path):
        assert isinstance(target, S3Path)
        source.copy_to(target)
        return
    assert isinstance(target, Path)

    def write(temporary: Path) -> None:
        try:
            os.link(source, temporary)  # files are replaced and never changed: two names may share one content
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)

    _replace(target, write)


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        # After an error, on a full disk, its space is needed. And a rename onto another link to the same file does
        # nothing: the name left over would be written through into both.
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def side_by_side(read: Callable[[_Thing], _Read], things: Iterable[_Thing]) -> list[_Read]:
    """What `read` gives for each thing, in their order: from a bucket, reading is mostly waiting."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(read, things))

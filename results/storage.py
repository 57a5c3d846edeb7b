"""Where sweeps are stored: a folder, or s3://bucket/prefix. A file is the old one or the new one, whole, on both."""

import errno
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from results.patience import endpoint, patiently
from results.places import S3, filled_in

_Thing = TypeVar("_Thing")
_Read = TypeVar("_Read")
REQUEST_SECONDS = 60


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
        return self.ask(lambda s3: s3.get_file_info(self.key)).type.name == "File"

    def read_bytes(self) -> bytes:
        return self.ask(lambda s3: s3.open_input_file(self.key).read())

    def unlink(self, missing_ok: bool = False) -> None:
        tries = 0

        def delete(s3: Any) -> None:
            nonlocal tries
            tries += 1
            s3.delete_file(self.key)

        try:
            self.ask(delete)
        except FileNotFoundError:
            if not missing_ok and tries == 1:  # one that was turned away may have deleted it all the same
                raise

    def sizes(self) -> dict[str, int]:
        """The objects below this name, one level down: their names, and how many bytes each has."""
        return {info.base_name: info.size for info in self._listed()}

    def ages(self) -> dict[str, float]:
        """The objects below this name, one level down: their names, and when the server had them, in its own time."""
        return {info.base_name: info.mtime_ns / 1e9 for info in self._listed()}

    def _listed(self) -> list[Any]:
        from pyarrow import fs

        infos = self.ask(lambda s3: s3.get_file_info(fs.FileSelector(self.key, allow_not_found=True)))
        return [info for info in infos if info.type.name == "File"]

    def subfolders(self) -> list[str]:
        """The names, one level down, below which there are objects."""
        from pyarrow import fs

        infos = self.ask(lambda s3: s3.get_file_info(fs.FileSelector(self.key, allow_not_found=True)))
        return sorted(info.base_name for info in infos if info.type.name == "Directory")

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

        self.ask(write)

    def copy_to(self, target: "S3Path") -> None:
        """Copy on the server."""
        self.ask(lambda s3: s3.copy_file(self.key, target.key))

    def ask(self, operation: Any) -> Any:
        """What an operation on pyarrow's S3 file system gives, patiently."""
        return patiently(lambda: operation(_s3(endpoint())), self)


@lru_cache
def _s3(endpoint: str | None) -> Any:
    from pyarrow import fs

    # pyarrow knows the other variables by itself. A delayed open makes a small file one request, not three. A server
    # may be silent for as long as it copies a large state: the default gives up after three seconds.
    return fs.S3FileSystem(
        endpoint_override=endpoint, allow_delayed_open=True, request_timeout=REQUEST_SECONDS, connect_timeout=10
    )


Location = Path | S3Path


def location(place: str | Location) -> Location:
    """The place that a user names: s3://bucket/prefix, or a path on this node. Raises PlaceError."""
    return back_from(filled_in(place)) if isinstance(place, str) else place


def back_from(text: str) -> Location:
    """The place that was written down as text: as it stands, and absolute."""
    if text.startswith(S3):
        return S3Path("/".join(filter(None, text.removeprefix(S3).split("/"))))
    return Path(text).absolute()


def read_bytes(path: Location) -> bytes:
    """What a file holds. Raises OSError, also for a pipe or a device, for whose writer nobody waits."""
    if isinstance(path, S3Path):
        return path.read_bytes()
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.ENXIO, "Not a regular file", str(path))
        return file.read()


def sizes(folder: Location) -> dict[str, int]:
    """The files in a folder, by name, and how many bytes each has; none if it is not there."""
    if isinstance(folder, S3Path):
        return folder.sizes()
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except FileNotFoundError:
        return {}


def on_filesystem(path: Location, read: Callable[[Any, str], _Read]) -> _Read:
    """What `read` gives for pyarrow's file system of the place, and its name there. Raises as S3Path does."""
    if isinstance(path, S3Path):
        return path.ask(lambda s3: read(s3, path.key))
    from pyarrow import fs

    return read(fs.LocalFileSystem(), str(path))


def write_atomically(path: Location, content: bytes, scratch: Location | None = None) -> None:
    """Write a file so that it is the old one or the new one, whole, whenever the machine stops.

    Until it is whole it stands in the folder `scratch`, of the same file system; the default is beside `path`.
    """
    if isinstance(path, S3Path):
        path.put(content)
        return
    assert not isinstance(scratch, S3Path)

    def write(temporary: Path) -> None:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    _replace(path, write, scratch or path.parent)


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

    _replace(target, write, target.parent)


def _replace(path: Path, write: Callable[[Path], None], scratch: Path) -> None:
    # Processes of two machines, or of two containers, may have one number.
    temporary = scratch / f".{path.name}.{uuid.uuid4().hex}.tmp"
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


def missing(folder: Location) -> list[Path]:
    """The folder and those above it that are not there, the innermost first; a bucket has none to make."""
    if isinstance(folder, S3Path):
        return []
    return [place for place in (folder, *folder.parents) if not place.exists()]


def names_in(place: Location) -> list[str]:
    """The names in a place that may be folders, sorted; none if it is not there. Raises OSError.

    In a folder these are all: a link that leads nowhere, or a file where a folder should be, is for its reader to name.
    """
    if isinstance(place, S3Path):
        return place.subfolders()
    try:
        return sorted(path.name for path in place.iterdir())
    except FileNotFoundError:
        return []


def remove_leftovers(folder: Location) -> None:
    """Remove what processes that were killed while they wrote have left in a folder, once it is a day old.

    What cannot be removed stays: the folder may be one that is only read.
    """
    if isinstance(folder, S3Path):
        return
    for leftover in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > 24 * 3600:
                leftover.unlink()


def side_by_side(place: Location, read: Callable[[_Thing], _Read], things: Iterable[_Thing]) -> list[_Read]:
    """What `read` gives for each thing that lies in a place, in their order.

    From a bucket, reading is mostly waiting; in a folder, more than two threads get in each other's way.
    """
    things = list(things)
    contexts = [copy_context() for _ in things]  # how patient the caller is
    with ThreadPoolExecutor(16 if isinstance(place, S3Path) else 2) as pool:
        return list(pool.map(lambda context, thing: context.run(read, thing), contexts, things))

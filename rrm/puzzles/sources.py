"""Where a task's puzzles come from: a file or folder by name or s3:// URL, or a data set of the Hugging Face hub."""

import re
import shlex
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from rrm.puzzles.formats import METADATA, DataError
from rrm.puzzles.puzzle import CALLED, Split
from rrm.puzzles.remote import S3, local_copy

_NEEDED: tuple[Split, ...] = ("train", "test")
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_HUB_SECONDS = 5.0
# The published data sets, by kind and size, with the options that the published recipes build them with.
_PUBLISHED: dict[tuple[Any, Any], tuple[str, ...]] = {
    ("sudoku", 3): ("sapientinc/sudoku-extreme", "--subsample-size 1000"),
    ("maze", 30): ("sapientinc/maze-30x30-hard-1k",),
}


class NoSuchFolderError(DataError):
    """There is no folder of that name."""


def on_this_node(path: str) -> str:
    """A path as it is; for an s3:// URL, the path of its copy on this node. Raises DataError if it cannot be had."""
    if not path.startswith(S3):
        return path
    try:
        return str(local_copy(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be fetched ({str(error).partition(chr(10))[0]})") from error


def is_hub_name(data: str) -> bool:
    """Whether it is owner/name, and no path: one that is there, or that begins with the name of a folder here."""
    return bool(_HUB_NAME.fullmatch(data)) and not Path(data).exists() and not Path(data).parent.is_dir()


def splits_in(data: str) -> dict[str, str]:
    """The path of each split of a data set: of train and test, and of validation where there is one.

    `data` is a folder, or an s3:// URL of one, with train.csv and test.csv, or with processed folders train/ and test/,
    or the name of a data set of the Hugging Face hub, whose files are downloaded into the hub's own cache. validation
    may be called val or valid. Raises DataError; NoSuchFolderError.
    """
    if is_hub_name(data):
        return _from_hub(data)
    folder = Path(on_this_node(data))
    if not folder.exists():
        raise NoSuchFolderError(f"{data}: no such folder; give one with train.csv and test.csv")
    found: dict[str, str] = {}
    for split, names in CALLED.items():
        paths = [path for name in names if (path := _split_at(folder, name))]
        if len(paths) > 1:
            both = " and ".join(path.name for path in paths)
            raise DataError(f"{data}: {both} are both the {split} split; keep one of them")
        if paths:
            found[split] = str(paths[0])
    missing = [split for split in _NEEDED if split not in found]
    if missing:
        raise DataError(
            f"{data}: no {' and no '.join(missing)} there; give a folder with train.csv and test.csv, or with "
            "processed folders train/ and test/, or the name of a Hugging Face data set (owner/name)"
        )
    return found


def _split_at(folder: Path, name: str) -> Path | None:
    csv, processed = folder / f"{name}.csv", folder / name
    return csv if csv.is_file() else processed if (processed / METADATA).is_file() else None


def command_that_makes(folder: str, task: dict[str, Any]) -> str:
    """The command that makes a task's puzzles in `folder`: the published ones, where there are any of its size."""
    kind = task.get("name", "sudoku")
    size, place = task.get("side" if kind == "maze" else "box"), shlex.quote(folder)
    if (kind, size) in _PUBLISHED:
        name, *options = _PUBLISHED[kind, size]
        return " ".join(("rrm data build", name, place, *options))
    return f"rrm data generate {place} --{kind} {size}"


def _from_hub(name: str) -> dict[str, str]:
    files, problem = _asked(name)
    if problem:
        raise DataError(f"{name}: no such folder, and {problem}")
    return files


@lru_cache
def _asked(name: str) -> tuple[dict[str, str], str]:
    """The files of a data set of the hub, and why there are none. The hub is asked once a process, without retries."""
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import HTTPError
    except ImportError:
        return {}, (
            "huggingface_hub is not installed; pip install 'rrm[hf]', or fetch train.csv and test.csv from "
            f"https://huggingface.co/datasets/{name} into a folder and give that folder instead"
        )
    fetch = partial(hf_hub_download, name, repo_type="dataset", etag_timeout=_HUB_SECONDS)
    try:
        get_hf_file_metadata(hf_hub_url(name, "train.csv", repo_type="dataset"), timeout=_HUB_SECONDS)
        return {split: fetch(f"{split}.csv") for split in _NEEDED}, ""
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        answered = getattr(error, "response", None) is not None
    try:
        return {split: fetch(f"{split}.csv", local_files_only=True) for split in _NEEDED}, ""
    except (OSError, ValueError, RuntimeError):
        pass  # nothing was fetched before
    if answered:
        return {}, f"the Hugging Face hub gave no train.csv of such a data set ({reason}); mend the name"
    mend = f"where it can: rrm data build {name} FOLDER, then give that FOLDER"
    return {}, f"the Hugging Face hub cannot be reached from here ({reason}); {mend}"

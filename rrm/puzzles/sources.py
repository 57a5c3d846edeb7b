"""Where a task's puzzles come from: a file or folder by name or s3:// URL, or a data set of the Hugging Face hub."""

import re
from functools import lru_cache
from pathlib import Path

from rrm.puzzles.formats import METADATA, DataError
from rrm.puzzles.puzzle import SPLITS
from rrm.puzzles.remote import S3, local_copy

_NEEDED = ("train", "test")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def on_this_node(path: str) -> str:
    """A path as it is; for an s3:// URL, the path of its copy on this node. Raises DataError if it cannot be had."""
    if not path.startswith(S3):
        return path
    try:
        return str(local_copy(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be fetched ({str(error).partition(chr(10))[0]})") from error


def splits_in(data: str) -> dict[str, str]:
    """The path of each split of a data set: of train and test, and of validation where there is one.

    `data` is a folder, or an s3:// URL of one, with train.csv and test.csv, or with processed folders train/ and test/,
    or the name of a data set of the Hugging Face hub, whose files are downloaded into the hub's own cache. Raises
    DataError.
    """
    folder = Path(on_this_node(data))
    if not folder.is_dir() and _HUB_NAME.fullmatch(data) and not folder.exists():
        return _from_hub(data)
    found = {}
    for split in SPLITS:
        for path in (folder / f"{split}.csv", folder / split):
            if path.is_file() or (path / METADATA).is_file():
                found[split] = str(path)
                break
    missing = [split for split in _NEEDED if split not in found]
    if missing:
        raise DataError(
            f"{data}: no {' and no '.join(missing)} there; give a folder with train.csv and test.csv, or with "
            "processed folders train/ and test/, or the name of a Hugging Face data set (owner/name)"
        )
    return found


@lru_cache
def _from_hub(name: str) -> dict[str, str]:
    mend = (
        f"fetch train.csv and test.csv from https://huggingface.co/datasets/{name} into a folder and give that folder "
        "instead"
    )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise DataError(f"{name}: no such folder, and huggingface_hub is not installed; {mend}") from error
    try:
        return {split: hf_hub_download(name, f"{split}.csv", repo_type="dataset") for split in _NEEDED}
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{name}: no such folder, and the Hugging Face hub gave no such data set ({reason}); {mend}"
        ) from error

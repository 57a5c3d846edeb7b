"""What a job takes along: our packages, the sweep, and the puzzle files that it names by a relative path."""

from collections.abc import Iterator
from pathlib import Path
from stat import S_IRGRP, S_IROTH
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from rrm.puzzles.formats import files_of
from rrm.puzzles.puzzle import SPLITS
from rrm.puzzles.sources import splits_in
from tune.provenance import COMMIT, commit
from tune.spec import SpecError, Sweep

PACKAGES = ("rrm", "tune", "launch", "results")
_OF_PACKAGES = {".py", ".typed", ".yaml", ".json", ".js", ".css", ".j2"}  # what else stands there is its owner's
SWEEP_FILE = "sweep.yaml"
MAX_BYTES = 100 * 1024**2  # what Ray's dashboard takes in one request


def pack(sweep: Sweep, target: Path) -> int:
    """Write a job's working directory as a zip file; returns its size in bytes.

    The same content gives the same bytes, and Ray sends the same bytes once. Raises SpecError for a file that cannot
    travel, and for too much to send.
    """
    code = Path(__file__).parents[1]
    files = [path for package in PACKAGES for path in (code / package).rglob("*") if path.suffix in _OF_PACKAGES]
    content = {str(path.relative_to(code)): path for path in files if path.is_file()}
    content |= {str(path): path for path in _puzzle_files(sweep)}
    size = {name: path.stat().st_size for name, path in content.items()}
    if sum(size.values()) > MAX_BYTES:
        largest = max(size, key=lambda name: size[name])
        raise SpecError(
            sweep.path,
            [
                f"{largest}: {_mib(size[largest])}, and {_mib(sum(size.values()))} with all that would travel with the "
                f"job; Ray takes {_mib(MAX_BYTES)}: put it where every node sees it and give its absolute path"
            ],
        )
    with ZipFile(target, "w", ZIP_DEFLATED) as archive:
        for name, path in sorted(content.items()):
            _add(archive, name, path.read_bytes())
        _add(archive, SWEEP_FILE, sweep.text)
        _add(archive, COMMIT, (commit() or "").encode())
    return target.stat().st_size


def _add(archive: ZipFile, name: str, content: bytes) -> None:
    archive.writestr(ZipInfo(name), content, ZIP_DEFLATED)  # a ZipInfo of its own has no date


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB"


def _puzzle_files(sweep: Sweep) -> Iterator[Path]:
    """The files that puzzles are read from, of what the sweep names by a relative path; nothing that lies beside them.

    They go to the same place in the job's folder. Raises SpecError for one that must not.
    """
    configs = [cell.config for cell in sweep.trials.values()]
    splits = {getattr(config.task, field) for config in configs for field in SPLITS}
    folders = {config.task.data for config in configs}
    checkpoints = {config.init_from.root for config in configs if config.init_from}
    for text in dict.fromkeys(_texts(sweep.raw)):
        path = Path(text)
        absolute = str(path.absolute())  # as the configs hold it
        if path.is_absolute() or absolute not in splits | folders | checkpoints:
            continue
        named = [text] if absolute in splits else splits_in(text).values() if absolute in folders else []
        files = [file for split in named for file in files_of(split)]
        problems = ["a checkpoint"] if absolute in checkpoints else filter(None, map(_why_it_stays, files))
        if problem := next(iter(problems), None):
            mend = "put it where every node sees it and give its absolute path"
            raise SpecError(sweep.path, [f"{text}: {problem}, which does not travel with a job; {mend}"])
        yield from files


def _why_it_stays(file: Path) -> str | None:
    """Why a puzzle file does not travel: it is elsewhere, also by a link, or its owner's alone. None if it may."""
    if ".." in file.parts or not file.resolve().is_relative_to(Path.cwd().resolve()):
        return f"{file} is outside this folder"
    if not file.stat().st_mode & (S_IRGRP | S_IROTH):
        return f"{file} is for you alone to read (chmod go+r opens it)"
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(part)

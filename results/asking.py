"""What a sweep asks of its comparison, and how often that was looked at before."""

from typing import Any

from results.compared import MARGIN, PRIMARY
from results.looks import read_looks
from results.schema import MANIFEST
from results.storage import Location, location
from results.trial_files import read_json


def asked(storage: str | Location, sweep: str) -> dict[str, Any]:
    """A sweep's own baseline, primary metric, margin and looks, as the arguments of `results.compare`.

    `results.compare(trials, evals, diagnostics, **results.asked("runs", "quickstart"))` is what `rrm results` prints.
    Raises FileNotFoundError if there is no such sweep in `storage`, DamagedFileError, StorageError, PlaceError.
    """
    folder = location(storage) / sweep
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        raise FileNotFoundError(f"{folder}: no {MANIFEST}; run the sweep first")
    return asked_of(manifest) | {"looks": read_looks(folder)}


def asked_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The same, but for the looks, of a sweep whose manifest (sweep.json) is at hand."""
    primary, margin = manifest.get("primary", PRIMARY), manifest.get("margin", MARGIN)
    return {"baseline": manifest["baseline"], "primary": tuple(primary), "margin": margin}

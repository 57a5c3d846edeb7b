"""Tables and comparisons of sweeps, for notebooks too. Needs neither torch nor ray.

import results
trials, evals = (results.load(name, "runs", sweep="quickstart") for name in ("trials", "evals"))
results.sentences(results.snapshot(trials, evals))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results import diagnosis as diagnosis
    from results import plots as plots
    from results.asking import asked as asked
    from results.comparison import compare as compare
    from results.comparison import differences as differences
    from results.curves import curve as curve
    from results.curves import seed_curves as seed_curves
    from results.curves import sentences as sentences
    from results.curves import snapshot as snapshot
    from results.depths import escape as escape
    from results.difficulty import by_difficulty as by_difficulty
    from results.query import configs as configs
    from results.query import load as load
    from results.query import unpack as unpack
    from results.query import unroll as unroll
    from results.signals import verdicts as verdicts

_HOME = {
    **dict.fromkeys(("compare", "differences"), "comparison"),
    "asked": "asking",
    "verdicts": "signals",
    **dict.fromkeys(("configs", "load", "unpack", "unroll"), "query"),
    "escape": "depths",
    "by_difficulty": "difficulty",
    **dict.fromkeys(("curve", "seed_curves", "sentences", "snapshot"), "curves"),
}


_MODULES = ("diagnosis", "plots")


def __getattr__(name: str) -> Any:
    # On first use: whoever needs the schema alone, such as a worker that trains, pays for no pandas and no scipy.
    if name in _MODULES:
        return import_module(f"results.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"results.{_HOME[name]}"), name)

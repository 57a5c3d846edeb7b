"""What the published recipes need of a GPU's memory, counted: `python tests/benchmarks/memory.py`."""

from rrm.config import TrialConfig
from rrm.memory import kept_bytes, needed_bytes
from rrm.presets import PRESETS, merge

FILES = {"task": {"train": "train.csv", "test": "test.csv"}, "seed": 0}


def main() -> None:
    """Print a row of the README's table for each preset of the published size."""
    for name, preset in PRESETS.items():
        if not name.startswith(("sudoku-extreme-", "maze-hard-")):
            continue
        config = TrialConfig.model_validate(merge(preset, FILES))
        whole = config.model_copy(update={"train": config.train.model_copy(update={"shards": 1})})
        kept, needed = f"{kept_bytes(whole) / 1e9:.3g}", f"{needed_bytes(config) / 1e9:.3g}"
        print(f"| `{name}` | {config.train.forward_dtype} | {kept} | {config.train.shards} | {needed} |")


if __name__ == "__main__":
    main()

"""What each small preset reaches on held-out puzzles: `python tests/benchmarks/presets.py [PRESET ...]`.

One process, one thread. Prints, for each preset, its weights, steps, seconds of training, and clean exact accuracy on
test at the best step (chosen on validation) and at the end.
"""

import sys

import torch

from rrm.config import TrialConfig
from rrm.presets import PRESETS, merge
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer


def main(names: list[str]) -> None:
    """Train the presets named, or every small one."""
    set_up_torch(threads=1)
    print(f"{'preset':26}{'weights':>9}{'steps':>7}{'seconds':>9}{'best @ step':>16}{'final':>8}")
    for name in names or [name for name in PRESETS if "generate" in PRESETS[name]["task"]]:
        config = TrialConfig.model_validate(merge(PRESETS[name], {"seed": 0}))
        trainer = Trainer(config, torch.device("cpu"))
        trainer.train_until(config.train.steps)
        assert trainer.best is not None
        test = {r["step"]: r["exact_accuracy"] for r in trainer.history if r["split"] == "test" and r["sigma"] == 0}
        best = trainer.best["step"]
        weights = sum(p.numel() for p in trainer.model.parameters())
        score = f"{test[best]:.3f} @ {best}"
        print(
            f"{name:26}{weights:9,}{config.train.steps:7}{trainer.seconds['train']:9.1f}"
            f"{score:>16}{test[config.train.steps]:8.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])

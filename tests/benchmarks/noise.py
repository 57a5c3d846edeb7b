"""What noise costs in training, by `perturb.when`, at K = 4: `python tests/benchmarks/noise.py`.

CPU milliseconds a batch of multi_perturbed_ce, one thread, beside the same with sigma 0, which draws nothing; of the
preset, and of TRM-MLP at the published width and cycles. `draws` is how many numbers a batch takes, in millions.
"""

import time
from statistics import median
from typing import Any

import torch

from rrm.config import TrialConfig
from rrm.presets import PRESETS, merge
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

K, REPEATS = 4, 5
WIDE = {"hidden_size": 512, "H_cycles": 3, "L_cycles": 6, "L_layers": 2, "halt_max_steps": 2}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "4x4, width 32, batch 32": ("sudoku-4x4-trm-mlp", {"train": {"batch_size": 32}}),
    "4x4, width 512, batch 8": ("sudoku-4x4-trm-mlp", {"model": WIDE, "train": {"batch_size": 8}}),
}


def trainer_of(preset: str, changes: dict[str, Any], when: str, sigma: float) -> Trainer:
    """A trainer of the preset with K trajectories a puzzle, one optimizer step a batch."""
    base = {
        "objective": "multi_perturbed_ce",
        "perturb": {"sigma": sigma, "rollouts": K, "when": when},
        "train": {"optimizer_step": "rollout"},
        "eval": {"n": 1},
        "seed": 0,
    }
    return Trainer(TrialConfig.model_validate(merge(merge(PRESETS[preset], base), changes)), torch.device("cpu"))


def main() -> None:
    """Print a row for each size and `when`."""
    set_up_torch(threads=1)
    print(f"{'':25}{'when':>10}{'draws':>8}{'ms a batch':>12}{'of it noise':>13}")
    for name, (preset, changes) in SIZES.items():
        kinds = {
            "none": ("start", 0.0),
            "start": ("start", 0.1),
            "act_step": ("act_step", 0.1),
            "update": ("update", 0.1),
        }
        trainers = {kind: trainer_of(preset, changes, *how) for kind, how in kinds.items()}
        times: dict[str, list[float]] = {kind: [] for kind in trainers}
        for repeat in range(REPEATS + 1):  # by turns, so that a busy moment does not fall on one of them
            for kind, trainer in trainers.items():
                started = time.process_time()
                trainer.train_step()
                if repeat:
                    times[kind].append(time.process_time() - started)
        model, batch_size = trainers["none"].model, trainers["none"].config.train.batch_size
        latent = batch_size * (K - 1) * model.positions * model.hidden_size
        steps = model.halt_max_steps
        moments = {"none": 0, "start": 2, "act_step": 2 * steps, "update": steps * model.sub_updates}
        for kind in trainers:
            milliseconds, without = (median(times[one]) * 1e3 for one in (kind, "none"))
            share = (milliseconds - without) / milliseconds
            draws = latent * moments[kind] / 1e6
            print(f"{name:25}{kind:>10}{draws:8.2f}{milliseconds:12.0f}{share:13.0%}")


if __name__ == "__main__":
    main()

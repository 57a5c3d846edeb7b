"""What noise costs in training, by `perturb.when`, at K = 4: `python tests/benchmarks/noise.py`.

CPU milliseconds a batch of multi_perturbed_ce, one thread, beside a clean one of as many trajectories (K times the
puzzles), which draws nothing, and of it those that are spent drawing; of the preset, and of two layers of the published
width. `draws` is how many numbers a batch takes, in millions.
"""

import time
from statistics import median
from typing import Any

import torch

from rrm.config import TrialConfig
from rrm.models.base import BaseModel
from rrm.presets import PRESETS, merge
from rrm.streams import normals
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

K, REPEATS = 4, 3
WIDE = {"hidden_size": 512, "L_layers": 2, "halt_max_steps": 2}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "4x4, width 32, batch 32": ("sudoku-4x4-trm-mlp", {"train": {"batch_size": 32}}),
    "4x4, width 512, batch 4": ("sudoku-4x4-trm-mlp", {"model": WIDE, "train": {"batch_size": 4}}),
}


def trainer_of(preset: str, changes: dict[str, Any], kind: str) -> Trainer:
    """A trainer of the preset with K trajectories a puzzle, or K times the puzzles, one optimizer step a batch."""
    noise = {"objective": "multi_perturbed_ce", "perturb": {"sigma": 0.1, "rollouts": K, "when": kind}}
    base = {
        **({"objective": "clean"} if kind == "none" else noise),
        "train": {"optimizer_step": "rollout"},
        "eval": {"n": 1},
        "seed": 0,
    }
    config = merge(merge(PRESETS[preset], base), changes)
    config["train"]["batch_size"] *= K if kind == "none" else 1
    return Trainer(TrialConfig.model_validate(config), torch.device("cpu"))


def main() -> None:
    """Print a row for each size and `when`."""
    set_up_torch(threads=1)
    print(f"{'':25}{'when':>10}{'draws':>8}{'ms drawing':>12}{'ms a batch':>12}{'':>8}")
    for name, (preset, changes) in SIZES.items():
        trainers = {kind: trainer_of(preset, changes, kind) for kind in ("none", "start", "act_step", "update")}
        times: dict[str, list[float]] = {kind: [] for kind in trainers}
        for repeat in range(REPEATS + 1):  # by turns, so that a busy moment does not fall on one of them
            for kind, trainer in trainers.items():
                started = time.process_time()
                trainer.train_step()
                if repeat:
                    times[kind].append(time.process_time() - started)
        model, batch_size = trainers["start"].model, trainers["start"].config.train.batch_size
        steps = model.halt_max_steps
        moments = {"none": 0, "start": 2, "act_step": 2 * steps, "update": steps * model.sub_updates}
        for kind in trainers:
            draws = moments[kind] * batch_size * (K - 1) * model.positions * model.hidden_size / 1e6
            drawing = moments[kind] * drawing_once(batch_size, model, () if kind == "start" else (0,))
            milliseconds = median(times[kind]) * 1e3
            print(f"{name:25}{kind:>10}{draws:8.2f}{drawing:12.1f}{milliseconds:12.0f}{drawing / milliseconds:8.1%}")


def drawing_once(batch_size: int, model: BaseModel, moment: tuple[int, ...]) -> float:
    """CPU milliseconds to draw for one latent at one moment: all puzzles, the K - 1 perturbed trajectories."""
    shape, times = (model.positions, model.hidden_size), []
    for _ in range(20):
        started = time.process_time()
        for k in range(1, K):
            normals(0, "noise", 0, range(batch_size), k, shape, torch.device("cpu"), moment)
        times.append(time.process_time() - started)
    return median(times) * 1e3


if __name__ == "__main__":
    main()

"""Milliseconds a batch of each rollout, side by side: `python tests/benchmarks/rollouts.py [PRESET [CHECKPOINT]]`.

K = 4 trajectories a puzzle, one optimizer step a batch, one process, one thread. serial_act takes one ACT step a call,
so halt_max_steps calls of it stand beside one call of the others. `steps` is the share of all ACT steps that was taken:
weights as they are drawn halt nowhere, so give a trained checkpoint to see what act_mask saves.
"""

import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from rrm.config import TrialConfig
from rrm.presets import PRESETS, merge
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

K, REPEATS = 4, 5
KINDS: dict[str, dict[str, Any]] = {
    "parallel_fixed": {"rollout": "parallel_fixed"},
    "serial_act": {"rollout": "serial_act"},
    "act_mask": {"rollout": "act_mask"},
    "act_mask, per_trajectory": {"rollout": "act_mask", "train": {"normalise": "per_trajectory"}},
}


def trainer_of(preset: str, batch_size: int, changes: dict[str, Any]) -> Trainer:
    """A trainer of the preset with K trajectories a puzzle, one optimizer step a batch."""
    base = {
        "objective": "multi_perturbed_ce",
        "perturb": {"sigma": 1e-3, "rollouts": K},
        "train": {"batch_size": batch_size, "optimizer_step": "rollout", "halt_exploration_prob": 0.1},
        "eval": {"n": 1},
        "seed": 0,
    }
    return Trainer(TrialConfig.model_validate(merge(merge(PRESETS[preset], base), changes)), torch.device("cpu"))


def main(preset: str = "sudoku-4x4-trm-mlp", checkpoint: str | None = None) -> None:
    """Print a row for each batch size and rollout."""
    set_up_torch(threads=1)
    start = {"init_from": {"name": str(Path(checkpoint).absolute())}} if checkpoint else {}
    print(f"{preset}, K = {K}, one thread; {checkpoint or 'weights as they are drawn'}")
    print(f"{'batch':>5}  {'rollout':26}{'ms a batch':>11}{'to parallel_fixed':>19}{'steps':>7}")
    for batch_size in (4, 32):
        trainers = {name: trainer_of(preset, batch_size, merge(changes, start)) for name, changes in KINDS.items()}
        calls = {name: t.model.halt_max_steps if name == "serial_act" else 1 for name, t in trainers.items()}
        times: dict[str, list[float]] = {name: [] for name in trainers}
        for repeat in range(REPEATS + 1):  # by turns, so that a busy moment does not fall on one of them
            for name, trainer in trainers.items():
                started = time.perf_counter()
                for _ in range(calls[name]):
                    trainer.train_step()
                if repeat:
                    times[name].append(time.perf_counter() - started)
        for name, trainer in trainers.items():
            slots = trainer.step * batch_size * K * (1 if name == "serial_act" else trainer.model.halt_max_steps)
            milliseconds = median(times[name]) * 1e3
            ratio = median(times[name]) / median(times["parallel_fixed"])
            print(f"{batch_size:5}  {name:26}{milliseconds:11.0f}{ratio:18.2f}x{trainer.act_steps / slots:7.0%}")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Seconds of a training step and the share of this machine's matrix peak: `python tests/benchmarks/step.py [THREADS]`.

Each model at hidden 128, 81 positions and a batch of 32, one ACT step with its backward and its optimizer step, beside
a 1024^3 matrix product measured in the same process, before and after. Operations are counted by torch.
"""

import sys
import time
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from rrm.config import TrialConfig
from rrm.presets import PRESETS, merge
from rrm.train import Trainer, set_up_torch

MODELS = {
    "trm-mlp": {"arch": "trm", "L_layers": 2, "mlp_t": True, "pos_encodings": "none", "L_cycles": 6, "H_cycles": 3},
    "trm-att": {"arch": "trm", "L_layers": 2, "num_heads": 4, "L_cycles": 6, "H_cycles": 3},
    "hrm": {"arch": "hrm", "H_layers": 4, "L_layers": 4, "num_heads": 4, "L_cycles": 2, "H_cycles": 2},
    "srm": {"arch": "srm", "L_layers": 2, "L_cycles": 6, "H_cycles": 3},
}


def seconds(run, repeats: int) -> float:
    """Median time of `run`, after one that warms up."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return median(times)


def peak_gflops() -> float:
    """The matrix product that every share is of."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return 2 * 1024**3 / seconds(lambda: a @ b, 20) / 1e9


def main(threads: int) -> None:
    """Print a row for each model."""
    set_up_torch(threads)
    before = peak_gflops()
    print(f"matrix peak {before:.0f} GFLOP/s, {threads} thread(s), float32, eager")
    print(f"{'model':10}{'ms a step':>11}{'GFLOP':>8}{'GFLOP/s':>9}{'of peak':>9}")
    task = {"box": 3, "generate": {"puzzles": 32, "blanks": 30}}
    for name, model in MODELS.items():
        base = {key: value for key, value in PRESETS["sudoku-9x9-trm-mlp"].items() if key not in ("model", "task")}
        changes = {
            "task": task,
            "model": model | {"hidden_size": 128, "halt_max_steps": 1},
            "eval": {"n": 1},
            "seed": 0,
        }
        trainer = Trainer(TrialConfig.model_validate(merge(base, changes)), torch.device("cpu"))
        trainer.train_step()
        with FlopCounterMode(display=False) as counter:
            trainer.train_step()
        gflop = counter.get_total_flops() / 1e9
        step = seconds(trainer.train_step, 7)
        share = gflop / step / peak_gflops()
        print(f"{name:10}{step * 1e3:11.0f}{gflop:8.1f}{gflop / step:9.1f}{share:9.0%}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)

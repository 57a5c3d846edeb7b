"""Training steps beside this machine's matrix peak: `python tests/benchmarks/step.py [THREADS [MODEL ...]]`.

Each model at hidden 128, 81 positions and a batch of 32, one ACT step with its backward and its optimizer step, eager
and compiled, in float32 and bfloat16. Times are of the processor, divided by the threads, so that a busy machine says
the same. The peak is `a @ b` of 1024^3 in the same dtype, measured between the steps; in float32 torch has MKL do it,
and the models' products oneDNN (rrm/models/products.py), whose own peak stands beside. Operations are counted by torch,
eager in float32. `first s` is the first step by the clock, compiling included, from an empty cache.
"""

import os
import sys
import time
import warnings
from statistics import median

os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"

import torch
from torch.utils.flop_counter import FlopCounterMode

from rrm.config import TrialConfig
from rrm.models.products import convolved
from rrm.presets import PRESETS, merge
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

REPEATS = 9
MODELS = {
    "trm-mlp": {"arch": "trm", "L_layers": 2, "mlp_t": True, "pos_encodings": "none", "L_cycles": 6, "H_cycles": 3},
    "trm-att": {"arch": "trm", "L_layers": 2, "num_heads": 4, "L_cycles": 6, "H_cycles": 3},
    "hrm": {"arch": "hrm", "H_layers": 4, "L_layers": 4, "num_heads": 4, "L_cycles": 2, "H_cycles": 2},
    "srm": {"arch": "srm", "L_layers": 2, "L_cycles": 6, "H_cycles": 3},
}
PRODUCTS = {"matmul": torch.matmul, "oneDNN": lambda a, b: convolved(a, b, None)}


def seconds(run, clock=time.process_time) -> float:
    started = clock()
    run()
    return (clock() - started) / (torch.get_num_threads() if clock is time.process_time else 1)


def peak(dtype: torch.dtype, product: str = "matmul") -> float:
    """GFLOP/s of a product of 1024^3, the median of five."""
    a, b = torch.randn(2, 1024, 1024).to(dtype)
    with torch.no_grad():
        return 2 * 1024**3 / median(seconds(lambda: PRODUCTS[product](a, b)) for _ in range(5)) / 1e9


def build(model: dict, dtype: str, compiled: bool) -> Trainer:
    base = {key: value for key, value in PRESETS["sudoku-9x9-trm-mlp"].items() if key not in ("model", "task")}
    changes = {
        "task": {"box": 3, "generate": {"puzzles": 32, "blanks": 30}},
        "model": model | {"hidden_size": 128, "halt_max_steps": 1},
        "train": {"forward_dtype": dtype, "compile": compiled},
        "eval": {"n": 1},
        "seed": 0,
    }
    return Trainer(TrialConfig.model_validate(merge(base, changes)), torch.device("cpu"))


def main(threads: int, names: list[str]) -> None:
    """Print a row for each model, dtype, and eager or compiled."""
    set_up_torch(threads)
    warnings.filterwarnings("ignore", message="dynamo_pgo force disabled")
    print(f"{threads} thread(s); peaks in GFLOP/s: {peak(torch.float32):.0f} float32,", end=" ")
    print(f"{peak(torch.float32, 'oneDNN'):.0f} float32 by oneDNN, {peak(torch.bfloat16):.0f} bfloat16")
    has_bfloat16 = peak(torch.bfloat16) > peak(torch.float32) / 10
    if not has_bfloat16:
        print("this processor has no bfloat16 products: left out")
    print(f"{'model':9}{'dtype':10}{'':9}{'first s':>8}{'step ms':>9}{'GFLOP':>7}{'GFLOP/s':>9}{'peak':>6}{'share':>7}")
    for name in names:
        counted = build(MODELS[name], "float32", False)
        with FlopCounterMode(display=False) as counter:
            counted.train_step()
        gflop = counter.get_total_flops() / 1e9
        for dtype in ("float32", "bfloat16") if has_bfloat16 else ("float32",):
            for compiled in (False, True):
                torch.compiler.reset()
                trainer = build(MODELS[name], dtype, compiled)
                first = seconds(trainer.train_step, time.perf_counter)
                steps, peaks = [], []
                for _ in range(REPEATS):
                    steps.append(seconds(trainer.train_step))
                    peaks.append(peak(getattr(torch, dtype)))
                rate = gflop / median(steps)
                print(
                    f"{name:9}{dtype:10}{'compiled' if compiled else 'eager':9}{first:8.1f}{median(steps) * 1e3:9.0f}"
                    f"{gflop:7.1f}{rate:9.1f}{median(peaks):6.0f}{rate / median(peaks):7.0%}",
                    flush=True,
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1, sys.argv[2:] or list(MODELS))

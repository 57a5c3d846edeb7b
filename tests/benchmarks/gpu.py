"""The published recipes on this GPU, beside what `rrm plan` predicts: `python tests/benchmarks/gpu.py DATA [PART ...]`.

DATA is a folder with sudoku_extreme_{train,test}.csv and maze_30x30_hard_{train,test}.csv. Parts, all by default:

- `eager`, `compiled`: seconds a training step at the recipe's batch, its shards one after another; the memory that
  torch's allocator held at most, beside the count of rrm/memory.py; operations a second, and their share of the card's
  rate by rrm/gpus.py; hours of the whole recipe without its evaluations, beside those at the full rate.
- `waits`: at 16 rows, the milliseconds a step takes, those that the host takes to issue it, and those of the GPU's
  kernels: where the host takes longer, the step is bound by launches. Then those a step takes with train.cuda_graphs,
  and the GB that torch reserves without and with.
- `fidelity`: noise_fidelity after one ACT step and after the unroll, of the model as it is drawn.
"""

import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from rrm.config import TrialConfig
from rrm.fidelity import noise_fidelity
from rrm.flops import flops_per_act_step
from rrm.gpus import GPUS
from rrm.memory import needed_bytes
from rrm.perturb import PerturbConfig
from rrm.presets import PRESETS, merge
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

CUDA = torch.device("cuda")
PUBLISHED = [name for name in PRESETS if name.startswith(("sudoku-extreme", "maze-hard"))]
WARM, TIMED = 2, 3


def config_of(name: str, data: Path, **changes: Any) -> TrialConfig:
    """The recipe on the puzzles of DATA."""
    puzzles = "maze_30x30_hard" if name.startswith("maze") else "sudoku_extreme"
    files = {split: str(data / f"{puzzles}_{split}.csv") for split in ("train", "test")}
    return TrialConfig.model_validate(merge(merge(PRESETS[name], {"task": files, "seed": 0}), changes))


def trainer_of(name: str, data: Path, **changes: Any) -> Trainer:
    """A trainer that evaluates little: it is not timed."""
    return Trainer(config_of(name, data, **merge({"eval": {"n": 4}}, changes)), CUDA)


def seconds(run) -> float:
    """By the clock, until the GPU is done."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def recipes(data: Path, compiled: bool) -> None:
    """A row for each preset of the published size."""
    card = next((gpu for name, gpu in GPUS.items() if name in torch.cuda.get_device_name().lower()), None)
    print(
        f"{'compiled' if compiled else 'eager':24}{'precision':>14}{'shards':>7}{'first s':>9}{'s a step':>9}{'GB':>6}"
        f"{'counted':>8}{'TFLOP/s':>9}{'of peak':>8}{'hours':>7}{'at peak':>8}"
    )
    for name in PUBLISHED:
        full = config_of(name, data)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        trainer = trainer_of(name, data, train={"compile": compiled})
        first = seconds(trainer.train_step)
        for _ in range(WARM - 1):
            trainer.train_step()
        step = median(seconds(trainer.train_step) for _ in range(TIMED))
        gigabytes = torch.cuda.max_memory_allocated() / 1e9
        operations = flops_per_act_step(full) * full.rows_trained_at(full.train.steps - 1)
        rate = card.rate(full.train.forward_dtype) if card else float("nan")
        hours = full.train.steps / 3600
        print(
            f"{name:24}{full.train.forward_dtype:>14}{full.train.shards:7}{first:9.1f}{step:9.3f}{gigabytes:6.1f}"
            f"{needed_bytes(trainer.config) / 1e9:8.1f}{operations / step / 1e12:9.1f}{operations / step / rate:8.1%}"
            f"{hours * step:7.1f}{hours * operations / rate:8.1f}",
            flush=True,
        )
        del trainer


def at_16_rows(name: str, data: Path, cuda_graphs: bool) -> tuple[Trainer, float, float]:
    """A trainer that is warm, the seconds a step takes, and the GB that are reserved."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer = trainer_of(name, data, train={"batch_size": 16, "shards": 1, "cuda_graphs": cuda_graphs})
    for _ in range(WARM):
        trainer.train_step()
    step = median(seconds(trainer.train_step) for _ in range(TIMED))
    return trainer, step, torch.cuda.max_memory_reserved() / 1e9


def waits(data: Path) -> None:
    """A row for each preset, at 16 rows, for one step of one ACT step."""
    print(
        f"{'at 16 rows':24}{'ms a step':>10}{'host ms':>9}{'GPU ms':>8}{'kernels':>9}{'with graphs':>13}{'faster':>8}"
        f"{'GB':>6}{'with':>6}"
    )
    for name in PUBLISHED:
        trainer, whole, without = at_16_rows(name, data, cuda_graphs=False)
        issued = []
        for _ in range(TIMED):
            torch.cuda.synchronize()
            started = time.perf_counter()
            trainer.train_step()
            issued.append(time.perf_counter() - started)
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            trainer.train_step()
            torch.cuda.synchronize()
        events = found.key_averages()
        busy = sum(event.self_device_time_total for event in events) / 1e3
        kernels = sum(event.count for event in events if event.self_device_time_total)
        del trainer
        row = f"{name:24}{whole * 1e3:10.1f}{median(issued) * 1e3:9.1f}{busy:8.1f}{kernels:9}"
        if PRESETS[name]["model"]["arch"] != "srm":
            graphed, reserved = at_16_rows(name, data, cuda_graphs=True)[1:]
            row += f"{graphed * 1e3:13.1f}{whole / graphed:8.1f}{without:6.1f}{reserved:6.1f}"
        print(row, flush=True)


def fidelity(data: Path) -> None:
    """A row for each preset and rounded precision: the cosine after one ACT step / after all, for three sigmas."""
    sigmas = (1e-3, 1e-2, 1e-1)
    print(f"{'noise_fidelity':24}{'':>14}" + "".join(f"{f'sigma {sigma:g}':>16}" for sigma in sigmas))
    for name in PUBLISHED:
        for dtype in ("tensorfloat32", "bfloat16"):
            trainer = trainer_of(name, data, train={"forward_dtype": dtype})
            batch = trainer.data.train_batch(0, 0, 4).to(CUDA)
            steps, texts = trainer.model.halt_max_steps, []
            for sigma in sigmas:
                found = noise_fidelity(trainer.model, batch, PerturbConfig(sigma=sigma), sigma, steps)
                texts.append(f"{found['noise_fidelity']:.2f} / {found['noise_fidelity_unroll']:.2f}")
            print(f"{name:24}{dtype:>14}" + "".join(f"{text:>16}" for text in texts), flush=True)


def main(data: Path, parts: list[str]) -> None:
    """Print the parts."""
    set_up_torch(threads=4)
    properties = torch.cuda.get_device_properties(0)
    print(f"{properties.name}, {properties.multi_processor_count} multiprocessors, torch {torch.__version__}")
    for part in parts:
        started = time.perf_counter()
        if part in ("eager", "compiled"):
            recipes(data, part == "compiled")
        else:
            {"waits": waits, "fidelity": fidelity}[part](data)
        print(f"{part}: {time.perf_counter() - started:.0f} s\n", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:] or ["eager", "waits", "fidelity", "compiled"])

"""Cost of a diagnosis over a plain forward: `python tests/benchmarks/lyapunov.py`.

Each model at hidden 128, 81 positions, 4 puzzles, 2 ACT steps, one thread; processor time, so that other work on the
machine counts less. The last columns are the ratio for k = 1, 4 and 8 tangent vectors.
"""

import time
from collections.abc import Callable

import torch
from pydantic import TypeAdapter
from step import MODELS

from rrm.lyapunov import diagnose
from rrm.models import ModelConfig, build_model
from rrm.models.act import Batch
from rrm.streams import torch_generator
from rrm.torch_setup import set_up_torch

B, STEPS, REPEATS = 4, 2, 3


def seconds(run: Callable[[], object]) -> float:
    """The least processor time of a few runs, after one that warms up."""
    run()
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return min(times)


def main() -> None:
    """Print a row for each model."""
    set_up_torch(threads=1)
    print(f"{'model':10}{'plain ms a step':>17}{'k=1':>7}{'k=4':>7}{'k=8':>7}")
    for name, fields in MODELS.items():
        config = TypeAdapter(ModelConfig).validate_python(fields | {"hidden_size": 128, "halt_max_steps": STEPS})
        model = build_model(config, seq_len=81, vocab_size=11, num_puzzles=1, generator=torch_generator(0, "init"))
        tokens = torch.randint(1, 11, (B, 81))
        batch = Batch(tokens, tokens, torch.zeros(B, dtype=torch.int64))

        @torch.no_grad()
        def plain(model=model, batch=batch) -> None:
            latents = model.initial_latents(B)
            for _ in range(STEPS):
                latents, _output = model.act_step(latents, batch)

        with model.constant_weights():  # as in evaluations and diagnoses
            step = seconds(plain)
            ratios = [seconds(lambda k=k: diagnose(model, batch, k=k, batch_size=10**6)) / step for k in (1, 4, 8)]  # noqa: B023
        print(f"{name:10}{step * 1e3 / STEPS:17.1f}" + "".join(f"{ratio:7.1f}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()

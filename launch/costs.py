"""What a sweep's trials cost: parameters, memory, operations, and hours at a GPU's full rate."""

import sys
from collections.abc import Iterator

from results.layout import Column, lines
from rrm.config import TrialConfig
from rrm.fidelity import DROWNED, fidelity_at_start
from rrm.flops import flops_of_evaluations, flops_of_training, flops_per_act_step
from rrm.gpus import GPUS, Gpu
from rrm.memory import kept_bytes, needed_bytes, parameters, shards_that_fit
from tune.expand import Cell
from tune.output import console


def print_costs(cells: list[Cell], gpu: str) -> None:
    """Print a line for each configuration that differs in more than its seed; `gpu` is a name of GPUS."""
    distinct = {cell.config.model_dump_json(exclude={"seed"}): cell for cell in reversed(cells)}
    rows = [(cell.arm, cell.point_name, *_costs(cell.config, GPUS[gpu])) for cell in reversed(distinct.values())]
    keys = ("arm", "point")
    headings = (*keys, "parameters", "precision", "shards", "GB kept", "GB needed", "GFLOP a step", "EFLOP in all")
    columns = [
        Column(heading, list(cells), number=heading not in (*keys, "precision"), key=heading in keys)
        for heading, *cells in zip((*headings, f"hours on {gpu}", f"shards for {gpu}"), *rows, strict=True)
    ]
    out = console()
    out.print("\n".join(lines(columns, out.width)), highlight=False, soft_wrap=True)
    text = (
        "GB kept: what autograd holds of one shard until its backward. Hours: all operations, evaluations too, at the"
    )
    out.print(
        f"{text} full rate of the card, of which a real training reaches a part.", highlight=False, soft_wrap=True
    )
    if any(cell.config.perturb and cell.config.train.forward_dtype != "float32" for cell in distinct.values()):
        print("measuring what the precision leaves of the noise", file=sys.stderr, flush=True)  # on a CPU, minutes
    for warning in dict.fromkeys(text for cell in distinct.values() for text in _warnings(cell)):
        out.print(warning, highlight=False, soft_wrap=True)


def _warnings(cell: Cell) -> Iterator[str]:
    """What is allowed, and probably not meant."""
    config = cell.config
    if config.long_warm_up:
        yield f"{cell.arm}: {config.long_warm_up}"
    for sigma in config.perturb.trained_sigmas if config.perturb else ():
        fidelity = fidelity_at_start(config, sigma)
        if fidelity is not None and fidelity < DROWNED:
            dtype = config.train.forward_dtype
            yield (
                f"{cell.arm}: train.forward_dtype {dtype} drowns the noise of perturb.sigma {sigma:g}: noise_fidelity "
                f"{fidelity:.2f} after one ACT step of the untrained model; take a higher precision or sigma"
            )


def _costs(config: TrialConfig, gpu: Gpu) -> list[str]:
    train = config.train
    step = flops_per_act_step(config) * config.rows_trained_at(train.steps - 1)
    total = flops_of_training(config, train.steps, config.rows_trained) + flops_of_evaluations(config)
    return [
        f"{parameters(config):,}",
        train.forward_dtype,
        str(train.shards),
        _number(kept_bytes(config) / 1e9),
        _number(needed_bytes(config) / 1e9),
        _number(step / 1e9),
        _number(total / 1e18),
        _number(total / gpu.rate(train.forward_dtype) / 3600),
        str(shards_that_fit(config, int(gpu.memory * 1e9)) or "none"),
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

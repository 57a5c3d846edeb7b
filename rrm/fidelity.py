"""What a precision leaves of small noise: the change that it makes to a latent, beside the change in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from rrm.config import TrialConfig
from rrm.models import MODEL_CONFIG, build_model
from rrm.models.act import Batch
from rrm.models.base import BaseModel
from rrm.models.products import ForwardDtype
from rrm.perturb import PerturbConfig, perturb_latents
from rrm.streams import torch_generator

ROWS = 4  # puzzles it is measured on
DROWNED = 0.9  # below this cosine, little of what the network does with noise is the noise's


@torch.no_grad()
def noise_fidelity(
    model: BaseModel, batch: Batch, perturb: PerturbConfig, sigma: float, steps: int
) -> dict[str, float]:
    """How like float32's the change is that noise of `sigma` makes to the first latent, with equal weights and noise.

    noise_fidelity: the cosine between the two changes after one ACT step, over all entries of all rows;
    noise_fidelity_unroll: after `steps` of them; noise_norm_ratio: the size of the change after one step, over
    float32's. In float32 all are 1. `sigma` is above 0.
    """
    columns = ("noise_fidelity", "noise_fidelity_unroll", "noise_norm_ratio")
    if model.forward_dtype == "float32":
        return dict.fromkeys(columns, 1.0)
    exact, ours = (_changes(model, batch, perturb, sigma, steps, dtype) for dtype in ("float32", model.forward_dtype))
    cosines = [torch.cosine_similarity(a, b, dim=0).item() for a, b in zip(exact, ours, strict=True)]
    return dict(zip(columns, (cosines[0], cosines[-1], (ours[0].norm() / exact[0].norm()).item()), strict=True))


def fidelity_in_training(model: BaseModel, batch: Batch, perturb: PerturbConfig) -> dict[str, float]:
    """`noise_fidelity` of the smallest noise that training draws, by column, and of the largest in columns of its own.

    On the first ROWS of a batch, over a training's unroll; empty where no noise is trained.
    """
    batch, steps = Batch(*(x[:ROWS] for x in batch)), model.halt_max_steps
    found = [noise_fidelity(model, batch, perturb, sigma, steps) for sigma in perturb.trained_sigmas]
    return found[0] | {f"{column}_largest": value for column, value in found[-1].items()} if found else {}


def _changes(
    model: BaseModel, batch: Batch, perturb: PerturbConfig, sigma: float, steps: int, dtype: ForwardDtype
) -> list[Tensor]:
    """What noise changes in the first latent, float64 [B * N * D], after the first ACT step and after the last."""
    rows = len(batch.inputs)
    clean = model.initial_latents(rows)
    noisy = perturb_latents(
        clean,
        sigma=sigma,
        where=perturb.where,
        rollouts=1,
        clean_first=False,
        seed=0,
        stream="fidelity",
        step=0,
        rows=range(rows),
        scale=perturb.scale,
    )
    first, changes = model.latent_names[0], []
    with _computing_in(model, dtype):
        for step in range(1, steps + 1):
            clean, noisy = (model.act_step(latents, batch)[0] for latents in (clean, noisy))
            if step in (1, steps):
                changes.append((noisy[first].double() - clean[first].double()).flatten())
    return changes


@contextmanager
def _computing_in(model: BaseModel, dtype: ForwardDtype) -> Iterator[None]:
    before = model.forward_dtype
    model.forward_dtype = dtype
    try:
        with model.eagerly():  # no blocks are compiled for this alone
            yield
    finally:
        model.forward_dtype = before


def fidelity_at_start(config: TrialConfig, sigma: float) -> float | None:
    """`noise_fidelity` after an ACT step of the untrained model, on a row of random tokens; None for a clean trial."""
    if config.perturb is None or config.train.forward_dtype == "float32":
        return None
    task, dtype = config.task, config.train.forward_dtype
    settings = config.model.model_dump_json(), config.perturb.model_dump_json()
    return _at_start(*settings, task.seq_len, task.vocab_size, config.seed, dtype, sigma)


@lru_cache
def _at_start(
    model_json: str, perturb_json: str, seq_len: int, vocab_size: int, seed: int, dtype: ForwardDtype, sigma: float
) -> float:
    generator = torch_generator(seed, "init")
    config, perturb = MODEL_CONFIG.validate_json(model_json), PerturbConfig.model_validate_json(perturb_json)
    model = build_model(config, seq_len=seq_len, vocab_size=vocab_size, num_puzzles=1, generator=generator)
    model.forward_dtype = dtype
    tokens = torch.randint(1, vocab_size, (1, seq_len), generator=generator)
    batch = Batch(tokens, tokens, torch.zeros(1, dtype=torch.int64))
    return noise_fidelity(model, batch, perturb, sigma, steps=1)["noise_fidelity"]

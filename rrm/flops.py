"""Floating-point operations of a training step, counted by torch on tensors without data."""

from functools import lru_cache

import torch
from pydantic import TypeAdapter
from torch.utils.flop_counter import FlopCounterMode

from rrm.config import TrialConfig
from rrm.models import ModelConfig, build_model
from rrm.models.act import Batch, Latents, RecursiveModel
from rrm.models.base import BaseModel
from rrm.models.losses import row_losses
from rrm.streams import torch_generator

_MODEL: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)


def flops_per_act_step(config: TrialConfig, step: int = -1) -> int:
    """Operations of one training ACT step of one trajectory: forward, backward, and a look ahead where it takes one.

    `step` is that of the batch (0-based; -1 is the last): a race costs more, and there is none in a warm-up.

    Multiplications and additions of matrix products count one each. Elementwise work is left out, and what a step costs
    whatever its batch: the optimizer, SRM's factors. A fixed unroll with constant weights looks ahead once: its share.
    Losses that are averaged by trajectory take a forward pass more, which counts the steps; a winner's step takes those
    of all that it raced with, itself included.
    """
    training, forward = _a_row(config.model.model_dump_json(), config.task.seq_len, config.task.vocab_size)
    if config.train.normalise == "per_trajectory":
        training += forward
    if config.races:
        rollouts = config.rollouts_at(step % config.train.steps)
        training += rollouts * forward if rollouts > 1 else 0
    if not config.model.learns_q_continue:
        return training
    looks_ahead_once = config.rollout == "parallel_fixed" and config.optimizer_steps_per_batch == 1
    return training + forward // (config.model.halt_max_steps if looks_ahead_once else 1)


def flops_of_training(config: TrialConfig, step: int, act_steps: int) -> int:
    """Operations of the first `step` batches, of which `act_steps` ACT steps were trained, over all rows."""
    before = min(step, config.still_batches) * config.rows_trained_at(0) if config.races else 0
    return before * flops_per_act_step(config, 0) + (act_steps - before) * flops_per_act_step(config)


def flops_of_evaluations(config: TrialConfig) -> int:
    """Operations of all of a trial's evaluations, from step 0 to the last."""
    _, forward = _a_row(config.model.model_dump_json(), config.task.seq_len, config.task.vocab_size)
    return config.evaluation_act_steps * forward


@lru_cache
def _a_row(config_json: str, seq_len: int, vocab_size: int) -> tuple[int, int]:
    """What a row more costs in one ACT step, with its backward and without."""
    few, more = (_counted(*without_data(config_json, rows, seq_len, vocab_size)) for rows in (2, 4))
    return (more[0] - few[0]) // 2, (more[1] - few[1]) // 2


def without_data(config_json: str, rows: int, seq_len: int, vocab_size: int) -> tuple[BaseModel, Latents, Batch]:
    """A model on torch's meta device, its initial latents and a batch: shapes alone."""
    config = _MODEL.validate_json(config_json)
    with torch.device("meta"):
        model = build_model(
            config, seq_len=seq_len, vocab_size=vocab_size, num_puzzles=1, generator=torch_generator(0, "init")
        )
        tokens = torch.ones(rows, seq_len, dtype=torch.int64)
        return model, model.initial_latents(rows), Batch(tokens, tokens, torch.zeros(rows, dtype=torch.int64))


def _counted(model: RecursiveModel, latents: Latents, batch: Batch) -> tuple[int, int]:
    with FlopCounterMode(display=False) as training:
        _, output = model.act_step(latents, batch)
        row_losses(output, batch.labels, "softmax").total.sum().backward()
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model.act_step(latents, batch)
    return training.get_total_flops(), forward.get_total_flops()

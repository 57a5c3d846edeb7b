"""Floating-point operations of a training step, counted by torch on tensors without data."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from rrm.config import TrialConfig
from rrm.models import build_model
from rrm.models.act import Batch, q_continue_target
from rrm.models.losses import row_losses
from rrm.streams import torch_generator


def flops_per_act_step(config: TrialConfig) -> int:
    """Operations of one training ACT step of one trajectory: forward, backward, and a look ahead where it takes one.

    Multiplications and additions of matrix products count one each. Elementwise work is left out, and what a step costs
    whatever its batch: the optimizer, SRM's factors. A fixed unroll with constant weights looks ahead once: its share.
    """
    looks_ahead_once = config.rollout == "parallel_fixed" and config.optimizer_steps_per_batch == 1
    steps = config.model.halt_max_steps if looks_ahead_once else 1
    alone, with_look_ahead = (_flops(config, 4, ahead) - _flops(config, 2, ahead) for ahead in (False, True))
    return (alone + (with_look_ahead - alone) // steps) // 2


def _flops(config: TrialConfig, rows: int, look_ahead: bool) -> int:
    task = config.task
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        model = build_model(
            config.model,
            seq_len=task.seq_len,
            vocab_size=task.vocab_size,
            num_puzzles=1,
            generator=torch_generator(0, "init"),
        )
        tokens = torch.ones(rows, task.seq_len, dtype=torch.int64)
        batch = Batch(tokens, tokens, torch.zeros(rows, dtype=torch.int64))
        latents, output = model.act_step(model.initial_latents(rows), batch)
        looks = look_ahead and model.learns_q_continue
        target = q_continue_target(model, latents, batch, is_last=False) if looks else None
        row_losses(output, batch.labels, config.model.token_loss, target).total.sum().backward()
    return counter.get_total_flops()

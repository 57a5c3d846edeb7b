"""Floating-point operations of a training step, from the shapes of its products.

To have torch count them on tensors without data gives the same numbers (tests/rrm/test_flops.py) and imports its
compiler, which takes as long as all else that a worker imports.
"""

from rrm.config import TrialConfig
from rrm.models.hrm import HRMConfig
from rrm.models.layers import swiglu_width
from rrm.models.srm import SRMConfig
from rrm.models.transformer import TransformerConfig


def flops_per_act_step(config: TrialConfig, step: int = -1) -> int:
    """Operations of one training ACT step of one trajectory: forward, backward, and a look ahead where it takes one.

    `step` is that of the batch (0-based; -1 is the last): a race costs more, and there is none in a warm-up.

    Multiplications and additions of matrix products count one each. Elementwise work is left out, and what a step costs
    whatever its batch: the optimizer, SRM's factors. A fixed unroll with constant weights looks ahead once: its share.
    Losses that are averaged by trajectory take a forward pass more, which counts the steps; a winner's step takes those
    of all that it raced with, itself included.
    """
    training, forward = _a_row(config)
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
    _, forward = _a_row(config)
    return config.evaluation_act_steps * forward


def _a_row(config: TrialConfig) -> tuple[int, int]:
    """What a row more costs in one ACT step, with its backward and without.

    A product's backward takes two of its size, one for each operand that has a gradient.
    """
    model, seq_len = config.model, config.task.seq_len
    positions, D = model.prefix_positions + seq_len, model.hidden_size
    heads = 2 * D * (seq_len * config.task.vocab_size + 2)
    high, low, mix = 0, 0, 0
    if isinstance(model, SRMConfig):
        high = low = model.L_layers * _sandwich_block(positions, D)
        mix = 2 * positions * D**2  # of one latent for the other; once a cycle each way
        cycles = min(model.grad_cycles or model.H_cycles, model.H_cycles)
        learning = cycles * (model.L_cycles * low + high + 2 * mix)
    else:
        block = _block(model, positions)
        low = model.L_layers * block
        high = model.H_layers * block if isinstance(model, HRMConfig) else low
        learning = high + (1 if isinstance(model, HRMConfig) else model.L_cycles) * low
    forward = model.H_cycles * (model.L_cycles * low + high + 2 * mix) + heads
    return forward + 2 * (learning + heads) - mix, forward  # the latent that an ACT step begins with has no gradient


def _sandwich_block(positions: int, hidden_size: int) -> int:
    """One over positions, for each channel, and one over channels: two square products each."""
    return 4 * hidden_size * positions**2 + 4 * positions * hidden_size**2


def _block(model: TransformerConfig, positions: int) -> int:
    """A block of a transformer over all positions of a row."""
    D = model.hidden_size
    channels = _swiglu(positions, D, model.expansion)
    if model.mixes_by_mlp:
        return _swiglu(D, positions, model.expansion) + channels
    return 8 * positions * D**2 + 4 * positions**2 * D + channels


def _swiglu(rows: int, width: int, expansion: float) -> int:
    return 6 * rows * width * swiglu_width(width, expansion)

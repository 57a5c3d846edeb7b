"""Rollouts: how a batch of puzzles becomes trajectories, ACT step by ACT step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rrm.models.act import (
    Batch,
    Latents,
    RecursiveModel,
    StepOutput,
    continue_value,
    on_its_way,
    q_continue_target,
    sent,
)
from rrm.models.losses import RowLosses, TokenLoss, row_losses
from rrm.noise import NoiseInTime, act_step_of

Normalise = Literal["valid_steps", "slots", "per_trajectory"]


class Slots(NamedTuple):
    """The streaming carry of B slots: each works on its own puzzle until it halts.

    latents [B, N, D] each, the puzzles, steps int64 [B] taken on them, halted bool [B].
    """

    latents: Latents
    batch: Batch
    steps: Tensor
    halted: Tensor


@dataclass
class Trajectories:
    """What a rollout starts from: B puzzles in K rollouts, trajectory fastest.

    batch holds B rows, latents B * K. `min_steps` int64 [B, K] keeps one from halting before (exploration). `slots`,
    one for each rollout, is what serial_act carries from one call to the next: it fills this list. `normalise` is
    act_mask's. `constant_weights` says that the caller changes no weights before the rollout's end. `noise` is what the
    trajectories meet on their way.
    """

    batch: Batch
    latents: Latents
    rollouts: int
    token_loss: TokenLoss
    min_steps: Tensor | None = None
    slots: list[Slots] = field(default_factory=list)
    normalise: Normalise = "slots"
    constant_weights: bool = False
    noise: NoiseInTime | None = None


def parallel_fixed(model: RecursiveModel, start: Trajectories) -> Iterator[RowLosses]:
    """All trajectories at once, exactly halt_max_steps ACT steps, no halting and no reset.

    Yields the losses [B * K] of each ACT step as it is taken, so that a caller can run backward before the next one:
    gradient never crosses a step. With constant weights the look ahead of a model that learns to continue is the next
    step itself, taken once for both; two steps' activations are held then.
    """
    batch, latents = start.batch.repeat(start.rollouts), start.latents
    following = None
    for step in range(1, model.halt_max_steps + 1):
        is_last = step == model.halt_max_steps
        latents, output = following or act_step_of(model, start.noise, step - 1)(latents, batch)
        following, target = None, None
        if model.learns_q_continue and torch.is_grad_enabled():
            if start.constant_weights and not is_last:
                following = act_step_of(model, start.noise, step)(latents, batch)
                target = continue_value(following[1], is_last=False)
            else:
                ahead = act_step_of(model, start.noise, step, measured=False)
                target = q_continue_target(ahead, latents, batch, is_last)
        yield row_losses(output, batch.labels, start.token_loss, target)


def act_mask(model: RecursiveModel, start: Trajectories) -> Iterator[RowLosses]:
    """All trajectories at once, each up to and including the ACT step it halts at: then its row leaves the batch.

    Yields the losses of the rows that take each ACT step, in their order, for backward as in parallel_fixed. Their sum
    over B * K * halt_max_steps is the mean that SPEC.md, C, calls `slots`; over the number of rows, `valid_steps`. With
    `per_trajectory` each loss comes times halt_max_steps / (steps its trajectory takes): the sum over
    B * K * halt_max_steps is then the mean of the trajectories' means. A pass without gradient counts the steps first.
    """
    steps_taken = _steps_taken(model, start) if start.normalise == "per_trajectory" else None
    for step, (rows, latents, batch, output) in enumerate(_until_halted(model, start, steps_taken), 1):
        target = None
        if model.learns_q_continue and torch.is_grad_enabled():
            next_act_step = act_step_of(model, start.noise, step, rows, measured=False)
            target = q_continue_target(next_act_step, latents, batch, is_last=step == model.halt_max_steps)
        losses = row_losses(output, batch.labels, start.token_loss, target)
        if steps_taken is not None:
            weight = model.halt_max_steps / steps_taken[rows].double()
            losses = losses._replace(
                lm=losses.lm * weight, q_halt=losses.q_halt * weight, q_continue=losses.q_continue * weight
            )
        yield losses


def _until_halted(
    model: RecursiveModel, start: Trajectories, steps_taken: Tensor | None = None
) -> Iterator[tuple[Tensor, Latents, Batch, StepOutput]]:
    """Each ACT step of the trajectories still going: their rows int64 [A], latents after it, batch and output.

    They halt as `wants_to_halt` says, or after `steps_taken` [B * K], so that a second pass takes the same steps.
    """
    batch, latents = start.batch.repeat(start.rollouts), start.latents
    rows = torch.arange(len(batch.inputs), device=batch.inputs.device)
    min_steps = None if start.min_steps is None else start.min_steps.flatten()
    for step in range(1, model.halt_max_steps + 1):
        latents, output = act_step_of(model, start.noise, step - 1, rows)(latents, batch)
        if steps_taken is not None:
            halts = steps_taken[rows] == step
        else:
            halts = wants_to_halt(model, output, step, None if min_steps is None else min_steps[rows])
        halted = on_its_way(halts)  # while the caller's backward pass runs
        yield rows, latents, batch, output
        if step == model.halt_max_steps:
            return
        going = (~halted()).nonzero().squeeze(1)
        if len(going) == 0:
            return
        if len(going) < len(rows):
            going = sent(going, rows.device)
            rows, batch = rows[going], Batch(*(x[going] for x in batch))
            latents = {name: z[going] for name, z in latents.items()}


@torch.no_grad()
def _steps_taken(model: RecursiveModel, start: Trajectories) -> Tensor:
    steps = torch.zeros(len(start.batch.inputs) * start.rollouts, dtype=torch.int64, device=start.batch.inputs.device)
    for rows, *_ in _until_halted(model, start):
        steps[rows] += 1
    return steps


def wants_to_halt(
    model: RecursiveModel, output: StepOutput, steps: int | Tensor, min_steps: Tensor | None = None
) -> Tensor:
    """Which rows [B] halt in training after `steps` steps, before halt_max_steps makes them.

    Those whose q_halt exceeds q_continue (0, for a model that does not learn to continue), from min_steps [B] on.
    """
    threshold = output.q_continue_logits if model.learns_q_continue else 0.0
    wanted = output.q_halt_logits.detach() > threshold
    return wanted if min_steps is None else wanted & (steps >= min_steps)


def serial_act(model: RecursiveModel, start: Trajectories) -> Iterator[RowLosses]:
    """The published way of training: one ACT step a call on slots that reload when they halt; K banks, one by one.

    Yields the losses [B] of each bank. Every slot counts in the loss, halted or not. Banks hold different puzzles once
    they halt at different steps.
    """
    B, K = len(start.batch.inputs), start.rollouts
    begun = len(start.slots)  # one bank after a warm-up
    start.slots += [empty_slots(start.batch, _bank(start.latents, k, B, K)) for k in range(begun, K)]
    for k in range(K):
        min_steps = None if start.min_steps is None else start.min_steps[:, k]
        slots, z0 = start.slots[k], _bank(start.latents, k, B, K)
        noise = None if start.noise is None else start.noise.bank(k, torch.where(slots.halted, 0, slots.steps))
        start.slots[k], _, losses = act_call(model, slots, start.batch, z0, start.token_loss, min_steps, noise)
        yield losses


def _bank(latents: Latents, k: int, B: int, K: int) -> Latents:
    return {name: z.unflatten(0, (B, K))[:, k] for name, z in latents.items()}


def empty_slots(batch: Batch, z0: Latents) -> Slots:
    """Slots that all reload on the next call."""
    zeros = torch.zeros(len(batch.inputs), dtype=torch.int64, device=batch.inputs.device)
    return Slots({name: torch.zeros_like(z) for name, z in z0.items()}, batch, zeros, zeros == 0)


def act_call(
    model: RecursiveModel,
    slots: Slots,
    fresh: Batch,
    z0: Latents,
    token_loss: TokenLoss,
    min_steps: Tensor | None = None,
    noise: NoiseInTime | None = None,
) -> tuple[Slots, StepOutput, RowLosses]:
    """One training call of the published ACT wrapper.

    Halted slots take their row of `fresh` and of z0; all take one step. A slot then halts at halt_max_steps, or as
    `wants_to_halt` says.
    """

    def reloaded(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(slots.halted.view(-1, *[1] * (new.dim() - 1)), new, old)

    batch = Batch(*map(reloaded, fresh, slots.batch))
    latents = {name: reloaded(z0[name], z) for name, z in slots.latents.items()}
    latents, output = act_step_of(model, noise, 0)(latents, batch)
    steps = torch.where(slots.halted, 0, slots.steps) + 1
    is_last = steps >= model.halt_max_steps
    halted = is_last | wants_to_halt(model, output, steps, min_steps)
    target = None
    if model.learns_q_continue:
        target = q_continue_target(act_step_of(model, noise, 1, measured=False), latents, batch, is_last)
    losses = row_losses(output, batch.labels, token_loss, target)
    return Slots(latents, batch, steps, halted), output, losses


Rollout = Callable[[RecursiveModel, Trajectories], Iterator[RowLosses]]
ROLLOUTS: dict[str, Rollout] = {"parallel_fixed": parallel_fixed, "act_mask": act_mask, "serial_act": serial_act}

"""Rollouts: how a batch of puzzles becomes trajectories, ACT step by ACT step."""

from collections.abc import Iterator

from rrm.models.act import Batch, Latents, RecursiveModel, q_continue_target
from rrm.models.losses import RowLosses, TokenLoss, row_losses


def parallel_fixed(
    model: RecursiveModel, batch: Batch, latents: Latents, token_loss: TokenLoss, *, learn: bool
) -> Iterator[RowLosses]:
    """All trajectories at once, exactly halt_max_steps ACT steps, no halting and no reset.

    batch and latents hold one row a trajectory. Yields the losses [B * K] of each ACT step as it is taken, so that a
    caller can run backward before the next one: gradient never crosses a step. With `learn`, models that ask for it
    also get their Q-learning target (one more step without gradient).
    """
    for step in range(1, model.halt_max_steps + 1):
        latents, output = model.act_step(latents, batch)
        target = None
        if learn and model.learns_q_continue:
            target = q_continue_target(model, latents, batch, is_last=step == model.halt_max_steps)
        yield row_losses(output, batch.labels, token_loss, target)


ROLLOUTS = {"parallel_fixed": parallel_fixed}

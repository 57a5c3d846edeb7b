"""The one protocol that rollouts, evaluation and diagnostics use: initial latents, one ACT step, its outputs.

A new architecture implements `RecursiveModel` in one file and adds one line to `rrm.models.MODELS`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Latents = dict[str, Tensor]  # location ("z_H", "z_L") -> [B, N, D]
# What becomes of a latent's new value [B, N, D], by its location, before the recursion goes on with it.
AfterUpdate = Callable[[str, Tensor], Tensor]


def unchanged(_location: str, z_BND: Tensor) -> Tensor:
    """The new value itself."""
    return z_BND


class Batch(NamedTuple):
    """Puzzles as tokens: inputs and labels int64 [B, S], puzzle identifiers int64 [B]. Label -100 is ignored."""

    inputs: Tensor
    labels: Tensor
    puzzle_identifiers: Tensor

    def repeat(self, rollouts: int) -> "Batch":
        """Each row `rollouts` times, trajectory fastest: row b, rollout k stands at b * rollouts + k."""
        return Batch(*(x.repeat_interleave(rollouts, dim=0) for x in self)) if rollouts > 1 else self

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`, as `sent` sends it."""
        return Batch(*(sent(x, device) for x in self))


def sent(x: Tensor, device: torch.device) -> Tensor:
    """x on `device`; a copy to a GPU goes through pinned memory and does not wait."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def on_its_way(x: Tensor) -> Callable[[], Tensor]:
    """A function that returns x on the CPU: from a GPU it is copied meanwhile, and waited for when it is asked."""
    if x.device.type != "cuda":
        return lambda: x
    copy = torch.empty_like(x, device="cpu", pin_memory=True).copy_(x, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def arrived() -> Tensor:
        copied.synchronize()
        return copy

    return arrived


class StepOutput(NamedTuple):
    """What one ACT step says: token logits [B, S, V], float32 halting logits [B] and continue logits [B]."""

    logits: Tensor
    q_halt_logits: Tensor
    q_continue_logits: Tensor


class RecursiveModel(Protocol):
    """A recurrent model whose latents start at a point that training can perturb.

    `sub_updates` counts the updates of a latent, low or high, in one ACT step.
    `carries_tangents` says whether `reason` is right for batches that carry tangent vectors (rrm.models.tangents).
    `learns_q_continue` says whether its loss has a Q-learning target for continuing (HRM; TRM only if asked).
    """

    latent_names: tuple[str, ...]
    halt_max_steps: int
    sub_updates: int
    learns_q_continue: bool
    carries_tangents: bool

    def initial_latents(self, batch_size: int) -> Latents:
        """The published starting point, repeated over rows: [B, N, D] each."""
        ...

    def embed(self, batch: Batch) -> Tensor:
        """The puzzle as the recursion sees it, the same at every ACT step: [B, N, D]."""
        ...

    def reason(self, latents: Latents, embedding_BND: Tensor, after_update: AfterUpdate = unchanged) -> Latents:
        """The recursion of one ACT step alone, without detaching: what tangent vectors are pushed through."""
        ...

    def constant_weights(self) -> AbstractContextManager[None]:
        """Within this context no weight changes: what follows from weights alone is computed once."""
        ...

    def eagerly(self) -> AbstractContextManager[None]:
        """Within this context nothing is compiled, nor run compiled."""
        ...

    def act_step(
        self, latents: Latents, batch: Batch, after_update: AfterUpdate = unchanged
    ) -> tuple[Latents, StepOutput]:
        """One ACT step. The latents returned are detached; gradient flows only through the outputs."""
        ...


ActStep = Callable[[Latents, Batch], tuple[Latents, StepOutput]]


@torch.no_grad()
def q_continue_target(act_step: ActStep, latents: Latents, batch: Batch, is_last: bool | Tensor) -> Tensor:
    """The Q-learning target for "continue" [B], from one extra step after `latents`: see `continue_value`."""
    return continue_value(act_step(latents, batch)[1], is_last)


@torch.no_grad()
def continue_value(following: StepOutput, is_last: bool | Tensor) -> Tensor:
    """What continuing is worth [B], by the output of the step that follows (HRM, arXiv 2506.21734, section 2).

    sigmoid of its halting value on the last allowed step (is_last, for all rows or bool [B]), else of the better of its
    two values.
    """
    better = torch.maximum(following.q_halt_logits, following.q_continue_logits)
    if isinstance(is_last, bool):
        return (following.q_halt_logits if is_last else better).sigmoid()
    return torch.where(is_last, following.q_halt_logits, better).sigmoid()

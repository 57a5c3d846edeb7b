"""The puzzle table: one vector a puzzle identifier, prepended to the tokens, trained by its own sign-SGD."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PuzzleEmbedding(nn.Module):
    """A table [num, dim] that starts at zero.

    It is a buffer, not a parameter, of which autograd computes a gradient: `take_gradients` hands that to the sign-SGD
    update, with the number of times that each row was gathered, and forgets both.
    """

    weights: Tensor

    def __init__(self, num: int, dim: int):
        super().__init__()
        self.register_buffer("weights", torch.zeros(num, dim, requires_grad=True))
        self._gathered: list[Tensor] = []

    def _apply(self, *arguments: Any, **named: Any) -> "PuzzleEmbedding":
        super()._apply(*arguments, **named)
        self.weights = self.weights.detach().requires_grad_()  # what was moved is no leaf
        return self

    def forward(self, ids_B: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            self._gathered.append(ids_B)
            return F.embedding(ids_B, self.weights)
        return F.embedding(ids_B, self.weights.detach())

    def take_gradients(self) -> tuple[Tensor, Tensor]:
        """The gradient [num, dim], and how often each row was gathered with gradient [num], since the last call."""
        gathered, self._gathered = self._gathered, []
        gradient, self.weights.grad = self.weights.grad, None
        times = torch.zeros_like(self.weights[:, 0])
        if gradient is None:
            return torch.zeros_like(self.weights), times
        for ids in gathered:
            times.index_add_(0, ids, torch.ones_like(ids, dtype=times.dtype))
        return gradient, times

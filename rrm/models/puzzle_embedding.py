"""The puzzle table: one vector a puzzle identifier, prepended to the tokens, trained by its own sign-SGD."""

import torch
from torch import Tensor, nn


class PuzzleEmbedding(nn.Module):
    """A table [num, dim] that starts at zero.

    It is a buffer, not a parameter: only the rows that a batch gathers receive a gradient. `take_gradients` hands those
    to the sign-SGD update and forgets them.
    """

    weights: Tensor

    def __init__(self, num: int, dim: int):
        super().__init__()
        self.register_buffer("weights", torch.zeros(num, dim))
        self._gathered: list[tuple[Tensor, Tensor]] = []

    def forward(self, ids_B: Tensor) -> Tensor:
        rows = self.weights[ids_B]
        if self.training and torch.is_grad_enabled():
            rows.requires_grad_()
            self._gathered.append((ids_B, rows))
        return rows

    def take_gradients(self) -> tuple[Tensor, Tensor]:
        """(ids [G], gradients [G, dim]) of every row gathered with gradient since the last call, duplicates kept."""
        gathered, self._gathered = self._gathered, []
        with_gradient = [(ids, rows.grad) for ids, rows in gathered if rows.grad is not None]
        if not with_gradient:
            return torch.zeros(0, dtype=torch.int64, device=self.weights.device), self.weights[:0]
        return torch.cat([ids for ids, _ in with_gradient]), torch.cat([grad for _, grad in with_gradient])

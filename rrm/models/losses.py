"""Losses and correctness of one ACT step, row by row."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rrm.models.act import StepOutput

IGNORE_LABEL = -100
TokenLoss = Literal["stablemax", "softmax"]


def stablemax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log(s(x_label) / sum s(x)), s(x) = x + 1 for x >= 0 and 1 / (1 - x) below, in float64.

    "Grokking at the edge of numerical stability" (Prieto et al., arXiv 2501.04697). logits [..., V], labels [...] with
    -100 ignored; returns float64 [...], 0 where ignored.
    """
    x = logits.double()
    s = torch.where(x < 0, 1 / (1 - x.clamp(max=0) + 1e-30), x + 1)
    valid = labels != IGNORE_LABEL
    picked = s.gather(-1, labels.where(valid, 0).unsqueeze(-1)).squeeze(-1)
    return (s.sum(-1).log() - picked.log()).where(valid, 0)


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in float32: logits [..., V], labels [...] with -100 ignored; returns [...], 0 where ignored."""
    losses = F.cross_entropy(
        logits.float().flatten(0, -2), labels.flatten(), ignore_index=IGNORE_LABEL, reduction="none"
    )
    return losses.view(labels.shape)


TOKEN_LOSSES = {"stablemax": stablemax_cross_entropy, "softmax": softmax_cross_entropy}


class RowLosses(NamedTuple):
    """Losses and correctness of one ACT step, one entry a row [B].

    lm: token losses over max(1, labelled positions); q_halt, q_continue: binary cross-entropies (q_continue 0 without a
    target); token_accuracy: share of labelled tokens that are right; correct: every labelled token is right, so a row
    without labels counts as right; predicted: the likeliest tokens int64 [B, S].
    """

    lm: Tensor
    q_halt: Tensor
    q_continue: Tensor
    token_accuracy: Tensor
    correct: Tensor
    predicted: Tensor

    @property
    def total(self) -> Tensor:
        """The training loss of each row [B]: lm + (q_halt + q_continue) / 2."""
        return self.lm + 0.5 * (self.q_halt + self.q_continue)


def row_losses(
    output: StepOutput, labels_BS: Tensor, token_loss: TokenLoss, continue_target_B: Tensor | None = None
) -> RowLosses:
    """The published losses of one ACT step, before any sum over rows."""
    labelled = labels_BS != IGNORE_LABEL
    divisor = labelled.sum(-1).clamp(min=1)
    with torch.no_grad():
        predicted = output.logits.argmax(-1)
        right = (predicted == labels_BS) & labelled
        token_accuracy = right.sum(-1) / divisor
        correct = right.sum(-1) == labelled.sum(-1)
    lm = TOKEN_LOSSES[token_loss](output.logits, labels_BS).sum(-1) / divisor
    q_halt = F.binary_cross_entropy_with_logits(output.q_halt_logits, correct.float(), reduction="none")
    if continue_target_B is None:
        q_continue = torch.zeros_like(q_halt)
    else:
        q_continue = F.binary_cross_entropy_with_logits(output.q_continue_logits, continue_target_B, reduction="none")
    return RowLosses(lm, q_halt, q_continue, token_accuracy, correct, predicted)

"""Winner takes all: K trajectories a puzzle, and the best of each ACT step alone is trained.

SiC (arXiv 2601.19085); SPEC.md, G.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from rrm.models.act import RecursiveModel, continue_value, q_continue_target
from rrm.models.losses import RowLosses, row_losses
from rrm.noise import act_step_of
from rrm.perturb import WinnerCarry
from rrm.rollout import Trajectories

WINNER_CHANGES, WINNER_ENTROPY = "winner_changes", "winner_entropy"


class Race:
    """Who won the ACT steps of a shard's puzzles, among `rollouts` trajectories each."""

    def __init__(self, rollouts: int):
        self.rollouts = rollouts
        self._last: Tensor | None = None
        self._changes: list[Tensor] = []
        self._wins: list[Tensor] = []

    def won(self, winners_B: Tensor) -> None:
        """Take up who won the next ACT step: int64 [B]."""
        if self._last is not None:
            changed = winners_B != self._last
            self._changes.append(torch.stack((changed.sum(), (~changed).sum())))
        self._last = winners_B
        self._wins.append(F.one_hot(winners_B, self.rollouts).sum(dim=0))

    def take(self) -> dict[str, Tensor]:
        """Of the ACT steps since the last call, float64, to be added up over shards, calls and batches:

        under WINNER_CHANGES how many were won by another than the step before, and by the same [2]; under
        WINNER_ENTROPY how many each trajectory won [K].
        """
        wins = torch.stack(self._wins).sum(dim=0).double()
        changes = torch.stack(self._changes).double() if self._changes else wins.new_zeros(0, 2)
        self._wins, self._changes = [], []
        return {WINNER_CHANGES: changes.sum(dim=0), WINNER_ENTROPY: wins}


def entropy(counts: Tensor) -> float:
    """The entropy of the shares of counts [K], in nats."""
    return torch.special.entr(counts / counts.sum()).sum().item()


def winner_takes_all(
    model: RecursiveModel, start: Trajectories, race: Race, winner_carry: WinnerCarry
) -> Iterator[RowLosses]:
    """All trajectories go on as in parallel_fixed; at each ACT step the one of the lowest token loss is trained.

    Of equals the first. Yields the winners' losses [B], for backward as in parallel_fixed, and tells `race` who won.
    With `winner_carry: share_z_H` all then take the winner's z_H, each keeps its z_L. All K go without gradient first,
    then the winners once more with it: their activations alone are held, and from three rollouts on it is cheaper than
    one graph for all. With constant weights the winners' look ahead is the next step that all take.
    """
    B, K = len(start.batch.inputs), start.rollouts
    everyone, latents = start.batch.repeat(K), start.latents
    shared = ("z_H",) if winner_carry == "share_z_H" else ()
    following = None
    for step in range(1, model.halt_max_steps + 1):
        is_last = step == model.halt_max_steps
        with torch.no_grad():
            after, output = following or act_step_of(model, start.noise, step - 1)(latents, everyone)
            following, target = None, None
            token_losses = row_losses(output, everyone.labels, start.token_loss).lm
        winners = token_losses.view(B, K).argmin(dim=1)  # the first of equals
        rows = torch.arange(B, device=winners.device) * K + winners
        race.won(winners)
        before = {name: z[rows] for name, z in latents.items()}
        latents = {name: z[rows].repeat_interleave(K, dim=0) if name in shared else z for name, z in after.items()}
        if model.learns_q_continue and torch.is_grad_enabled():
            if start.constant_weights and not is_last:
                with torch.no_grad():
                    following = act_step_of(model, start.noise, step)(latents, everyone)
                target = continue_value(following[1], is_last=False)[rows]
            else:
                next_act_step = act_step_of(model, start.noise, step, rows, measured=False)
                target = q_continue_target(next_act_step, {n: z[rows] for n, z in after.items()}, start.batch, is_last)
        _, output = act_step_of(model, start.noise, step - 1, rows, measured=False)(before, start.batch)
        yield row_losses(output, start.batch.labels, start.token_loss, target)

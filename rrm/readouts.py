"""What K rollouts say together of each puzzle: chosen answers, pass@k, halting, who is settled (SPEC.md, H)."""

from collections import deque
from math import comb

import numpy as np
import torch
from torch import Tensor

from rrm.models.act import Batch, RecursiveModel, StepOutput
from rrm.models.losses import IGNORE_LABEL
from rrm.rollout import wants_to_halt

SETTLING = 3  # the last ACT steps that say how settled a trajectory is


class Course:
    """How trajectories of `batch` came to an ACT step: what they answered on the way, and when they wanted to halt."""

    def __init__(self, model: RecursiveModel, batch: Batch):
        self.model, self.batch = model, batch
        rows, device = len(batch.inputs), batch.inputs.device
        self._step = 0
        self._last: tuple[Tensor, Tensor] | None = None
        self._halted = torch.zeros(rows, dtype=torch.int64, device=device)  # the step, 0 before
        self._right_then = torch.zeros(rows, dtype=torch.bool, device=device)
        self._right = self._right_then
        self._changes: deque[Tensor] = deque(maxlen=SETTLING)
        self._same: deque[Tensor] = deque(maxlen=SETTLING)

    def take(self, output: StepOutput) -> None:
        """Take up the output of the next ACT step."""
        self._step += 1
        labels, predicted = self.batch.labels, output.logits.argmax(-1)
        self._right = ((predicted == labels) | (labels == IGNORE_LABEL)).all(-1)
        halts = wants_to_halt(self.model, output, self._step) & (self._halted == 0)
        self._halted = torch.where(halts, self._step, self._halted)
        self._right_then = torch.where(halts, self._right, self._right_then)
        if self._last is not None:
            logits, before = self._last
            self._changes.append((output.logits - logits).abs().float().mean(dim=(1, 2)))
            self._same.append((predicted == before).all(-1))
        self._last = output.logits, predicted

    def so_far(self, rollouts: int) -> dict[str, Tensor]:
        """By name, [n, rollouts] each, on the CPU.

        change: mean |change of the logits| over the last SETTLING steps; settled: whether the answer stayed the same in
        all of them (not yet, if there were fewer); wants: the first step that wants to halt, 0 if none does; steps:
        those taken; halted: whether the answer of the step that wants to halt, else of the last, is right.
        """
        nothing = torch.zeros_like(self._right, dtype=torch.float32)
        found = {
            "change": torch.stack(list(self._changes)).mean(0) if self._changes else nothing,
            "settled": torch.stack(list(self._same)).all(0) if len(self._same) == SETTLING else nothing.bool(),
            "wants": self._halted,
            "steps": torch.full_like(self._halted, self._step),
            "halted": torch.where(self._halted > 0, self._right_then, self._right),
        }
        return {name: x.view(-1, rollouts).cpu() for name, x in found.items()}


def chosen_rollouts(
    cells: np.ndarray, q_halt: np.ndarray, change: np.ndarray, wants: np.ndarray
) -> dict[str, np.ndarray]:
    """The rollout whose answer each rule takes, int [n] by the rule's name.

    cells [n, K, ...]; q_halt, change and wants [n, K] as `Course.so_far` has them. best_q: the highest halting logit;
    majority: the answer that most give; most_settled: the smallest change; first_to_halt: the earliest that wants to
    halt, else any. Of equals the highest halting logit, then the first.
    """
    first = np.where(wants > 0, wants, np.iinfo(np.int64).max)
    return {
        "best_q": q_halt.argmax(axis=1),
        "majority": majority(cells, q_halt),
        "most_settled": np.where(change == change.min(axis=1, keepdims=True), q_halt, -np.inf).argmax(axis=1),
        "first_to_halt": np.where(first == first.min(axis=1, keepdims=True), q_halt, -np.inf).argmax(axis=1),
    }


def majority(cells: np.ndarray, q_halt: np.ndarray) -> np.ndarray:
    """The rollout whose whole answer most rollouts give: cells [n, K, ...], q_halt [n, K] -> int [n].

    Of answers with as many votes, the one that a rollout of the highest q_halt gives.
    """
    n, K = q_halt.shape
    answers = np.ascontiguousarray(cells.reshape(n, K, -1)).view(f"V{cells[0, 0].nbytes}")[..., 0]  # a word an answer
    votes = (answers[:, :, None] == answers[:, None]).sum(axis=-1)
    return np.where(votes == votes.max(axis=1, keepdims=True), q_halt, -np.inf).argmax(axis=1)


def pass_at_k(correct: np.ndarray) -> list[float]:
    """The share of puzzles that some of k rollouts solves, for k = 1, 2, 4, ... and K: correct bool [n, K].

    Unbiased: 1 - C(K - c, k) / C(K, k) where c of the K are right (Chen et al., arXiv 2107.03374, equation 1).
    """
    K = correct.shape[1]
    ks = [2**i for i in range(K.bit_length()) if 2**i < K] + [K]
    of_count = [[1 - comb(K - c, k) / comb(K, k) for c in range(K + 1)] for k in ks]
    return [float(np.mean(np.array(values)[correct.sum(axis=1)])) for values in of_count]


def of_those(correct: np.ndarray, which: np.ndarray) -> float | None:
    """The share that is right of those for which `which` holds, bool arrays of one shape; None if there are none."""
    return float(correct[which].mean()) if which.any() else None

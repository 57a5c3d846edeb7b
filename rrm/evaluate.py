"""Evaluation on fixed puzzles: one row for each split and noise level, with the correctness of every example kept."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from rrm.models.act import Batch, Latents, RecursiveModel, StepOutput
from rrm.models.losses import TokenLoss, row_losses
from rrm.perturb import Location, distinct_locations, perturb_latents
from rrm.puzzles.tasks import BaseTask
from rrm.settings import Settings
from rrm.workers import ALONE, Workers


class EvalConfig(Settings):
    """Every `every` training steps, on `n` fixed puzzles of validation and of test.

    Beside the clean run, `rollouts` trajectories for each of `sigmas`, the same noise for every arm and at every
    evaluation. All are read after halt_max_steps ACT steps and after each of `depths`, deeper than in training.
    `batch_size` bounds the trajectories held in memory.
    """

    every: int = Field(ge=1)
    n: int = Field(ge=1)
    sigmas: tuple[float, ...] = Field(default=(0.1,), strict=False)
    rollouts: int = Field(default=4, ge=1)
    where: tuple[Location, ...] = Field(default=("z_H", "z_L"), strict=False)
    depths: tuple[int, ...] = Field(default=(), strict=False)
    batch_size: int = Field(default=256, ge=1)

    _where = field_validator("where")(distinct_locations)

    @field_validator("sigmas")
    @classmethod
    def _positive_and_distinct(cls, sigmas: tuple[float, ...]) -> tuple[float, ...]:
        if any(sigma <= 0 for sigma in sigmas) or len(set(sigmas)) != len(sigmas):
            raise ValueError(f"{list(sigmas)} must be above 0, each once; the clean evaluation is always made")
        return tuple(sorted(sigmas))

    @field_validator("depths")
    @classmethod
    def _rising(cls, depths: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(depths)) != len(depths):
            raise ValueError(f"{list(depths)} holds a depth more than once; give each once")
        return tuple(sorted(depths))


# Is shown the output of every ACT step, with its sigma, the examples it is for, and its number (1-based).
Watch = Callable[[float, range, int, StepOutput], None]


def pack_bits(correct: np.ndarray) -> bytes:
    """Booleans of any shape as bits, row-major, eight to a byte (numpy.unpackbits reads them)."""
    return np.packbits(correct.astype(bool)).tobytes()


class Answers(NamedTuple):
    """What K rollouts say of n examples after some ACT step, on the CPU.

    lm [n * K] token losses, token_accuracy [n * K], correct bool [n, K], cells int8 [n, K, side, side] (-1 where a
    token is no cell), q_halt [n, K], judged: what the task says of each answer, bool [n * K] by name.
    """

    lm: Tensor
    token_accuracy: Tensor
    correct: Tensor
    cells: Tensor
    q_halt: Tensor
    judged: dict[str, Tensor]


@torch.no_grad()
def evaluate_split(
    model: RecursiveModel,
    batch: Batch,
    config: EvalConfig,
    task: BaseTask,
    *,
    token_loss: TokenLoss,
    seed: int,
    split: str,
    watch: Watch | None = None,
    workers: Workers = ALONE,
) -> Iterator[dict[str, Any]]:
    """Rows for the clean run (sigma 0, one rollout) and for each of `config.sigmas`, at halt_max_steps and each depth.

    exact_accuracy is the mean over examples and rollouts; all_, any_, best_q_ and majority_exact_accuracy the share of
    examples that every rollout solves, that some does, and whose chosen answer is right: that of the rollout with the
    highest halting logit, or the one that most rollouts give (of equals the one with the highest). correct holds the
    packed bits of bool [n, rollouts], best_q_correct and majority_correct of bool [n]. What else the task says of
    answers is a share under its own name (of a maze's: valid_accuracy, shortest_accuracy). `watch` sees every ACT step
    that this worker takes: `workers` hand out chunks of `config.batch_size` trajectories, and have all rows.
    """
    depths = (model.halt_max_steps, *config.depths)
    for sigma in (0.0, *config.sigmas):
        K = config.rollouts if sigma else 1
        size = max(1, config.batch_size // K)

        def answers_from(start: int, sigma: float = sigma, K: int = K, size: int = size) -> dict[int, dict[str, Any]]:
            part = Batch(*(x[start : start + size] for x in batch))
            rows = range(start, start + len(part.inputs))
            z0 = perturb_latents(
                model.initial_latents(len(rows)),
                sigma=sigma,
                where=config.where,
                rollouts=K,
                clean_first=False,
                seed=seed,
                stream=f"eval.{split}",
                step=0,
                rows=rows,
            )
            show = None if watch is None else partial(watch, sigma, rows)
            unrolled = _unroll(model, part.repeat(K), z0, K, depths, token_loss, task, show)
            return {depth: answers._asdict() for depth, answers in unrolled}

        parts = workers.share_out(range(0, len(batch.inputs), size), answers_from)
        for depth in depths:
            answers = [Answers(**part[depth]) for part in parts]
            yield {"split": split, "sigma": sigma, "depth": depth, "rollouts": K, **_row(answers)}


def _unroll(
    model: RecursiveModel,
    batch: Batch,
    latents: Latents,
    K: int,
    depths: tuple[int, ...],
    token_loss: TokenLoss,
    task: BaseTask,
    show: Callable[[int, StepOutput], None] | None,
) -> Iterator[tuple[int, Answers]]:
    """The answers after each of `depths` ACT steps: no halting, no reset."""
    for step in range(1, max(depths) + 1):
        latents, output = model.act_step(latents, batch)
        if show is not None:
            show(step, output)
        if step in depths:
            losses = row_losses(output, batch.labels, token_loss)
            cells = grids(losses.predicted, task)
            judged = task.judge(grids(batch.inputs, task), cells)
            yield (
                step,
                Answers(
                    losses.lm.double().cpu(),
                    losses.token_accuracy.double().cpu(),
                    losses.correct.view(-1, K).cpu(),
                    torch.from_numpy(cells.reshape(-1, K, *cells.shape[1:])),
                    output.q_halt_logits.view(-1, K).cpu(),
                    {name: torch.from_numpy(good) for name, good in judged.items()},
                ),
            )


def _row(parts: list[Answers]) -> dict[str, Any]:
    lm, token_accuracy, correct, cells, q_halt = (torch.cat(x).numpy() for x in list(zip(*parts, strict=True))[:5])
    chosen = {"best_q": q_halt.argmax(axis=1), "majority": majority(cells, q_halt)}
    chosen_correct = {name: np.take_along_axis(correct, k[:, None], axis=1)[:, 0] for name, k in chosen.items()}
    judged = {name: torch.cat([part.judged[name] for part in parts]).numpy() for name in parts[0].judged}
    return {
        "n": len(correct),
        "exact_accuracy": float(correct.mean()),
        "all_exact_accuracy": float(correct.all(axis=1).mean()),
        "any_exact_accuracy": float(correct.any(axis=1).mean()),
        **{f"{name}_exact_accuracy": float(right.mean()) for name, right in chosen_correct.items()},
        "token_accuracy": float(token_accuracy.mean()),
        **{f"{name}_accuracy": float(good.mean()) for name, good in judged.items()},
        "lm_loss": float(lm.mean()),
        "correct": pack_bits(correct),
        **{f"{name}_correct": pack_bits(right) for name, right in chosen_correct.items()},
    }


def majority(cells: np.ndarray, q_halt: np.ndarray) -> np.ndarray:
    """The rollout whose whole answer most rollouts give: cells [n, K, ...], q_halt [n, K] -> int [n].

    Of answers with as many votes, the one that a rollout of the highest q_halt gives.
    """
    n, K = q_halt.shape
    answers = np.ascontiguousarray(cells.reshape(n, K, -1)).view(f"V{cells[0, 0].nbytes}")[..., 0]  # a word an answer
    votes = (answers[:, :, None] == answers[:, None]).sum(axis=-1)
    return np.where(votes == votes.max(axis=1, keepdims=True), q_halt, -np.inf).argmax(axis=1)


def grids(tokens: torch.Tensor, task: BaseTask) -> np.ndarray:
    """Tokens [B, S] as cells int8 [B, side, side]; padding, which no cell is, becomes -1."""
    return (tokens.cpu().numpy() - 1).astype(np.int8).reshape(-1, task.grid_side, task.grid_side)

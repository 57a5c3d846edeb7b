"""Evaluation on fixed puzzles: one row for each split and noise level, with the correctness of every example kept."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator

from rrm.models.act import Batch, RecursiveModel
from rrm.models.losses import TokenLoss
from rrm.perturb import Location, distinct_locations, perturb_latents
from rrm.rollout import Trajectories, parallel_fixed
from rrm.settings import Settings


class EvalConfig(Settings):
    """Every `every` training steps, on `n` fixed puzzles of validation and of test.

    Beside the clean run, `rollouts` trajectories for each of `sigmas`, the same noise for every arm and at every
    evaluation. `batch_size` bounds the trajectories held in memory.
    """

    every: int = Field(ge=1)
    n: int = Field(ge=1)
    sigmas: tuple[float, ...] = Field(default=(0.1,), strict=False)
    rollouts: int = Field(default=4, ge=1)
    where: tuple[Location, ...] = Field(default=("z_H", "z_L"), strict=False)
    batch_size: int = Field(default=256, ge=1)

    _where = field_validator("where")(distinct_locations)

    @field_validator("sigmas")
    @classmethod
    def _positive_and_distinct(cls, sigmas: tuple[float, ...]) -> tuple[float, ...]:
        if any(sigma <= 0 for sigma in sigmas) or len(set(sigmas)) != len(sigmas):
            raise ValueError(f"{list(sigmas)} must be above 0, each once; the clean evaluation is always made")
        return tuple(sorted(sigmas))


def pack_bits(correct: np.ndarray) -> bytes:
    """Booleans of any shape as bits, row-major, eight to a byte (numpy.unpackbits reads them)."""
    return np.packbits(correct.astype(bool)).tobytes()


@torch.no_grad()
def evaluate_split(
    model: RecursiveModel, batch: Batch, config: EvalConfig, *, token_loss: TokenLoss, seed: int, split: str
) -> Iterator[dict[str, Any]]:
    """Rows for the clean run (sigma 0, one rollout) and for each of `config.sigmas`, after halt_max_steps ACT steps.

    exact_accuracy is the mean over examples and rollouts, all_exact_accuracy the share of examples that every rollout
    solves, correct the packed bits of bool [n, rollouts].
    """
    for sigma in (0.0, *config.sigmas):
        K = config.rollouts if sigma else 1
        size = max(1, config.batch_size // K)
        losses, token_accuracy, correct = [], [], []
        for start in range(0, len(batch.inputs), size):
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
            *_, last = parallel_fixed(model, Trajectories(part, z0, K, token_loss))
            losses.append(last.lm.double())
            token_accuracy.append(last.token_accuracy.double())
            correct.append(last.correct)
        solved = torch.cat(correct).view(-1, K).cpu().numpy()
        yield {
            "split": split,
            "sigma": sigma,
            "rollouts": K,
            "n": len(solved),
            "exact_accuracy": float(solved.mean()),
            "all_exact_accuracy": float(solved.all(axis=1).mean()),
            "token_accuracy": torch.cat(token_accuracy).mean().item(),
            "lm_loss": torch.cat(losses).mean().item(),
            "correct": pack_bits(solved),
        }

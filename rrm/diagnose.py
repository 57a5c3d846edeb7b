"""Diagnosis of a model's dynamics on fixed puzzles: a row an example, with its Lyapunov spectrum and its outcome."""

from typing import Any

import torch
from pydantic import Field

from rrm.lyapunov import diagnose
from rrm.models.act import Batch, RecursiveModel
from rrm.models.losses import TokenLoss, row_losses
from rrm.settings import Settings
from rrm.workers import ALONE, Workers


class DiagnoseConfig(Settings):
    """Every `every` training steps, the spectrum of `k` vectors on the first `n` test puzzles.

    `batch_size` bounds memory to that of a plain evaluation of as many rows; an example counts as 2 (1 + k).
    """

    every: int = Field(ge=1)
    n: int = Field(default=64, ge=1)
    k: int = Field(default=8, ge=1)
    batch_size: int = Field(default=256, ge=1)


def diagnose_examples(
    model: RecursiveModel,
    batch: Batch,
    *,
    k: int,
    batch_size: int,
    token_loss: TokenLoss,
    workers: Workers = ALONE,
) -> list[dict[str, Any]]:
    """A row for each puzzle of `batch`, in order; results.schema.DIAGNOSTICS_SCHEMA says what the columns are.

    `workers` hand out chunks of `batch_size`, and have all rows.
    Raises ValueError if k is more than the size of the state.
    """
    found = diagnose(model, batch, k=k, batch_size=batch_size, workers=workers)

    @torch.no_grad()
    def outcomes(start: int) -> list[torch.Tensor]:
        part = Batch(*(x[start : start + batch_size] for x in batch))
        latents = model.initial_latents(len(part.inputs))
        latents, output = model.act_step(latents, part)
        for _ in range(model.halt_max_steps - 1):
            latents, output = model.act_step(latents, part)
        return [row_losses(output, part.labels, token_loss).correct.cpu(), output.q_halt_logits.cpu()]

    solved, q_halt = zip(*workers.share_out(range(0, len(batch.inputs), batch_size), outcomes), strict=True)
    columns = {
        "solved": torch.cat(solved).tolist(),
        "q_halt": torch.cat(q_halt).tolist(),
        "exponents": found.exponents.tolist(),
        "late_exponents": found.late_exponents.tolist(),
        "lambda_1": found.exponents[:, 0].tolist(),
        "spectral_mean": found.spectral_mean.tolist(),
        "n_pos0": found.n_pos0.tolist(),
        "n_pos": found.n_pos.tolist(),
        "late_drift": found.late_drift.tolist(),
        "relative_late_drift": found.relative_late_drift.tolist(),
        "settled": found.settled.tolist(),
    }
    return [
        {"example": i, "sub_updates": found.sub_updates, **dict(zip(columns, values, strict=True))}
        for i, values in enumerate(zip(*columns.values(), strict=True))
    ]

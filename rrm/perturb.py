"""Trajectory augmentation: the recurrent latent starts at z0 + sigma * xi instead of z0; puzzle and answer stay."""

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from rrm.models.act import Latents
from rrm.settings import Settings
from rrm.streams import normals

Location = Literal["z_H", "z_L"]
Objective = Literal["clean", "single_perturbed_ce", "multi_perturbed_ce"]


def distinct_locations(where: tuple[Location, ...]) -> tuple[Location, ...]:
    """`where` in the order z_H, z_L; raises ValueError if it is empty or names a location twice."""
    if len(set(where)) != len(where) or not where:
        raise ValueError(f"{list(where)} must name z_H, z_L or both, each once")
    return tuple(sorted(where))


class PerturbConfig(Settings):
    """Noise of standard deviation `sigma` (latents start with RMS 1) on the locations `where`, in `rollouts` copies.

    With the objective multi_perturbed_ce, rollout 0 is exactly clean and the others are perturbed.
    """

    sigma: float = Field(ge=0)
    where: tuple[Location, ...] = Field(default=("z_H", "z_L"), strict=False)
    rollouts: int = Field(default=1, ge=1)

    _where = field_validator("where")(distinct_locations)


def perturb_latents(
    z0: Latents,
    *,
    sigma: float,
    where: tuple[Location, ...],
    rollouts: int,
    clean_first: bool,
    seed: int,
    stream: str,
    step: int,
    rows: range,
) -> Latents:
    """z0 + sigma * xi for every row and rollout, drawn and added in float32.

    z0 holds [B, N, D] with B = len(rows); returns [B * rollouts, N, D], trajectory fastest. xi is a function of
    (seed, stream, location, step, row, k) alone. With `clean_first`, rollout 0 is bitwise z0; with sigma 0 all are, and
    nothing is drawn.
    """
    perturbed: Latents = {}
    for name, z_BND in z0.items():
        z_BKND = z_BND.unsqueeze(1).expand(-1, rollouts, -1, -1)
        if sigma > 0 and name in where:
            z_BKND = _with_noise(z_BKND, sigma, clean_first, (seed, f"{stream}.{name}", step, rows))
        perturbed[name] = z_BKND.flatten(0, 1)
    return perturbed


def _with_noise(z_BKND: Tensor, sigma: float, clean_first: bool, source: tuple[int, str, int, range]) -> Tensor:
    trajectories = []
    for k in range(z_BKND.shape[1]):
        z = z_BKND[:, k]
        if not (clean_first and k == 0):
            z = (z.float() + sigma * normals(*source, k, tuple(z.shape[1:]), z.device)).to(z.dtype)
        trajectories.append(z)
    return torch.stack(trajectories, dim=1)

"""Noise in time: it comes again as every ACT step begins, or on every new value of a latent (SPEC.md, F)."""

from collections.abc import Iterable
from copy import copy
from itertools import count

import numpy as np
import torch
from torch import Tensor

from rrm.models.act import ActStep, AfterUpdate, Batch, Latents, RecursiveModel, StepOutput, sent, unchanged
from rrm.perturb import PerturbConfig, first_of_pair, row_rms
from rrm.streams import normals


class NoiseInTime:
    """What the K trajectories of each of a batch's `rows` meet on their way, as `perturb.when` says.

    sigma float64 [A, B, K] by trajectory, 0 where it is clean: drawn in the batch of `step`, and in the A - 1 before it
    for slots that still work on those. xi is a function of (seed, stream, location, step, row, k), the ACT step within
    the trajectory (0-based) and the update within the ACT step. It is drawn and added in float32, a constant to the
    gradient; where sigma is 0 a latent stays as it is, bit for bit.
    """

    def __init__(
        self,
        perturb: PerturbConfig,
        sigma: np.ndarray,
        *,
        clean_first: bool,
        seed: int,
        stream: str,
        step: int,
        rows: range,
        device: torch.device,
    ):
        self.perturb, self.clean_first = perturb, clean_first
        self.seed, self.stream, self.step, self.rows = seed, stream, step, rows
        self.rollouts = range(sigma.shape[2])
        self._drawn = [bool(sigma[:, :, k].any()) for k in self.rollouts]
        self._sigma_ABK = sent(torch.from_numpy(sigma.astype(np.float32)), device)
        self._in_bank = False
        self._rms: dict[str, Tensor] = {}  # of each trajectory, their sum and their number [2, B, K]

    def bank(self, k: int, age_B: Tensor) -> "NoiseInTime":
        """That of rollout k's slots in serial_act, which began so many batches ago: keyed by the batch, not the step.

        A slot keeps the sigma of the batch that it reloaded in.
        """
        one = copy(self)
        one.rollouts, one._in_bank = range(k, k + 1), True
        one._sigma_ABK = self._sigma_ABK[age_B, torch.arange(len(self.rows), device=age_B.device), k][None, :, None]
        return one

    def unmeasured(self) -> "NoiseInTime":
        """The same noise, whose realised RMS is not taken down."""
        one = copy(self)
        one._rms = {}
        return one

    def act_step(self, model: RecursiveModel, t: int, alive: Tensor | None = None) -> ActStep:
        """The model's ACT step with the noise of the trajectories' t-th, int64 `alive` of them where some have left."""

        def noisy(latents: Latents, batch: Batch) -> tuple[Latents, StepOutput]:
            if self.perturb.when == "act_step":
                latents = {name: self._noisy(name, z, t, (), alive) for name, z in latents.items()}
            return model.act_step(latents, batch, self._after_update(t, alive))

        return noisy

    def _after_update(self, t: int, alive: Tensor | None) -> AfterUpdate:
        if self.perturb.when != "update":
            return unchanged
        updates = count()
        return lambda name, z: self._noisy(name, z, t, (next(updates),), alive)

    def _noisy(self, name: str, z: Tensor, t: int, update: tuple[int, ...], alive: Tensor | None) -> Tensor:
        """z + sigma * xi: z [B * K, N, D] or the rows of it that are alive."""
        if name not in self.perturb.where or not any(self._drawn[k] for k in self.rollouts):
            return z
        step, t = (self.step + t, 0) if self._in_bank else (self.step, t)
        xi = torch.stack([self._xi(name, k, step, (t, *update), z) for k in self.rollouts], dim=1).flatten(0, 1)
        sigma = self._sigma_ABK[0].flatten()
        if alive is not None:
            xi, sigma = xi[alive], sigma[alive]
        size = (sigma * row_rms(z) if self.perturb.scale == "rms" else sigma)[:, None, None]
        noisy = torch.where(size > 0, (z + size * xi).to(z.dtype), z)  # at least in float32
        self._note_rms(name, row_rms(noisy.float() - z.float()), alive)
        return noisy

    def _note_rms(self, name: str, rms: Tensor, alive: Tensor | None) -> None:
        found = torch.zeros(2, len(self.rows) * len(self.rollouts), dtype=torch.float64, device=rms.device)
        drawn = torch.stack((rms, torch.ones_like(rms))).double()
        if alive is None:
            found = drawn
        else:
            found[:, alive] = drawn
        sums_BK = self._rms.setdefault(name, found.new_zeros(2, len(self.rows), len(self._drawn)))
        sums_BK[:, :, self.rollouts.start : self.rollouts.stop] += found.unflatten(1, (len(self.rows), -1))

    def _xi(self, name: str, k: int, step: int, moment: tuple[int, ...], z: Tensor) -> Tensor:
        """xi of one rollout [B, N, D], its sign included; nothing is drawn for one whose sigmas are all 0."""
        if not self._drawn[k]:
            return torch.zeros(len(self.rows), *z.shape[1:], device=z.device)
        source = first_of_pair(k, self.clean_first) if self.perturb.antithetic else k
        xi = normals(self.seed, f"{self.stream}.{name}", step, self.rows, source, tuple(z.shape[1:]), z.device, moment)
        return xi if source == k else -xi

    def take_rms(self, locations: Iterable[str], device: torch.device) -> dict[str, Tensor]:
        """The noise that was there since the last call: of each perturbed trajectory its mean RMS, and their mean.

        float64 [] by location.
        """
        sums, self._rms = self._rms, {}
        nothing = torch.zeros((), dtype=torch.float64, device=device)
        means = {name: (x[0] / x[1].clamp(min=1))[:, int(self.clean_first) :].mean() for name, x in sums.items()}
        return {name: means.get(name, nothing) for name in locations}


def act_step_of(
    model: RecursiveModel, noise: NoiseInTime | None, t: int, alive: Tensor | None = None, *, measured: bool = True
) -> ActStep:
    """The ACT step that trajectories take as their t-th (0-based), with their noise if there is any.

    One that is computed ahead, or once more, is not to be `measured`: `noise.take_rms` is of the way that is taken.
    """
    if noise is None:
        return model.act_step
    return (noise if measured else noise.unmeasured()).act_step(model, t, alive)

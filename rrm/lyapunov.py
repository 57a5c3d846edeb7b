"""Finite-time Lyapunov exponents along a model's unroll: how fast small differences between latents grow or fade.

Tangent vectors of the joint state (z_H, z_L) go through the recursion by forward-mode differentiation, or as rows of
its batch, which is faster, where a model has rules for that (rrm.models.tangents). A QR decomposition after every ACT
step makes them orthonormal again (Benettin et al., Meccanica 15, 1980; SPEC.md, B). One after every update would give
the same growth over the step.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from rrm.models import tangents
from rrm.models.act import Batch, RecursiveModel
from rrm.streams import torch_generator

LATE_STEPS = 4
FLOAT32_EPS = float(np.finfo(np.float32).eps)


def orthonormal_vectors(size: int, k: int, seed: int) -> Tensor:
    """k random orthonormal columns: float64 [size, k] on the CPU, drawn one by one from the stream "lyapunov".

    Fewer columns are the first of more. Raises ValueError if k is not between 1 and `size`.
    """
    if not 1 <= k <= size:
        raise ValueError(f"k: {k} is not between 1 and {size}, the size of the state")
    generator = torch_generator(seed, "lyapunov")
    columns = [torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(k)]
    return torch.linalg.qr(torch.stack(columns, dim=1)).Q


# Takes states [B, X] a step further, each row by itself, and tangent vectors [K, B, X] of each to their images.
Push = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def by_forward_mode(step: Callable[[Tensor], Tensor]) -> Push:
    """Pushes states [B, X] through any map of torch's, and vectors by its derivative."""
    return vmap(  # pyright: ignore[reportReturnType]
        lambda z, V: jvp(step, (z,), (V,)),
        in_dims=(None, 0),
        out_dims=(None, 0),  # pyright: ignore[reportArgumentType]
    )


def tangent_unroll(
    push: Push, z_BX: Tensor, Q_XK: Tensor, steps: int, qr_every: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate a map and the tangent vectors that start at the columns of Q, the same for every row.

    Yields after each of `steps` iterations the state
    [B, X] and log |diag R| of Y = Q R, Y the image of the Q before: float64 [B, K], in nats. Their sum over iterations,
    divided by the iterations, is the finite-time spectrum in the order of the columns. Vectors are decomposed after
    every `qr_every` iterations and the last one; after the others the growth is given as 0, and counted at the next.
    """
    V_KBX = Q_XK.T.unsqueeze(1).repeat(1, len(z_BX), 1).to(z_BX)
    orthonormalise = cholesky_qr2 if z_BX.is_cuda else householder_qr
    for iteration in range(1, steps + 1):
        z_BX, Y_KBX = push(z_BX, V_KBX)
        if iteration % qr_every and iteration < steps:
            V_KBX = Y_KBX
            yield z_BX, torch.zeros(Y_KBX.shape[1], len(Y_KBX), dtype=torch.float64, device=z_BX.device)
            continue
        Q_BXK, stretch_BK = orthonormalise(Y_KBX.permute(1, 2, 0))
        V_KBX = Q_BXK.permute(2, 0, 1)
        yield z_BX, stretch_BK.clamp_min(torch.finfo(stretch_BK.dtype).tiny).double().log()


def householder_qr(Y_BXK: Tensor) -> tuple[Tensor, Tensor]:
    """Q [B, X, K] of Y = Q R, and |diag R| [B, K]."""
    Q_BXK, R_BKK = torch.linalg.qr(Y_BXK)
    return Q_BXK, R_BKK.diagonal(dim1=1, dim2=2).abs()


def cholesky_qr2(Y_BXK: Tensor) -> tuple[Tensor, Tensor]:
    """The same by two Cholesky decompositions of Y^T Y in float64, on a GPU a few products for all of the batch.

    Yamamoto et al., "Roundoff error analysis of the CholeskyQR2 algorithm" (ETNA 44, 2015). Columns too close to
    parallel for it, a condition number of 1e8 and above, are left to Householder's. Signs of columns may differ.
    """
    near_BXK, first_BK = _cholesky_qr(Y_BXK.double())
    Q_BXK, second_BK = _cholesky_qr(near_BXK)
    # Nearly orthonormal is what the second must have been given; where a decomposition failed, nothing is.
    identity = torch.eye(Y_BXK.shape[2], dtype=torch.float64, device=Y_BXK.device)
    if not (near_BXK.mT @ near_BXK - identity).abs().max() < 0.1:
        return householder_qr(Y_BXK)
    return Q_BXK.to(Y_BXK), (first_BK * second_BK).to(Y_BXK)


def _cholesky_qr(Y_BXK: Tensor) -> tuple[Tensor, Tensor]:
    L_BKK, _ = torch.linalg.cholesky_ex(Y_BXK.mT @ Y_BXK)
    Q_BXK = torch.linalg.solve_triangular(L_BKK.mT, Y_BXK, left=False, upper=True)
    return Q_BXK, L_BKK.diagonal(dim1=1, dim2=2)


class Diagnosis(NamedTuple):
    """The dynamics of n examples over T ACT steps, with k tangent vectors; float64 arrays.

    log_growth [n, T, k]: nats that each vector grew in each ACT step, orthogonal to those before it.
    drift [n, T]: ||z_t - z_(t-1)||_F of the first latent (z_H; z_L of a single-z model), z_0 its start; norm [n, T]:
    ||z_t||_F. sub_updates: latent updates in an ACT step.

    The start is random: exponents of few steps read low, by up to about ln(size of the state) / (2 T sub_updates).
    Trust their order, not the sign of one near 0; scales are not comparable with other implementations.
    """

    log_growth: np.ndarray
    drift: np.ndarray
    norm: np.ndarray
    sub_updates: int

    @property
    def rates(self) -> np.ndarray:
        """The spectrum in nats an ACT step: [n, k]."""
        return self.log_growth.mean(axis=1)

    @property
    def exponents(self) -> np.ndarray:
        """The spectrum lambda_1..k in nats a sub-update, in the order of the vectors: [n, k]."""
        return self.rates / self.sub_updates

    @property
    def late_exponents(self) -> np.ndarray:
        """The spectrum without the first eighth of the ACT steps, rounded up but never all of them: [n, k]."""
        T = self.log_growth.shape[1]
        return self.window_exponents(range(min(math.ceil(T / 8), T - 1), T))

    def window_exponents(self, steps: range) -> np.ndarray:
        """The spectrum over some of the ACT steps (0-based): [n, k]."""
        return self.log_growth[:, steps.start : steps.stop].mean(axis=1) / self.sub_updates

    @property
    def spectral_mean(self) -> np.ndarray:
        """The mean exponent [n]: it still orders examples whose exponents are all negative."""
        return self.exponents.mean(axis=1)

    @property
    def n_pos0(self) -> np.ndarray:
        """How many exponents are above 0: [n]."""
        return (self.exponents > 0).sum(axis=1)

    @property
    def n_pos(self) -> np.ndarray:
        """How many vectors grew by more than a factor e over the unroll: [n]."""
        return (self.log_growth.sum(axis=1) > 1).sum(axis=1)

    @property
    def late_drift(self) -> np.ndarray:
        """The mean drift of the last four ACT steps, or of all if there are fewer: [n]."""
        return self.drift[:, -LATE_STEPS:].mean(axis=1)

    @property
    def relative_late_drift(self) -> np.ndarray:
        """late_drift over the norm at the end: [n]."""
        return self.late_drift / self.norm[:, -1]

    @property
    def log_threshold(self) -> float:
        """Otsu's threshold on log10 late drift of these n examples together; NaN for fewer than two.

        Drifts below float32 rounding count as equal. It always splits: whether there are two groups is for the eye.
        """
        return otsu_threshold(np.log10(np.maximum(self.late_drift, FLOAT32_EPS * self.norm[:, -1])))

    @property
    def settled(self) -> np.ndarray:
        """Whether an example's late drift is on the low side of that threshold, or no more than rounding: bool [n]."""
        return has_settled(self.late_drift, self.norm[:, -1], self.log_threshold)


def has_settled(late_drift: np.ndarray, norm: np.ndarray, log_threshold: float) -> np.ndarray:
    """Whether log10 of a drift is below the threshold, or it is no more than rounding of the norm: bool [n]."""
    rounding = FLOAT32_EPS * norm
    return (late_drift <= rounding) | (np.log10(np.maximum(late_drift, rounding)) < log_threshold)


def windows(steps: int) -> dict[str, range]:
    """The windows of an unroll of `steps` ACT steps (0-based): its first eighth, rounded up, quarters, late half.

    Windows of short unrolls that would hold no step are left out.
    """
    edges = [round(i * steps / 4) for i in range(5)]
    quarters = {f"quarter {i + 1}": range(edges[i], edges[i + 1]) for i in range(4)}
    named = {"first eighth": range(math.ceil(steps / 8)), **quarters, "late half": range(steps // 2, steps)}
    return {name: window for name, window in named.items() if len(window)}


def otsu_threshold(values: np.ndarray) -> float:
    """The cut of `values` [n] into two groups with the largest variance between them, midway between the two.

    Otsu, IEEE Trans. SMC 9, 1979, on the values themselves, not on a histogram. Values that are not finite are left
    out; with fewer than two others it is NaN.
    """
    values = np.sort(values[np.isfinite(values)])
    if len(values) < 2:
        return math.nan
    below = np.arange(1, len(values))
    above = len(values) - below
    sums = values.cumsum()
    between = below * above * ((sums[-1] - sums[:-1]) / above - sums[:-1] / below) ** 2
    cut = between.argmax()
    return float(values[cut : cut + 2].mean())


@torch.no_grad()
def diagnose(
    model: RecursiveModel,
    batch: Batch,
    *,
    k: int = 8,
    batch_size: int = 256,
    seed: int = 0,
    qr_every: int = 1,
) -> Diagnosis:
    """The dynamics of every puzzle of `batch` over halt_max_steps ACT steps from the clean start, without halting.

    The state is (z_H, z_L) under the Euclidean norm. `batch_size` bounds memory to what a plain evaluation of as many
    rows takes, and at least one example is held. `seed` chooses the vectors, which are made orthonormal again after
    every `qr_every` ACT steps.
    Computed in the model's own dtype, without autocast. Raises ValueError if k is not between 1 and the state's size.
    """
    start = torch.stack(list(model.initial_latents(1).values()), dim=1)
    Q_XK = orthonormal_vectors(start.numel(), k, seed)
    size = chunk_size(batch_size, k)
    parts = [
        [found.double().cpu() for found in _unroll(model, part, start, Q_XK, qr_every)]
        for part in (Batch(*(x[i : i + size] for x in batch)) for i in range(0, len(batch.inputs), size))
    ]
    log_growth, drift, norm = (torch.cat(x).numpy() for x in zip(*parts, strict=True))
    return Diagnosis(log_growth, drift, norm, model.sub_updates)


def chunk_size(batch_size: int, k: int) -> int:
    """How many examples, with k tangent vectors each, take the memory of `batch_size` plain rows; one at least."""
    return max(1, batch_size // plain_rows(k))


def plain_rows(k: int) -> int:
    """Of a plain evaluation, the rows that take the memory of an example with k tangent vectors.

    Twice 1 + k: measured on a maze of 900 cells with k = 8 it is 1.1 (TRM-MLP) to 1.7 (attention, whose weights are
    held for every vector) times that.
    """
    return 2 * (1 + k)


def _unroll(
    model: RecursiveModel, batch: Batch, start: Tensor, Q_XK: Tensor, qr_every: int
) -> tuple[Tensor, Tensor, Tensor]:
    """log growth [B, T, K], drift and norm [B, T] of a part of the puzzles."""
    embedding_BND = model.embed(batch)
    K, shape = Q_XK.shape[1], start.shape[1:]  # latents, N, D

    def act_step(z_RX: Tensor, embedding_RND: Tensor = embedding_BND) -> Tensor:
        z = dict(zip(model.latent_names, z_RX.unflatten(1, shape).unbind(1), strict=True))
        after = model.reason(z, embedding_RND)
        return torch.stack([after[name] for name in model.latent_names], dim=1).flatten(1)

    def carry(z_BX: Tensor, V_KBX: Tensor) -> tuple[Tensor, Tensor]:
        with tangents.carried(K):
            return tangents.split(act_step(torch.cat((z_BX[None], V_KBX)).flatten(0, 1), of_rows))

    # The embedding of the states has no part in their vectors.
    of_rows = torch.cat((embedding_BND, embedding_BND.new_zeros(K * len(embedding_BND), *shape[1:])))
    push = carry if model.carries_tangents else by_forward_mode(act_step)

    def first_latent(z_BX: Tensor) -> Tensor:
        return z_BX[:, : shape[1:].numel()]

    z_BX = start.flatten(1).repeat(len(batch.inputs), 1)
    log_growth: list[Tensor] = []
    drift: list[Tensor] = []
    norm: list[Tensor] = []
    eagerly = model.eagerly()  # neither compiled blocks nor
    no_fused_attention = sdpa_kernel(SDPBackend.MATH)  # fused attention kernels have forward-mode derivatives
    with eagerly, torch.autocast(z_BX.device.type, enabled=False), no_fused_attention:
        for after_BX, growth_BK in tangent_unroll(push, z_BX, Q_XK, model.halt_max_steps, qr_every):
            log_growth.append(growth_BK)
            drift.append((first_latent(after_BX) - first_latent(z_BX)).norm(dim=1))
            norm.append(first_latent(after_BX).norm(dim=1))
            z_BX = after_BX
    return torch.stack(log_growth, dim=1), torch.stack(drift, dim=1), torch.stack(norm, dim=1)

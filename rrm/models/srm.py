"""SRM, the Stable Recursion Model: contractive by construction, so noise on the initial latent is forgotten.

Mathematics, bounds and their proofs: SPEC.md, A. Every latent update is built of 1-Lipschitz sandwich layers (Wang and
Manchester, "Direct parameterization of Lipschitz-bounded deep networks", arXiv 2301.11526) and two gains whose matrix
has row sums kappa < 1.
"""

import math
from contextlib import nullcontext
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rrm.models import tangents
from rrm.models.act import AfterUpdate, Latents, unchanged
from rrm.models.base import BaseConfig, BaseModel
from rrm.models.layers import rms_norm
from rrm.models.products import product, rounded, tensorfloat32_products

KAPPA_LOGIT_START = 1.492  # 0.5 + 0.49 * sigmoid(1.492) = 0.9
KAPPA_PENALTY = 10.0


class SRMConfig(BaseConfig):
    """SRM's own fields: `L_layers` blocks that both updates share, step size `alpha`, weight `eta` of z_L in the norm.

    `kappa` is the gain; `learn_kappa` starts it at 0.9 and lets it move between 0.5 and 0.99, held near `kappa` by
    10 (kappa_learned - kappa)^2 in the loss.
    `grad_cycles` H cycles of an ACT step carry gradient (0: all of them).
    """

    arch: Literal["srm"]
    L_layers: int = Field(default=2, ge=1)
    kappa: float = Field(default=0.9, gt=0, lt=1)
    learn_kappa: bool = False
    alpha: float = Field(default=1.0, gt=0, le=1)
    eta: float = Field(default=1.0, gt=0)
    grad_cycles: int = Field(default=0, ge=0)


def cayley(W: Tensor) -> Tensor:
    """An orthonormal-column matrix of the shape of W [n, k], n >= k, from any W (SPEC.md, A, "Cayley").

    W = [U; V]: S = U - U^T + V^T V, M = (I + S)^-1 (I - S), Q = [M; -V (I + M)]. Computed in float32, never in TF32.
    """
    k = W.shape[1]
    W = W if W.dtype == torch.float64 else W.float()
    U, V = W[:k], W[k:]
    identity = torch.eye(k, dtype=W.dtype, device=W.device)
    with tensorfloat32_products(False) if W.is_cuda else nullcontext():
        S = U - U.T + V.T @ V
        M, _ = torch.linalg.solve_ex(identity + S, identity - S)  # I + S has an inverse: no wait for a check
        Q = torch.cat((M, -V @ (identity + M)))
        return Q @ (1.5 * identity - 0.5 * Q.T @ Q)  # one Newton-Schulz step: rounding of large weights


Operand = tuple[Tensor, Tensor | None]  # a matrix, and as the precision of products rounds it
Factors = tuple[Operand, Operand]
BlockFactors = tuple[Factors, Factors]


class Sandwich(nn.Module):
    """y = sqrt2 A^T Psi relu(sqrt2 Psi^-1 B x + b) + b2 on the last dimension, 1-Lipschitz whatever the weights.

    [A B] [n, 2n] has orthonormal rows. Starts near the identity: [A B] ~ [I I] / sqrt2, y ~ relu(x + 1) - 1.
    """

    def __init__(self, size: int, generator: torch.Generator):
        super().__init__()
        W = 0.3 * torch.randn(2 * size, size, generator=generator) / math.sqrt(2 * size)
        W[size:] -= math.tan(math.pi / 8) * torch.eye(size)
        self.W = nn.Parameter(W)
        self.psi = nn.Parameter(torch.zeros(size))
        self.inner_bias = nn.Parameter(torch.ones(size))
        self.outer_bias = nn.Parameter(-torch.ones(size))

    def factors(self) -> tuple[Tensor, Tensor]:
        """The two matrices of the layer, in and out, [n, n] each: the costly part, from the weights alone."""
        Q = cayley(self.W)
        A, B = Q[: len(self.psi)], Q[len(self.psi) :]
        scale = self.psi.exp()
        return math.sqrt(2) * (B.T / scale[:, None]), math.sqrt(2) * (A * scale)

    def forward(self, x: Tensor, factors: Factors) -> Tensor:
        into, out = factors
        hidden = product(x, *into, self.inner_bias)
        hidden = tangents.relu_(hidden) if tangents.are_carried() else torch.relu(hidden)
        return product(hidden, *out, self.outer_bias)


class SandwichBlock(nn.Module):
    """A sandwich over positions, for each channel, then one over channels."""

    def __init__(self, positions: int, channels: int, generator: torch.Generator):
        super().__init__()
        self.tokens = Sandwich(positions, generator)
        self.channels = Sandwich(channels, generator)

    def forward(self, x_BND: Tensor, factors: BlockFactors) -> Tensor:
        x_BND = self.tokens(x_BND.transpose(1, 2), factors[0]).transpose(1, 2)
        return self.channels(x_BND, factors[1])


class SRM(BaseModel):
    """L_cycles low updates and one high update make an H cycle, as in TRM, without norm, softmax or gating inside.

    low: l <- (1 - alpha) l + alpha f(a_LL l + a_LH h U^T + e); high: h <- (1 - alpha) h + alpha f(a_HH h + a_HL l U).
    The heads read rms_norm(h), outside the recursion.
    """

    block = SandwichBlock
    carries_tangents = True

    def __init__(
        self, config: SRMConfig, seq_len: int, vocab_size: int, num_puzzles: int, generator: torch.Generator
    ) -> None:
        super().__init__(
            config,
            seq_len=seq_len,
            vocab_size=vocab_size,
            num_puzzles=num_puzzles,
            learned_positions=False,
            generator=generator,
        )
        self.config = config
        D = config.hidden_size
        self.blocks = nn.ModuleList(SandwichBlock(self.positions, D, generator) for _ in range(config.L_layers))
        self.mix = nn.Parameter(0.3 * torch.randn(D, D, generator=generator) / math.sqrt(D))
        self.m = nn.Parameter(torch.zeros(()))
        self.kappa_logit = nn.Parameter(torch.tensor(KAPPA_LOGIT_START)) if config.learn_kappa else None

    @property
    def kappa(self) -> Tensor:
        """The gain: fixed, or learned between 0.5 and 0.99."""
        if self.kappa_logit is None:
            return torch.full_like(self.m, self.config.kappa)
        return 0.5 + 0.49 * self.kappa_logit.sigmoid()

    def bound(self) -> float:
        """rho_c: an H cycle contracts the block-max norm by at least this much (SPEC.md, A, theorem 2)."""
        alpha, kappa, c = self.config.alpha, self.kappa.item(), self.m.sigmoid().item()
        held, mixed = 1 - alpha + alpha * kappa * (1 - c), alpha * kappa * c
        low = held**self.config.L_cycles + mixed * (1 - held**self.config.L_cycles) / (1 - held)
        return max(low, held + mixed * low)

    def reason(self, latents: Latents, embedding_BND: Tensor, after_update: AfterUpdate = unchanged) -> Latents:
        """H_cycles cycles; the last grad_cycles of them carry gradient, and the factors are computed once for all."""
        factors, mix = self.once(("factors", self.product_dtype, torch.is_grad_enabled()), self._factors)
        with_gradient = self.config.grad_cycles or self.config.H_cycles
        for cycle in range(self.config.H_cycles):
            learns = cycle >= self.config.H_cycles - with_gradient
            with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
                latents = self._H_cycle(latents, embedding_BND, factors, mix, after_update)
        return latents

    def _H_cycle(
        self,
        latents: Latents,
        embedding: Tensor,
        factors: list[BlockFactors],
        mix: Operand,
        after_update: AfterUpdate,
    ) -> Latents:
        alpha, kappa, c = self.config.alpha, self.kappa, self.m.sigmoid()
        root_eta = math.sqrt(self.config.eta)
        high, low = latents["z_H"], latents["z_L"]
        own, from_low, from_high = kappa * (1 - c), kappa * c * root_eta, kappa * c / root_eta
        injection = from_high * product(high, *mix) + embedding
        for _ in range(self.config.L_cycles):
            low = after_update("z_L", (1 - alpha) * low + alpha * self._f(own * low + injection, factors))
        back = mix[0].T, None if mix[1] is None else mix[1].T
        high = (1 - alpha) * high + alpha * self._f(own * high + from_low * product(low, *back), factors)
        return {"z_H": after_update("z_H", high), "z_L": low}

    def _factors(self) -> tuple[list[BlockFactors], Operand]:
        def operand(x: Tensor) -> Operand:
            x = self.as_leaf(x)
            return x, rounded(x, self.product_dtype)

        def factors(sandwich: Sandwich) -> Factors:
            into, out = sandwich.factors()
            return operand(into), operand(out)

        blocks = [(factors(block.tokens), factors(block.channels)) for block in self._stack()]
        return blocks, operand(cayley(self.mix))

    def _stack(self) -> list[SandwichBlock]:
        return [block for block in self.blocks if isinstance(block, SandwichBlock)]

    def _f(self, x_BND: Tensor, factors: list[BlockFactors]) -> Tensor:
        for block, block_factors in zip(self._stack(), factors, strict=True):
            x_BND = block(x_BND, block_factors)
        return x_BND

    def decays(self, name: str) -> bool:
        """Heads and embedding only: decay would shrink a sandwich to nothing (SPEC.md, A, "Weight decay pitfall")."""
        return not name.startswith("blocks.") and name not in ("mix", "m", "kappa_logit")

    def penalty(self) -> Tensor | None:
        """What holds a learned gain near the one asked for."""
        return None if self.kappa_logit is None else KAPPA_PENALTY * (self.kappa - self.config.kappa) ** 2

    def read(self, z_BND: Tensor) -> Tensor:
        """The heads see the normalised latent."""
        return rms_norm(z_BND, 1e-5)

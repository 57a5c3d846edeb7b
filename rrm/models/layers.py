"""The blocks of HRM and TRM, with the published initialisation.

Shape suffixes used in this project: B rows (batch, times rollouts), K rollouts, S sequence, P prefix positions,
N = P + S positions, D width, V vocabulary, T reasoning (ACT) step.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrm.models import tangents
from rrm.models.products import attend, product, swiglu

SWIGLU_MULTIPLE = 256
# 1 / std of a standard normal truncated to [-2, 2]: with it the truncated variable has exactly the std asked for.
TRUNCATION_CORRECTION = 1.1368472343385565


def truncated_normal_from_uniform(u: Tensor, std: float) -> Tensor:
    """Map u, uniform on [-erf(sqrt 2), erf(sqrt 2)], to a normal of exactly `std`, cut at two of its own sigmas.

    The published initialiser: clip(sqrt2 * erfinv(u) * c * std, -2 c std, 2 c std). Any shape, returned as float32.
    """
    scale = TRUNCATION_CORRECTION * std
    return (math.sqrt(2) * scale * torch.erfinv(u)).clamp(-2 * scale, 2 * scale)


def truncated_normal(shape: tuple[int, ...], std: float, generator: torch.Generator) -> Tensor:
    """A float32 tensor of `shape` from the published truncated normal of exactly `std`, drawn on the CPU."""
    bound = math.erf(math.sqrt(2))
    u = torch.rand(shape, generator=generator, dtype=torch.float32) * (2 * bound) - bound
    return truncated_normal_from_uniform(u, std)


class Linear(nn.Module):
    """y = x W^T without bias, W [out, in] of std 1/sqrt(in)."""

    def __init__(self, in_features: int, out_features: int, generator: torch.Generator):
        super().__init__()
        self.weight = nn.Parameter(truncated_normal((out_features, in_features), in_features**-0.5, generator))
        self.rounded: Tensor | None = None  # within an ACT step, where its precision rounds weights

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.rounded)


class Embedding(nn.Module):
    """A table [num, D] of std 1/sqrt(D); the model scales what it gathers by sqrt(D)."""

    def __init__(self, num: int, dim: int, generator: torch.Generator):
        super().__init__()
        self.embedding_weight = nn.Parameter(truncated_normal((num, dim), dim**-0.5, generator))

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.embedding_weight)


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, without a gain."""
    return tangents.rms_norm(x, eps) if tangents.are_carried() else F.rms_norm(x, (x.shape[-1],), eps=eps)


def swiglu_width(hidden_size: int, expansion: float) -> int:
    """The published inner width: 2/3 of expansion * hidden, rounded, then up to a multiple of 256."""
    return -(-round(expansion * hidden_size * 2 / 3) // SWIGLU_MULTIPLE) * SWIGLU_MULTIPLE


class SwiGLU(nn.Module):
    """down(silu(gate) * up); the gate is the first half of gate_up's rows."""

    def __init__(self, hidden_size: int, expansion: float, generator: torch.Generator):
        super().__init__()
        inner = swiglu_width(hidden_size, expansion)
        self.gate_up_proj = Linear(hidden_size, 2 * inner, generator)
        self.down_proj = Linear(inner, hidden_size, generator)

    def forward(self, x: Tensor) -> Tensor:
        gate_up, down = self.gate_up_proj, self.down_proj
        rounded = () if gate_up.rounded is None or down.rounded is None else (gate_up.rounded, down.rounded)
        return swiglu(x, gate_up.weight, down.weight, rounded)


def rotary_tables(positions: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin [N, head_dim] of rotary position embedding (Su et al. 2021), two identical halves."""
    frequencies = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate queries or keys [B, heads, N, head_dim] by tables [N, head_dim], rotate-half convention."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Full (not causal) multi-head attention; qkv rows are ordered q heads, k heads, v heads."""

    def __init__(self, hidden_size: int, num_heads: int, generator: torch.Generator):
        super().__init__()
        self.num_heads = num_heads
        self.qkv_proj = Linear(hidden_size, 3 * hidden_size, generator)
        self.o_proj = Linear(hidden_size, hidden_size, generator)

    def forward(self, x_BND: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        B, N, D = x_BND.shape
        qkv = self.qkv_proj(x_BND).view(B, N, 3, self.num_heads, D // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        rounds = self.qkv_proj.rounded is not None
        return self.o_proj(attend(q, k, v, rounds).transpose(1, 2).reshape(B, N, D))


class Block(nn.Module):
    """Post-norm block: token mixing (attention, or a SwiGLU over positions), then a SwiGLU over channels.

    With `mlp_t` the norm after token mixing is over positions, the one after channel mixing over channels.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        num_heads: int,
        expansion: float,
        positions: int,
        mlp_t: bool,
        eps: float,
        generator: torch.Generator,
    ):
        super().__init__()
        self.eps = eps
        self.mlp_t = SwiGLU(positions, expansion, generator) if mlp_t else None
        self.self_attn = None if mlp_t else Attention(hidden_size, num_heads, generator)
        self.mlp = SwiGLU(hidden_size, expansion, generator)

    def forward(self, x_BND: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        if self.mlp_t is not None:
            x_BDN = x_BND.transpose(1, 2).contiguous()
            x_BND = rms_norm(x_BDN + self.mlp_t(x_BDN), self.eps).transpose(1, 2)
            if x_BND.is_cuda:  # its kernels for columns of odd length, as positions are, take several times as long
                x_BND = x_BND.contiguous()
        elif self.self_attn is not None:
            x_BND = rms_norm(x_BND + self.self_attn(x_BND, rotary), self.eps)
        return rms_norm(x_BND + self.mlp(x_BND), self.eps)


class ReasoningModule(nn.Module):
    """A stack of blocks applied to hidden + injection: one latent update of HRM's or TRM's recursion."""

    def __init__(self, layers: list[Block]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, hidden_BND: Tensor, injection_BND: Tensor | None, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        x = hidden_BND if injection_BND is None else hidden_BND + injection_BND
        for layer in self.layers:
            x = layer(x, rotary)
        return x

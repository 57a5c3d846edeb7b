"""Tangent vectors that go through a model with its states: exact directional derivatives, a batch at a time.

Within `carried(k)` the rows of a batch are B states and then k tangent vectors of each: [(1 + k) * B, ...], vector by
vector. What is linear takes all rows as they come, in one product; what is not has its rule here, in place where the
rows are its own. Without gradient, and in full precision.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_vectors = 0


@contextmanager
def carried(vectors: int) -> Iterator[None]:
    """Within this context batches carry so many tangent vectors of each of their states."""
    global _vectors
    _vectors = vectors
    try:
        yield
    finally:
        _vectors = 0


def are_carried() -> bool:
    """Whether batches carry tangent vectors."""
    return _vectors > 0


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """The states [B, ...] and their vectors [k, B, ...] in a batch, as views."""
    rows = x.unflatten(0, (1 + _vectors, -1))
    return rows[0], rows[1:]


def add_bias_(y: Tensor, bias: Tensor) -> Tensor:
    """y + bias of states, in place; their vectors stay."""
    split(y)[0].add_(bias)
    return y


def relu_(x: Tensor) -> Tensor:
    """relu, in place: vectors live where their state is above 0."""
    state, vectors = split(x)
    vectors.mul_(state > 0)
    state.relu_()
    return x


def gated_(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, in place of `gate`."""
    (state, vectors), (up_state, up_vectors) = split(gate), split(up)
    share = state.sigmoid()
    silu = state * share
    slope = (share + silu * (1 - share)) * up_state
    vectors.mul_(slope).addcmul_(silu, up_vectors)
    torch.mul(silu, up_state, out=state)
    return gate


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (state, vectors), (y_state, y_vectors) = split(x), split(y)
    inverse = (state.square().mean(-1, keepdim=True) + eps).rsqrt()
    torch.mul(state, inverse, out=y_state)
    along = (vectors * y_state).mean(-1, keepdim=True)
    torch.addcmul(vectors, y_state, along, value=-1, out=y_vectors).mul_(inverse)
    return y


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v for queries, keys and values [(1 + k) * B, heads, N, head_dim]."""
    (q, dq), (k, dk), (v, dv) = split(q * q.shape[-1] ** -0.5), split(k), split(v)
    shares = (q @ k.mT).softmax(dim=-1)
    # dq k^T + q dk^T in one product: [dq q] [k dk]^T
    scores = torch.cat((dq, q.expand(dq.shape)), dim=-1) @ torch.cat((k.expand(dk.shape), dk), dim=-1).mT
    scores.mul_(shares)
    scores.addcmul_(shares, scores.sum(-1, keepdim=True), value=-1)  # of the softmax
    by_vector = dv.permute(1, 2, 3, 0, 4)  # side by side: one product for all, of the same shares
    moved = (shares @ by_vector.flatten(3)).unflatten(3, by_vector.shape[3:]).permute(3, 0, 1, 2, 4)
    return torch.cat(((shares @ v)[None], (scores @ v).add_(moved))).flatten(0, 1)

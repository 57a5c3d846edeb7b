"""Products of activations with weights: which library computes them, in which precision, what they keep for backward.

In a rounded precision both operands of every product are rounded, those of the backward pass too; weights are rounded
once an optimizer step or evaluation (`Linear.rounded`, `constant_weights`) and their gradients summed in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from rrm.models import tangents

ForwardDtype = Literal["float32", "tensorfloat32", "bfloat16"]
# MKL leaves half of the width of an AMD core's 512-bit vectors unused, oneDNN does not; on others they are level.
CONVOLVES = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
CONVOLVE_FROM = 2**23  # multiplications of a product; below, setting up a convolution costs more than it saves
ALIGNED = 8  # numbers that a row must be a multiple of, for a GPU's fast kernels; padding with zeros changes no product
LOST_BITS = 13  # of float32's 23 bits of mantissa, TensorFloat-32 has 10


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b on the last dimension: x [..., in], weight [out, in], bias [out].

    In float32 torch multiplies matrices by MKL and convolves by oneDNN: on a CPU where that is faster, a product of
    some size is written as a convolution with a 1 x 1 kernel.
    """
    if not _worth_convolving(x, weight):
        return F.linear(x, weight, bias)
    return convolved_opaque(x, weight, bias) if torch.compiler.is_compiling() else convolved(x, weight, bias)


def _worth_convolving(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or not CONVOLVES:
        return False
    return x.numel() * len(weight) >= CONVOLVE_FROM


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`linear` as a convolution of one image that is one pixel high."""
    # The dilation says nothing to a kernel of one point; without it torch does not take oneDNN for a single image.
    y_1C1R = F.conv2d(_as_image(x), weight[:, :, None, None], bias, dilation=2)
    return y_1C1R.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def _as_image(x: Tensor) -> Tensor:
    return x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # a view in oneDNN's layout, channels last


def _convolved_gradients(grad: Tensor, x: Tensor, weight: Tensor, biased: bool) -> list[Tensor]:
    plain = {"stride": [1, 1], "padding": [0, 0], "transposed": False, "output_padding": [0, 0], "groups": 1}
    operands = _as_image(grad), _as_image(x), weight[:, :, None, None], [len(weight)]
    grad_x, *others = torch.ops.aten.convolution_backward(
        *operands, dilation=[2, 2], output_mask=[True, True, biased], **plain
    )
    grad_x = grad_x.permute(0, 2, 3, 1).reshape(x.shape)
    return [grad_x, others[0].view(weight.shape), *others[1:] * biased]


# torch.compile would lay out such an image otherwise and copy it: to it, the product is one opaque operation.
@torch.library.custom_op("rrm::convolved", mutates_args=())
def convolved_opaque(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`convolved`."""
    return convolved(x, weight, bias)


@torch.library.custom_op("rrm::convolved_backward", mutates_args=())
def _convolved_backward(grad: Tensor, x: Tensor, weight: Tensor, biased: bool) -> list[Tensor]:
    return _convolved_gradients(grad, x, weight, biased)


@convolved_opaque.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


@_convolved_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, biased: bool) -> list[Tensor]:
    gradients = [x.new_empty(x.shape), weight.new_empty(weight.shape)]
    return [*gradients, weight.new_empty(len(weight))] if biased else gradients


def _save(ctx, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    x, weight, bias = inputs
    ctx.save_for_backward(x, weight)
    ctx.biased = bias is not None


def _gradients(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _convolved_backward(grad, *ctx.saved_tensors, ctx.biased)
    return gradients[0], gradients[1], gradients[2] if ctx.biased else None


convolved_opaque.register_autograd(_gradients, setup_context=_save)


def _linear_gradients(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the weight, by the kernels that autograd would take for `linear` without bias."""
    if _worth_convolving(x, weight):
        compiling = torch.compiler.is_compiling()
        grad_x, grad_weight = (_convolved_backward if compiling else _convolved_gradients)(grad, x, weight, False)
        return grad_x, grad_weight
    grad_RO, x_RI = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
    columns_first = x_RI.stride() == (1, len(x_RI))
    grad_x = (weight.t() @ grad_RO.t()).t() if columns_first else grad_RO @ weight
    return grad_x.reshape(x.shape), grad_RO.t() @ x_RI


def tensorfloat32(x: Tensor) -> Tensor:
    """x float32 rounded to the nearest number with the 10 bits of mantissa that a GPU's TF32 products keep."""
    bits = (x.contiguous().view(torch.int32) + (1 << LOST_BITS - 1)) & -(1 << LOST_BITS)
    return bits.view(torch.float32)


def rounded(x: Tensor, dtype: ForwardDtype) -> Tensor | None:
    """x detached and rounded as an operand of a product in `dtype`; None where the product takes it as it is.

    A GPU rounds to TF32 itself (`tensorfloat32_products`); on a CPU it is done here, to the same effect.
    """
    if dtype == "bfloat16":
        return x.detach().to(torch.bfloat16)
    return tensorfloat32(x.detach()) if dtype == "tensorfloat32" and x.device.type == "cpu" else None


@contextmanager
def tensorfloat32_products(enabled: bool) -> Iterator[None]:
    """Whether a GPU rounds the operands of float32 products to TF32: within this context, and as before afterwards."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32" if enabled else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _like(x: Tensor, weight: Tensor, rounds: bool = True) -> Tensor:
    """x rounded as a rounded weight is."""
    if not rounds:
        return x
    return x.to(torch.bfloat16) if weight.dtype == torch.bfloat16 else tensorfloat32(x)


def _full(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x


class _RoundedProduct(Function):
    """`linear` of rounded operands. The gradient of the weight is that of the unrounded one."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, rounded: Tensor, bias: Tensor | None) -> Tensor:
        ctx.dtype, ctx.biased = x.dtype, bias is not None
        x = _like(x, rounded)
        ctx.save_for_backward(x, rounded)
        return linear(x, rounded, None if bias is None else bias.to(rounded.dtype))

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = _like(grads[0], weight)
        grad_x, grad_weight = _linear_gradients(grad, x, weight)
        grad_bias = _full(grad.flatten(0, -2).sum(0)) if ctx.biased else None
        return grad_x.to(ctx.dtype), _full(grad_weight), None, grad_bias


def product(x: Tensor, weight: Tensor, rounded: Tensor | None, bias: Tensor | None = None) -> Tensor:
    """x W^T + b; by `rounded`, the weight as the precision has it, where there is one."""
    if rounded is not None:
        return _RoundedProduct.apply(x, weight, rounded, bias)
    if bias is not None and tangents.are_carried():
        return tangents.add_bias_(linear(x, weight), bias)
    return linear(x, weight, bias)


class _RoundedMatmul(Function):
    """a @ b of operands rounded to TF32, forward and backward."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        a, b = tensorfloat32(a), tensorfloat32(b)
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        grad = tensorfloat32(grads[0])
        return grad @ b.transpose(-1, -2), a.transpose(-1, -2) @ grad


def attend(q: Tensor, k: Tensor, v: Tensor, rounds: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v for queries, keys and values [B, heads, N, head_dim]."""
    if tangents.are_carried():
        return tangents.attend(q.to(v.dtype), k.to(v.dtype), v)
    scale = q.shape[-1] ** -0.5
    if v.device.type == "cpu" and v.dtype == torch.bfloat16:
        if torch.is_grad_enabled():  # backward through torch's own takes eight times as long
            scores = (q * scale).to(v.dtype) @ k.to(v.dtype).transpose(-1, -2)
            return scores.softmax(dim=-1) @ v
    elif v.device.type == "cpu" and rounds:
        return _RoundedMatmul.apply(_RoundedMatmul.apply(q * scale, k.transpose(-1, -2)).softmax(dim=-1), v)
    return F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)


class _SwiGLU(Function):
    """`swiglu` that keeps x, gate and up for its backward, and computes again what follows from them.

    x comes twice, so that autograd adds its two gradients to others in the order that it has them without this class.
    """

    @staticmethod
    def forward(ctx, x: Tensor, _: Tensor, gate_up: Tensor, down: Tensor, *rounded: Tensor) -> Tensor:
        ctx.rounds = len(rounded) > 0
        kept, y = _swiglu(x, gate_up, down, rounded)
        ctx.save_for_backward(*kept)
        return y

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, up, gate_up, down = ctx.saved_tensors
        silu = F.silu(gate)
        hidden = _like(silu * up, down, ctx.rounds)
        grad_hidden, grad_down = _linear_gradients(_like(grads[0], down, ctx.rounds), hidden, down)
        grad_gate = _like(torch.ops.aten.silu_backward(grad_hidden * up, gate), down, ctx.rounds)
        grad_up = _like(grad_hidden * silu, down, ctx.rounds)
        gate_weight, up_weight = gate_up.chunk(2)
        x_by_gate, grad_gate = _linear_gradients(grad_gate, x, gate_weight)
        x_by_up, grad_up = _linear_gradients(grad_up, x, up_weight)
        gradients = map(_full, (x_by_up, x_by_gate, torch.cat((grad_gate, grad_up)), grad_down))
        return *gradients, *[None] * 2 * ctx.rounds


def _swiglu(x: Tensor, gate_up: Tensor, down: Tensor, rounded: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
    """What a backward needs, and the output."""
    if rounded:
        x, (gate_up, down) = _like(x, rounded[0]), rounded
    # Two products, not one cut in two: elementwise steps are faster on whole tensors.
    gate, up = (linear(x, weight) for weight in gate_up.chunk(2))
    hidden = tangents.gated_(gate, up) if tangents.are_carried() else F.silu(gate) * up
    y = linear(_like(hidden, down, len(rounded) > 0), down)  # dynamo knows no bool(tuple)
    return (x, gate, up, gate_up, down), y


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor, rounded: tuple[Tensor, ...] = ()) -> Tensor:
    """down(silu(gate) * up) with gate_up [2 I, in], whose first half is the gate, and down [out, I].

    `rounded` holds both weights as the precision has them, where they are rounded.
    """
    width = x.shape[-1]
    padding = -width % ALIGNED if x.is_cuda else 0
    if padding:
        inwards, outwards = (0, padding), (0, 0, 0, padding)
        x, gate_up, down = F.pad(x, inwards), F.pad(gate_up, inwards), F.pad(down, outwards)
        rounded = tuple(map(F.pad, rounded, (inwards, outwards)))
    if torch.is_grad_enabled():
        again = x.view_as(x) if torch.compiler.is_compiling() else x  # dynamo takes no tensor twice
        y = _SwiGLU.apply(x, again, gate_up, down, *rounded)
    else:
        y = _swiglu(x, gate_up, down, rounded)[1]
    return y[..., :width] if padding else y

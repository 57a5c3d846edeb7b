"""Products by convolution are held to F.linear, a SwiGLU that keeps less to the plain one, TF32 to its rounding."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from tiny import has_compiler

from rrm.models import products
from rrm.models.layers import rms_norm
from rrm.models.products import (
    CONVOLVE_FROM,
    _worth_convolving,
    attend,
    convolved,
    convolved_opaque,
    linear,
    product,
    rounded,
    swiglu,
    tensorfloat32,
)
from rrm.streams import torch_generator
from rrm.torch_setup import set_up_torch

SHAPES = {"channels": (32, 81, 128, 512), "one row": (1, 97, 512, 512), "odd": (33, 81, 81, 81)}  # B, N, in, out


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch_generator(0, str(shape)))


@pytest.fixture(autouse=True)
def convolves(monkeypatch):
    """On every CPU: whether it pays there is a matter of speed."""
    monkeypatch.setattr(products, "CONVOLVES", torch.backends.mkldnn.is_available())


@pytest.fixture(params=SHAPES)
def operands(request) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    B, N, inner, out = SHAPES[request.param]
    operands = normal(B, N, inner), normal(out, inner) * inner**-0.5, normal(out)
    assert _worth_convolving(*operands[:2])
    return operands


def assert_close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients(operands, biased):
    leaves = [x.requires_grad_() for x in (operands if biased else operands[:2])]
    ours, theirs = linear(*leaves), F.linear(*leaves)
    assert ours.is_contiguous()
    assert_close(ours, theirs)
    weights = normal(*theirs.shape)
    for a, b in zip(*(torch.autograd.grad(y, leaves, weights) for y in (ours, theirs)), strict=True):
        assert_close(a, b)


def test_positions_before_channels(operands):
    x, weight, bias = operands
    x_BDN = x.transpose(1, 2).contiguous()
    assert_close(linear(x_BDN.transpose(1, 2), weight, bias), F.linear(x, weight, bias))


def test_forward_derivatives_of_many_directions(operands):
    x, weight, _ = operands
    directions = torch.stack([normal(*x.shape), torch.ones_like(x)])
    with torch.no_grad():
        images = torch.func.vmap(lambda d: torch.func.jvp(lambda z: linear(z, weight), (x,), (d,))[1])(directions)
    assert_close(images, F.linear(directions, weight))


def test_the_same_bits_each_time(operands):
    x, weight, bias = (x.requires_grad_() for x in operands)

    def run():
        y = linear(x, weight, bias)
        return y, *torch.autograd.grad(y.square().sum(), (x, weight, bias))

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_small_products_and_other_types_go_the_plain_way():
    x, weight = normal(4, 16, 32), normal(32, 32)
    assert x.numel() * len(weight) < CONVOLVE_FROM
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert not _worth_convolving(normal(32, 81, 128).double(), normal(512, 128).double())


@pytest.mark.parametrize("biased", [True, False])
def test_what_compiled_code_calls_is_the_same(operands, biased):
    leaves = [x.requires_grad_() for x in (operands if biased else operands[:2])]
    x, weight, bias = (*leaves, None)[:3]
    ours, theirs = convolved_opaque(x, weight, bias), convolved(x, weight, bias)
    assert torch.equal(ours, theirs)
    weights = normal(*theirs.shape)
    for a, b in zip(*(torch.autograd.grad(y, leaves, weights) for y in (ours, theirs)), strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("biased", [True, False])
def test_what_compiled_code_calls_keeps_the_rules_of_custom_operators(biased):
    x, weight, bias = (normal(*shape).requires_grad_() for shape in ((2, 3, 4), (5, 4), (5,)))
    torch.library.opcheck(convolved_opaque, (x, weight, bias if biased else None))


def plain_swiglu(x, gate_up, down):
    gate, up = (linear(x, weight) for weight in gate_up.chunk(2))
    return linear(F.silu(gate) * up, down)


def kept_bytes(run) -> int:
    """Bytes of what autograd keeps, each storage once."""
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    assert result.requires_grad
    return sum(sizes.values())


SWIGLUS = {"small": (3, 16, 24), "columns first": (1, 24, 16), "by convolution": (32, 81, 64)}  # B, N, D


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("shape", SWIGLUS)
def test_swiglu_keeps_gate_and_up_alone_for_the_same_gradients(shape, compiled):
    """As a block has it: x also goes on beside, and on a transposed view; all gradients are those of the plain one."""
    if compiled and not has_compiler():
        pytest.skip("torch.compile needs a C++ compiler, and none is here")
    B, N, D = SWIGLUS[shape]
    z, weights = normal(B, D, N).requires_grad_(), (normal(2 * 256, D) * D**-0.5, normal(D, 256) / 16)
    leaves = [z, *(weight.requires_grad_() for weight in weights)]

    def block(form, z, gate_up, down):
        x = rms_norm(z, 1e-5).transpose(1, 2)
        return rms_norm(x + form(x, gate_up, down), 1e-5)

    results, kept = [], []
    for form in (swiglu, plain_swiglu):
        run = partial(torch.compile(block, fullgraph=True, dynamic=False) if compiled else block, form)
        y = run(*leaves)
        results.append((y, *torch.autograd.grad(y, leaves, normal(*y.shape))))
        kept.append(kept_bytes(lambda run=run: run(*leaves)))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))
    if not compiled:
        assert kept[1] - kept[0] >= 2 * B * N * 256 * 4  # silu(gate), and its product with up
    with torch.no_grad():
        x = z.transpose(1, 2)
        assert torch.equal(swiglu(x, *weights), plain_swiglu(x, *weights))


def test_tensorfloat32_is_the_nearest_number_of_ten_bits():
    x = torch.cat((normal(4096) * 10 ** (6 * normal(4096).clamp(-2, 2)), torch.tensor([0.0, torch.inf, -torch.inf])))
    ours = tensorfloat32(x)
    mantissa, exponent = torch.frexp(x[:4096].double())
    torch.testing.assert_close(
        ours[:4096].double(), torch.ldexp((mantissa * 2**11).round(), exponent - 11), rtol=0, atol=0
    )
    assert torch.equal(ours[4096:], x[4096:])
    assert torch.equal(tensorfloat32(ours), ours)
    assert tensorfloat32(torch.tensor([torch.nan])).isnan().all()


@pytest.mark.parametrize("dtype", ["tensorfloat32", "bfloat16"])
def test_rounded_products_round_every_operand_and_sum_weight_gradients_in_float32(dtype):
    """Held to products in float64 of operands rounded one by one, as each of a GPU's kernels rounds them."""
    x, weight, bias, grad = normal(3, 16, 8), normal(24, 8), normal(24), normal(3, 16, 24)

    def low(t: torch.Tensor) -> torch.Tensor:
        return (t.bfloat16() if dtype == "bfloat16" else tensorfloat32(t)).double()

    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    y = product(leaves[0], leaves[1], rounded(leaves[1], dtype), leaves[2])
    ours = y, *torch.autograd.grad(y, leaves, grad.to(y.dtype))
    g, b = low(grad), bias.bfloat16() if dtype == "bfloat16" else bias
    theirs = low(x) @ low(weight).T + b, g @ low(weight), g.flatten(0, 1).T @ low(x).flatten(0, 1), g.sum((0, 1))
    near = {"rtol": 1e-2, "atol": 5e-2} if dtype == "bfloat16" else {"rtol": 1e-5, "atol": 1e-5}
    assert [t.dtype for t in ours[1:]] == [torch.float32] * 3
    for a, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), expected.double(), **near)


def test_attention_in_tensorfloat32_rounds_what_it_multiplies():
    q, k, v = (normal(2, 3, 17, 8, i)[..., 0].requires_grad_() for i in (1, 2, 3))
    plain, ours = attend(q, k, v), attend(q, k, v, rounds=True)
    error = (ours - plain).norm() / plain.norm()
    assert 1e-5 < error < 1e-3
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), (q, k, v)) for y in (ours, plain)), strict=True):
        assert 1e-5 < (a - b).norm() / b.norm() < 2e-3

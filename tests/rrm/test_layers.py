"""Products by convolution are held to F.linear: values, gradients, forward derivatives, and the same bits each time."""

import pytest
import torch
import torch.nn.functional as F

from rrm.models import layers
from rrm.models.layers import CONVOLVE_FROM, _worth_convolving, convolved, convolved_opaque, linear
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
    monkeypatch.setattr(layers, "CONVOLVES", torch.backends.mkldnn.is_available())


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

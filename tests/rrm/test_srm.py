"""SRM's bound, held by power iteration on the Jacobian: never above it, on random, scaled and trained weights."""

import pytest
import torch
from tiny import TINY_SRM, tiny_config

from rrm.models import build_model
from rrm.models.act import Batch
from rrm.models.srm import SRM, cayley
from rrm.streams import torch_generator
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

B, S = 2, 16


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


SETTINGS = {
    "as it starts": {},
    "half steps": {"alpha": 0.6},
    "unequal weights": {"eta": 4.0},
    "tight": {"kappa": 0.99, "L_cycles": 3},
    "both": {"alpha": 0.6, "eta": 0.25, "L_cycles": 2},
}


def srm(scale: float = 1.0, **changes) -> SRM:
    config = tiny_config(model=TINY_SRM | {"hidden_size": 12, "H_cycles": 1} | changes).model
    model = build_model(config, seq_len=S, vocab_size=6, num_puzzles=1, generator=torch_generator(0, "init"))
    assert isinstance(model, SRM)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not model.decays(name):
                parameter.mul_(scale)
    return model.double()


def noise_like(z: torch.Tensor, name: str) -> torch.Tensor:
    return torch.randn(z.shape, dtype=z.dtype, generator=torch_generator(2, name))


def embedding(model: SRM) -> torch.Tensor:
    tokens = torch.randint(1, 6, (B, S), generator=torch_generator(0, "tokens"))
    return model.embed(Batch(tokens, tokens, torch.zeros(B, dtype=torch.int64))).detach()


def largest_gain(model: SRM, base: dict[str, torch.Tensor], iterations: int = 10) -> float:
    """The Jacobian's norm of one H cycle in ||z||_M = max(||z_H||, sqrt(eta) ||z_L||), from below.

    For each output block, ascend ||J (u, v)|| over blocks u, v of norm 1, one row of the batch at a time.
    """
    e, root_eta = embedding(model), model.config.eta**0.5

    def cycle(high: torch.Tensor, low: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        after = model.reason({"z_H": high, "z_L": low / root_eta}, e)
        return after["z_H"], root_eta * after["z_L"]

    def unit(x: torch.Tensor) -> torch.Tensor:
        return x / x.norm(dim=(1, 2), keepdim=True)

    at = base["z_H"], root_eta * base["z_L"]
    _, pull_back = torch.func.vjp(cycle, *at)
    gain = 0.0
    for block in (0, 1):
        directions = tuple(unit(torch.randn(x.shape, dtype=x.dtype, generator=torch_generator(1, "u"))) for x in at)
        for _ in range(iterations):
            _, image = torch.func.jvp(cycle, at, directions)
            norm = image[block].norm(dim=(1, 2))
            gain = max(gain, norm.max().item())
            cotangent = [torch.zeros_like(x) for x in at]
            cotangent[block] = unit(image[block])
            directions = tuple(unit(x + 1e-300) for x in pull_back(tuple(cotangent)))
    return gain


def points(model: SRM):
    """Where the bound is tested: at the start, along the recursion, and far away."""
    latents = {name: z.contiguous() for name, z in model.initial_latents(B).items()}
    yield latents
    for _ in range(3):
        latents = model.reason(latents, embedding(model))
    yield {name: z.detach() for name, z in latents.items()}
    for scale in (1e-3, 1e3):
        yield {name: scale * noise_like(z, name) for name, z in latents.items()}


@pytest.mark.parametrize("scale", [1.0, 8.0])
@pytest.mark.parametrize("name", SETTINGS)
def test_no_jacobian_exceeds_the_bound(name, scale):
    model = srm(scale, **SETTINGS[name])
    bound = model.bound()
    assert bound < 1
    gains = [largest_gain(model, point) for point in points(model)]
    assert max(gains) <= bound * (1 + 1e-9)
    assert scale > 1 or max(gains) > 0.3 * bound  # the search does find large gains where there are some


def test_trained_weights_keep_the_bound():
    config = tiny_config(model=TINY_SRM | {"learn_kappa": True, "H_cycles": 1}, optim={"lr": 3e-2}, train={"steps": 40})
    trainer = Trainer(config, torch.device("cpu"))
    before = trainer.model.bound()
    trainer.train_until(40)
    model = trainer.model.double()
    assert isinstance(model, SRM)
    assert model.bound() != before
    assert 0.5 < model.kappa.item() < 0.99
    assert max(largest_gain(model, point) for point in points(model)) <= model.bound()


@pytest.mark.parametrize("name", SETTINGS)
def test_two_trajectories_come_together_as_the_bound_says(name):
    model = srm(**SETTINGS[name] | {"H_cycles": 5})
    e, root_eta = embedding(model), model.config.eta**0.5

    def distance(a, b):
        high, low = ((a[name] - b[name]).norm(dim=(1, 2)) for name in ("z_H", "z_L"))
        return torch.maximum(high, root_eta * low)

    for near in (1e-6, 1.0, 1e3):
        a = model.initial_latents(B)
        b = {name: z + near * noise_like(z, name) for name, z in a.items()}
        assert (distance(model.reason(a, e), model.reason(b, e)) <= model.bound() ** 5 * distance(a, b)).all()


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("shape", [(8, 8), (24, 8)])
def test_cayley_is_orthonormal(shape, scale):
    W = (scale * torch.randn(shape, generator=torch_generator(0, "W"))).requires_grad_()
    Q = cayley(W)
    torch.testing.assert_close(Q.T @ Q, torch.eye(8), atol=2e-6 if scale < 1e4 else 1e-3, rtol=0)
    Q.sum().backward()
    assert torch.isfinite(W.grad).all()


def test_decay_spares_the_recursion():
    trainer = Trainer(tiny_config(model=TINY_SRM, optim={"weight_decay": 10.0}), torch.device("cpu"))
    decayed, spared = (group["params"] for group in trainer.optimizer.param_groups)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    assert {names[id(p)] for p in decayed} == {
        "embed_tokens.embedding_weight",
        "lm_head.weight",
        "q_head.weight",
        "q_head.bias",
    }
    assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [10.0, 0.0]
    assert len(spared) > 8

"""Invariants of parallel_fixed (SPEC.md, C) against a plain loop over ACT steps and trajectories."""

import pytest
import torch
from tiny import TINY_HRM, TINY_SRM, tiny_config

from rrm.models import build_model
from rrm.models.act import Batch
from rrm.models.losses import row_losses
from rrm.perturb import perturb_latents
from rrm.rollout import Trajectories, parallel_fixed, serial_act
from rrm.streams import torch_generator

B, K = 3, 4
MODELS = {
    "mlp": {},
    "attention": {"mlp_t": False, "pos_encodings": "rope"},
    "learned positions": {"mlp_t": False, "pos_encodings": "learned"},
    "single z": {"single_z": True},
    "q continue": {"no_ACT_continue": False},
    "hrm": TINY_HRM,
    "srm": TINY_SRM,
}


@pytest.fixture(params=MODELS)
def model(request):
    config = tiny_config(model=MODELS[request.param]).model
    model = build_model(config, seq_len=16, vocab_size=6, num_puzzles=1, generator=torch_generator(0, "init"))
    torch.nn.init.normal_(model.q_head.weight, generator=torch_generator(0, "q_head"))
    return model.double()  # so that sums in another order agree closely


def batch() -> Batch:
    tokens = torch.randint(1, 6, (2, B, 16), generator=torch_generator(0, "tokens"))
    return Batch(tokens[0], tokens[1], torch.zeros(B, dtype=torch.int64))


def noisy(model, rollouts=K, sigma=0.3):
    z0 = model.initial_latents(B)
    kind = {"where": ("z_H", "z_L"), "clean_first": True, "seed": 0, "stream": "perturb", "step": 0, "rows": range(B)}
    return perturb_latents(z0, sigma=sigma, rollouts=rollouts, **kind)


def losses_and_gradients(model, latents, rollouts=1):
    model.zero_grad()
    losses = []
    for step in parallel_fixed(model, Trajectories(batch(), latents, rollouts, "stablemax")):
        step.total.sum().backward()
        losses.append(step.total.detach())
    return torch.stack(losses), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_one_clean_rollout_is_the_plain_unroll(model):
    model.zero_grad()
    latents, expected = model.initial_latents(B), []
    for step in range(model.halt_max_steps):
        latents, output = model.act_step(latents, batch())
        target = None
        if model.learns_q_continue:
            with torch.no_grad():
                _, after = model.act_step(latents, batch())
            value = after.q_halt_logits
            if step + 1 < model.halt_max_steps:
                value = torch.maximum(value, after.q_continue_logits)
            target = value.sigmoid()
        losses = row_losses(output, batch().labels, "stablemax", target)
        losses.total.sum().backward()
        expected.append(losses.total.detach())
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    got, got_gradients = losses_and_gradients(model, noisy(model, rollouts=1, sigma=0.0))
    assert torch.equal(got, torch.stack(expected))
    assert got_gradients.keys() == gradients.keys()
    assert all(torch.equal(got_gradients[name], gradients[name]) for name in gradients)


def test_each_rollout_is_its_own_trajectory(model):
    """Rollout 0 has the clean loss at any sigma, and the gradient is the sum over trajectories run one by one."""
    latents = noisy(model)
    together, gradient = losses_and_gradients(model, latents, rollouts=K)
    clean, _ = losses_and_gradients(model, model.initial_latents(B))
    by_trajectory = together.view(-1, B, K)
    torch.testing.assert_close(by_trajectory[..., 0], clean)
    assert not torch.allclose(by_trajectory[..., 1], clean)
    alone = [
        losses_and_gradients(model, {name: z.view(B, K, *z.shape[1:])[:, k] for name, z in latents.items()})
        for k in range(K)
    ]
    torch.testing.assert_close(by_trajectory, torch.stack([losses for losses, _ in alone], dim=-1))
    for name, total in gradient.items():
        torch.testing.assert_close(total, sum(gradients[name] for _, gradients in alone))


def test_no_gradient_crosses_an_act_step(model):
    latents = {name: z.clone().requires_grad_() for name, z in noisy(model).items()}
    first, *_ = parallel_fixed(model, Trajectories(batch(), latents, K, "stablemax"))
    moved, _ = model.act_step(latents, batch().repeat(K))
    assert first.total.requires_grad
    assert not any(z.requires_grad for z in moved.values())


def test_serial_act_without_halting_is_parallel_fixed(model):
    """M calls with accumulated gradients, no slot allowed to halt early: SPEC.md, C, invariant 3."""
    latents = noisy(model)
    losses, gradients = losses_and_gradients(model, latents, rollouts=K)
    model.zero_grad()
    start = Trajectories(batch(), latents, K, "stablemax", torch.full((B, K), 99))
    serial = []
    for _ in range(model.halt_max_steps):
        for bank in serial_act(model, start):
            bank.total.sum().backward()
            serial.append(bank.total.detach())
    torch.testing.assert_close(torch.stack(serial).view(-1, K, B).transpose(1, 2).flatten(1), losses)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name])
    assert all(slots.halted.all() for slots in start.slots)


def test_a_halted_slot_starts_the_next_puzzle_afresh(model):
    """Whatever happened before, a slot that reloads computes what a new one does; the others go on."""
    start = Trajectories(batch(), model.initial_latents(B), 1, "stablemax", torch.full((B, 1), 99))
    list(serial_act(model, start))
    (slots,) = start.slots
    start.slots = [slots._replace(halted=torch.tensor([True, False, True]))]
    other = Batch(batch().inputs.flip(1), batch().labels.flip(1), batch().puzzle_identifiers)
    start.batch = other
    (mixed,) = serial_act(model, start)
    (fresh,) = serial_act(model, Trajectories(other, model.initial_latents(B), 1, "stablemax"))
    torch.testing.assert_close(mixed.total[[0, 2]], fresh.total[[0, 2]])
    assert start.slots[0].steps.tolist() == [1, 2, 1]
    assert torch.equal(start.slots[0].batch.inputs[1], batch().inputs[1])

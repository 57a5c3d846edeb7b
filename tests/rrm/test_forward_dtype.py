"""bfloat16 products: near float32, with float32 latents, noise, weights and averages, and an identity of its own."""

import pytest
import torch
from tiny import MULTI, TINY_HRM, TINY_SRM, tiny_config

from rrm.models import products
from rrm.models.losses import row_losses
from rrm.perturb import perturb_latents
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

CPU = torch.device("cpu")
BFLOAT16 = {"forward_dtype": "bfloat16"}
MODELS = {
    "mlp": {"hidden_size": 32},
    "attention": {"hidden_size": 32, "mlp_t": False, "pos_encodings": "rope"},
    "hrm": TINY_HRM | {"hidden_size": 32},
    "srm": TINY_SRM | {"hidden_size": 32},
}


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


@pytest.fixture(params=MODELS)
def trainers(request) -> tuple[Trainer, Trainer]:
    """The same trial in float32 and in bfloat16."""
    model = MODELS[request.param]
    return Trainer(tiny_config(model=model), CPU), Trainer(tiny_config(model=model, train=BFLOAT16), CPU)


def gradients(trainer: Trainer) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and all gradients, in one vector, of the first ACT step."""
    batch = trainer.data.train_batch(0, 0, 4)
    _, output = trainer.model.act_step(trainer.model.initial_latents(4), batch)
    assert output.logits.dtype == output.q_halt_logits.dtype == torch.float32
    loss = row_losses(output, batch.labels, "stablemax").total.sum()
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])


def test_losses_and_gradients_are_near_those_of_float32(trainers):
    (plain, exact), (loss, rounded) = map(gradients, trainers)
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(loss, plain, rtol=1e-2, atol=0)
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=0) > 0.99


def test_training_stays_near_and_keeps_weights_and_averages_in_float32(trainers):
    for trainer in trainers:
        trainer.train_until(4)
    plain, rounded = trainers
    ours, theirs = (trainer.history[-1]["train_loss"] for trainer in (rounded, plain))
    assert ours != theirs
    assert ours == pytest.approx(theirs, rel=0.02)
    state = rounded.state_dict()
    assert {tensor.dtype for tensor in (*state["model"].values(), *state["ema"].values())} == {torch.float32}


def test_small_noise_survives_in_the_carried_latents(trainers):
    """bfloat16 itself would keep a tenth of it: 1e-4 is far below the rounding of a latent near 1."""
    model, batch = trainers[1].model, trainers[1].data.train_batch(0, 0, 4)
    z0 = model.initial_latents(4)

    def noisy(sigma: float):
        source = {"seed": 0, "stream": "perturb", "step": 0, "rows": range(4)}
        return perturb_latents(z0, sigma=sigma, where=("z_H", "z_L"), rollouts=1, clean_first=False, **source)

    xi, start = noisy(1.0), noisy(1e-4)
    with torch.no_grad():
        clean, after = model.act_step(z0, batch)[0], model.act_step(start, batch)[0]
    for name, z in z0.items():
        torch.testing.assert_close(start[name] - z, 1e-4 * (xi[name] - z), atol=2e-7, rtol=0)
        assert after[name].dtype == torch.float32
        assert (after[name] != clean[name]).flatten(1).any(dim=1).all()


def test_the_slots_of_serial_act_carry_float32():
    trainer = Trainer(tiny_config(rollout="serial_act", train=BFLOAT16, **MULTI), CPU)
    trainer.train_until(2)
    assert trainer.slots[0]
    assert all(z.dtype == torch.float32 for slots in trainer.slots[0] for z in slots.latents.values())


def test_attention_in_bfloat16_is_held_to_float32():
    q, k, v = (torch.randn(2, 3, 17, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    rounded = products.attend(*(x.bfloat16() for x in (q, k, v)))
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), products.attend(q, k, v), atol=2e-2, rtol=2e-2)


def test_a_trial_in_bfloat16_is_another_trial_and_float32_needs_no_name():
    plain = tiny_config()
    assert tiny_config(train={"forward_dtype": "float32", "compile": False}).trial_id() == plain.trial_id()
    ids = {tiny_config(train=change).trial_id() for change in ({}, BFLOAT16, {"compile": True})}
    assert len(ids) == 3

"""bfloat16 products: near float32, with float32 latents, noise, weights and averages, and an identity of its own."""

import pytest
import torch
from tiny import MULTI, TINY_HRM, TINY_SRM, tiny_config

from results.schema import EVALS_SCHEMA
from rrm.fidelity import DROWNED, noise_fidelity
from rrm.models import products
from rrm.models.act import Batch
from rrm.models.base import BaseModel
from rrm.models.losses import row_losses
from rrm.perturb import PerturbConfig, perturb_latents
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


def fidelity(trainer: Trainer, sigma: float, where=("z_H", "z_L"), steps: int = 2) -> dict[str, float]:
    batch = trainer.data.train_batch(0, 0, 4)
    return noise_fidelity(trainer.model, batch, PerturbConfig(sigma=sigma, where=where), sigma, steps)


def long_way(model: BaseModel, batch: Batch, sigma: float) -> dict[str, float]:
    """What `noise_fidelity` of a model of two ACT steps in bfloat16 is by definition."""
    z0 = model.initial_latents(4)
    source = {"rollouts": 1, "clean_first": False, "seed": 0, "stream": "fidelity", "step": 0, "rows": range(4)}
    changes = []
    for model.forward_dtype in ("float32", "bfloat16"):
        ends = [[z0, perturb_latents(z0, sigma=sigma, where=("z_H", "z_L"), **source)]]
        with torch.no_grad():
            for _ in range(2):
                ends.append([model.act_step(z, batch)[0] for z in ends[-1]])
        changes.append([(noisy["z_H"] - clean["z_H"]).double().flatten() for clean, noisy in ends[1:]])
    cosines = [(a @ b / a.norm() / b.norm()).item() for a, b in zip(*changes, strict=True)]
    ratio = (changes[1][0].norm() / changes[0][0].norm()).item()
    return dict(zip(("noise_fidelity", "noise_fidelity_unroll", "noise_norm_ratio"), (*cosines, ratio), strict=True))


def test_noise_fidelity_is_the_cosine_with_the_change_in_float32(trainers):
    """Held to its definition, computed the long way; float32's own is 1, and the model is left as it was."""
    plain, ours = trainers
    assert set(fidelity(plain, 1e-3).values()) == {1.0}
    measured = fidelity(ours, 0.1)
    assert ours.model.forward_dtype == "bfloat16"
    assert measured == pytest.approx(long_way(ours.model, ours.data.train_batch(0, 0, 4), 0.1), abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_small_noise_is_drowned_by_bfloat16_before_tensorfloat32_and_large_noise_by_neither(name):
    coarse, fine = (
        Trainer(tiny_config(model=MODELS[name], train={"forward_dtype": dtype}), CPU)
        for dtype in ("bfloat16", "tensorfloat32")
    )
    tiny, small, large = (
        [fidelity(trainer, sigma, steps=1)["noise_fidelity"] for trainer in (coarse, fine)] for sigma in (1e-4, 1e-2, 1)
    )
    assert tiny[0] < DROWNED
    assert small[0] < small[1]
    assert min(large) > 0.99


def test_latents_are_carried_in_float32(trainers):
    """Were they rounded as the published code rounds them, more of the noise would be lost."""
    model, batch = trainers[1].model, trainers[1].data.train_batch(0, 0, 4)
    kept, act_step = fidelity(trainers[1], 3e-3)["noise_fidelity"], model.act_step

    def rounding(latents, batch):
        if model.forward_dtype == "float32":
            return act_step(latents, batch)
        return act_step({name: z.bfloat16().float() for name, z in latents.items()}, batch)

    model.act_step = rounding
    assert fidelity(trainers[1], 3e-3)["noise_fidelity"] < kept
    del model.act_step
    assert {z.dtype for z in model.act_step(model.initial_latents(4), batch)[0].values()} == {torch.float32}


def test_evaluations_say_what_is_left_of_the_smallest_noise_and_of_the_largest():
    noise = {"objective": "single_perturbed_ce", "perturb": {"sampling": "loguniform", "sigma": [1e-4, 1.0]}}
    trainer = Trainer(tiny_config(train=BFLOAT16, **noise), CPU)
    trainer.train_until(4)
    with trainer.ema.applied():
        batch = Batch(*(x[:4] for x in trainer.eval_batches["test"]))
        smallest, largest = (long_way(trainer.model, batch, sigma) for sigma in (1e-4, 1.0))
    expected = smallest | {f"{name}_largest": value for name, value in largest.items()}
    assert expected["noise_fidelity"] < DROWNED < expected["noise_fidelity_largest"] < 1
    assert {name: trainer.history[-1][name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert expected.keys() <= set(EVALS_SCHEMA.names)
    assert not set(expected) & set(trainer.history[0])


def test_the_slots_of_serial_act_carry_float32():
    trainer = Trainer(tiny_config(rollout="serial_act", train=BFLOAT16, **MULTI), CPU)
    trainer.train_until(2)
    assert trainer.slots[0]
    assert all(z.dtype == torch.float32 for slots in trainer.slots[0] for z in slots.latents.values())


def test_attention_in_bfloat16_is_held_to_float32():
    q, k, v = (torch.randn(2, 3, 17, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    for learns in (False, True):  # by other kernels each
        with torch.set_grad_enabled(learns):
            rounded = products.attend(*(x.bfloat16() for x in (q, k, v)), rounds=True)
        assert rounded.dtype == torch.bfloat16
        torch.testing.assert_close(rounded.float(), products.attend(q, k, v), atol=2e-2, rtol=2e-2)


def test_a_trial_in_bfloat16_is_another_trial_and_float32_needs_no_name():
    plain = tiny_config()
    assert tiny_config(train={"forward_dtype": "float32", "compile": False}).trial_id() == plain.trial_id()
    ids = {tiny_config(train=change).trial_id() for change in ({}, BFLOAT16, {"compile": True})}
    assert len(ids) == 3

"""A GPU's numbers are the CPU's, to the rounding that each precision promises."""

import itertools

import pytest
import torch
from on_gpu import DTYPES, MODELS, gpu_config

from rrm.fidelity import noise_fidelity
from rrm.lyapunov import diagnose
from rrm.models.losses import row_losses
from rrm.train import Trainer

TOLERANCE = {"float32": 1e-5, "tensorfloat32": 2e-3, "bfloat16": 2e-2}


def loss_and_gradient(trainer: Trainer) -> tuple[float, torch.Tensor]:
    """Of one ACT step, the gradient of all parameters as one vector in float64 on the CPU."""
    model, device = trainer.model.train(), trainer.device
    batch = trainer.data.train_batch(0, 0, 32)
    z0 = {name: z.contiguous() for name, z in model.initial_latents(32).items()}
    _, output = model.act_step(z0, batch.to(device))
    loss = row_losses(output, batch.labels.to(device), "stablemax").total.sum()
    with model.tensorfloat32():
        loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double().cpu()


@pytest.mark.parametrize(("model", "dtype"), list(itertools.product(MODELS, DTYPES)))
def test_losses_and_gradients_are_the_cpus(model, dtype, cuda, record_property):
    config = gpu_config(model, dtype=dtype)
    ours, theirs = (loss_and_gradient(Trainer(config, device)) for device in (cuda, torch.device("cpu")))
    exact = loss_and_gradient(Trainer(gpu_config(model), torch.device("cpu")))
    errors = [((of[1] - exact[1]).norm() / exact[1].norm()).item() for of in (ours, theirs)]
    record_property(
        f"gradient error, {model}, {dtype}, GPU and CPU against float32", f"{errors[0]:.1e} {errors[1]:.1e}"
    )
    assert ours[0] == pytest.approx(theirs[0], rel=TOLERANCE[dtype])
    assert errors[0] < max(TOLERANCE[dtype], 3 * errors[1])
    if dtype != "float32":  # it does round, and as the CPU's emulation says it would
        assert errors[1] / 4 < errors[0] < 4 * errors[1]


@pytest.mark.parametrize("model", MODELS)
def test_a_trial_trains_as_on_the_cpu(model, cuda):
    ends = []
    for device in (cuda, torch.device("cpu")):
        trainer = Trainer(gpu_config(model).model_copy(update={"objective": "clean", "perturb": None}), device)
        trainer.train_until(2)
        ends.append(trainer.history[-1])
    assert ends[0]["train_loss"] == pytest.approx(ends[1]["train_loss"], rel=1e-4)
    assert ends[0]["lm_loss"] == pytest.approx(ends[1]["lm_loss"], rel=2e-2)  # tiny gradients flip atan2


@pytest.mark.parametrize(("model", "dtype"), list(itertools.product(MODELS, DTYPES[1:])))
def test_noise_fidelity_is_what_the_cpu_measures(model, dtype, cuda, record_property):
    """So that `rrm plan`, where there is no GPU, says what a GPU does."""
    config = gpu_config(model, dtype=dtype)
    found = []
    for sigma in (1e-3, 1e-2, 1e-1):
        pair = []
        for device in (cuda, torch.device("cpu")):
            trainer = Trainer(config, device)
            batch = trainer.data.train_batch(0, 0, 4).to(device)
            with torch.no_grad():
                measured = noise_fidelity(trainer.model, batch, config.perturb, sigma, steps=1)
            pair.append(measured["noise_fidelity"])
        found.append(pair)
    text = "; ".join(f"{ours:.3f} {theirs:.3f}" for ours, theirs in found)
    record_property(f"noise_fidelity, {model}, {dtype}, sigma 1e-3, 1e-2, 1e-1 by GPU and CPU", text)
    assert all(abs(ours - theirs) < 0.2 for ours, theirs in found)
    assert found[0][0] < found[2][0]


@pytest.mark.parametrize("model", MODELS)
def test_lyapunov_exponents_are_the_cpus(model, cuda):
    found = []
    for device in (cuda, torch.device("cpu")):
        trainer = Trainer(gpu_config(model), device)
        batch = trainer.data.train_batch(0, 0, 4).to(device)
        found.append(torch.from_numpy(diagnose(trainer.model.eval(), batch, k=4).exponents))
    torch.testing.assert_close(*found, atol=2e-3, rtol=1e-3)

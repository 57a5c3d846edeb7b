"""Noise in time (SPEC.md, F): every model x rollout x `when` against trajectories unrolled by hand, and its bits."""

from itertools import count

import numpy as np
import pytest
import torch
from tiny import TINY_HRM, TINY_SRM, tiny_config, tiny_model

from rrm.models.act import Batch, continue_value
from rrm.models.losses import row_losses
from rrm.noise import NoiseInTime
from rrm.perturb import PerturbConfig, draw_sigmas
from rrm.rollout import ROLLOUTS, Trajectories
from rrm.streams import normals, torch_generator
from rrm.torch_setup import set_up_torch

CPU = torch.device("cpu")
B, K, M, SEED = 3, 4, 3, 5
CALLS = 5  # of serial_act: slots reload at different ones
MODELS = {"trm": {}, "single z": {"single_z": True}, "hrm": TINY_HRM, "srm": TINY_SRM}
IN_TIME = ["act_step", "update"]
WHEN = ["start", *IN_TIME]
TAKEN = torch.tensor([[1, 2, 3, 1], [3, 1, 2, 2], [2, 3, 1, 3]])  # ACT steps until a trajectory halts


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


@pytest.fixture(params=MODELS)
def model(request):
    model = tiny_model(MODELS[request.param], halt_max_steps=M)
    torch.nn.init.constant_(model.q_head.bias[:1], 5.0)  # wants to halt at once: TAKEN decides
    return model.double()


def batch(call: int = 0) -> Batch:
    tokens = torch.randint(1, 6, (2, B, 16), generator=torch_generator(0, "tokens", call))
    return Batch(tokens[0], tokens[1], torch.zeros(B, dtype=torch.int64))


def config(when, **changes):
    fields = {"sampling": "loguniform", "sigma": (0.1, 1.0), "p_clean": 0.2, "rollouts": K, "ramp_steps": 8}
    return PerturbConfig(**fields | {"when": when, "where": ("z_H", "z_L")} | changes)


def sigmas(perturb, step):
    return draw_sigmas(perturb, clean_first=True, seed=SEED, step=step, rows=range(B))


def noise(perturb, step, ages=1):
    by_age = np.stack([sigmas(perturb, step - age) for age in range(ages)])
    where = {"clean_first": True, "seed": SEED, "stream": "perturb", "step": step, "rows": range(B), "device": CPU}
    return NoiseInTime(perturb, by_age, **where)


def rolled_out(model, rollout, perturb, constant_weights):
    """Losses of each ACT step [B * K], NaN where a trajectory has halted, and the gradient of their sum."""
    z0 = {name: z.repeat_interleave(K, dim=0) for name, z in model.initial_latents(B).items()}
    start = Trajectories(batch(), z0, K, "stablemax", TAKEN, constant_weights=constant_weights)
    losses = torch.full((CALLS if rollout == "serial_act" else M, B, K), torch.nan, dtype=torch.float64)
    for call in range(CALLS if rollout == "serial_act" else 1):
        start.batch = batch(call)
        start.noise = noise(perturb, 7 + call, M if rollout == "serial_act" else 1)
        for i, step in enumerate(ROLLOUTS[rollout](model, start)):
            step.total.sum().backward()
            if rollout == "serial_act":
                losses[call, :, i] = step.total.detach()
            else:
                losses[i][i < TAKEN if rollout == "act_mask" else TAKEN > 0] = step.total.detach()
    return losses, gradients(model)


def by_hand(model, rollout, perturb):
    """The same, rollout by rollout, as SPEC.md, F, has it."""
    streaming = rollout == "serial_act"
    losses = torch.full((CALLS if streaming else M, B, K), torch.nan, dtype=torch.float64)
    for k in range(K):
        z, age, puzzles = model.initial_latents(B), np.zeros(B, int), batch()
        for t in range(len(losses)):
            halted = age == TAKEN[:, k].numpy() if streaming else np.zeros(B, bool)
            new = torch.from_numpy(halted)
            age[halted] = 0
            puzzles = Batch(
                *(torch.where(new.view(-1, *[1] * (x.dim() - 1)), y, x) for x, y in zip(puzzles, batch(t), strict=True))
            )
            z = {name: torch.where(new[:, None, None], model.initial_latents(B)[name], x) for name, x in z.items()}
            begun = (7 + t - age).tolist() if streaming else [7] * B
            sigma = torch.tensor([sigmas(perturb, begun[b])[b, k] for b in range(B)]).float().double()[:, None, None]

            def xi(name, t, *update, k=k):
                step, moment = (7 + t, (0, *update)) if streaming else (7, (t, *update))
                return normals(SEED, f"perturb.{name}", step, range(B), k, (model.positions, 8), CPU, moment).double()

            def act_step(z, t, sigma=sigma, puzzles=puzzles, xi=xi):
                updates = count()
                if perturb.when == "act_step":
                    z = {name: x + sigma * xi(name, t) if name in perturb.where else x for name, x in z.items()}
                    return model.act_step(z, puzzles)

                def after(name, x):
                    update = next(updates)
                    return x + sigma * xi(name, t, update) if name in perturb.where else x

                return model.act_step(z, puzzles, after)

            z, output = act_step(z, t)
            target = None
            if model.learns_q_continue:
                with torch.no_grad():
                    target = continue_value(act_step(z, t + 1)[1], torch.from_numpy(age + 1 == M))
            loss, age = row_losses(output, puzzles.labels, "stablemax", target).total, age + 1
            alive = TAKEN[:, k] > t if rollout == "act_mask" else torch.full((B,), True)
            loss[alive].sum().backward()
            losses[t, alive, k] = loss.detach()[alive]
    return losses, gradients(model)


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    found["puzzle_emb"], _ = model.puzzle_emb.take_gradients()
    model.zero_grad()
    return found


@pytest.mark.parametrize("when", IN_TIME)
@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_each_trajectory_meets_its_own_noise(model, rollout, when):
    """Rollout 0 is clean, the first of K rollouts are those of fewer, shards and slots have their rows' noise."""
    perturb = config(when, where=("z_L",) if "z_H" not in model.latent_names else ("z_H", "z_L"))
    expected, expected_gradients = by_hand(model, rollout, perturb)
    for constant_weights in (False, True) if rollout == "parallel_fixed" else (False,):
        losses, found = rolled_out(model, rollout, perturb, constant_weights)
        torch.testing.assert_close(losses, expected, rtol=1e-6, atol=0, equal_nan=True)
        assert found.keys() == expected_gradients.keys()
        for name, gradient in expected_gradients.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    clean, _ = rolled_out(model, rollout, config(when, sigma=1e-30, sampling="fixed"), False)
    torch.testing.assert_close(losses[..., 0], clean[..., 0], rtol=1e-12, atol=0, equal_nan=True)
    assert (losses[..., 1:] - clean[..., 1:]).nan_to_num().abs().max() > 1e-3


def test_after_update_has_every_new_value_of_a_latent(model):
    """Those without gradient too; what it returns is what the recursion goes on with."""
    seen, fields = [], tiny_config(model={"L_cycles": 1}).model
    with torch.no_grad():
        zeroed, _ = model.act_step(
            model.initial_latents(B), batch(), lambda name, z: seen.append(name) or torch.zeros_like(z)
        )
    high = model.latent_names[0]
    assert seen == fields.H_cycles * [*["z_L"] * fields.L_cycles, high]
    assert len(seen) == model.sub_updates
    assert not any(z.any() for z in zeroed.values())


@pytest.mark.parametrize("changes", [{"scale": "rms"}, {"antithetic": True}, {"where": ("z_L",)}])
def test_scale_pairs_and_place_are_those_of_the_start(changes):
    """rms: of the latent at that moment. The realised RMS is the mean over draws and perturbed trajectories."""
    perturb = config("act_step", sigma=0.5, sampling="fixed", p_clean=0.0, ramp_steps=0, rollouts=3, **changes)
    z = {name: (2.0 + i) * torch.ones(3 * B, 50, 8) for i, name in enumerate(("z_H", "z_L"))}
    moved, meets = [], noise(perturb, 7)

    class Model:
        @staticmethod
        def act_step(latents, *_):
            moved.append(latents)

    for t in range(2):
        meets.act_step(Model, t)(z, None)
    change = {name: torch.stack([m[name] - z[name] for m in moved]).view(2, B, 3, 50, 8) for name in z}
    assert not any(x[:, :, 0].any() for x in change.values())
    assert not torch.allclose(change["z_L"][0], change["z_L"][1])
    assert change["z_H"].any() == (perturb.where == ("z_H", "z_L"))
    if perturb.antithetic:
        torch.testing.assert_close(change["z_H"][:, :, 1], -change["z_H"][:, :, 2])
    size = {"z_H": 2, "z_L": 3} if perturb.scale == "rms" else {"z_H": 1, "z_L": 1}
    found = meets.take_rms(z, CPU)
    for name, x in change.items():
        by_row = x[:, :, 1:].square().mean(dim=(3, 4)).sqrt()
        assert found[name].item() == pytest.approx(by_row.mean().item(), rel=1e-5)
        assert found[name].item() == pytest.approx(0.5 * size[name] * (name in perturb.where), rel=0.05)
    assert meets.take_rms(z, CPU) == {"z_H": 0, "z_L": 0}


def test_when_is_part_of_a_trials_name_unless_it_is_the_start():
    noise = {"sigma": 0.5, "rollouts": 2}
    multi = {when: tiny_config(objective="multi_perturbed_ce", perturb=noise | {"when": when}) for when in WHEN}
    assert len({config.trial_id() for config in multi.values()}) == 3
    assert multi["start"].trial_id() == tiny_config(objective="multi_perturbed_ce", perturb=noise).trial_id()

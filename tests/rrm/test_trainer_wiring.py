"""Trainer against a plain loop written here: the right noise, the right means, the right updates, the right choice."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny import MULTI, TINY_HRM, TINY_SRM, tiny_config

from results.rows import unpack_correct
from rrm import checkpoint
from rrm.evaluate import EvalConfig, Watch, evaluate_split
from rrm.models.act import Batch, Latents, StepOutput, q_continue_target
from rrm.models.losses import row_losses
from rrm.optim import AdamATan2, schedule, sign_sgd
from rrm.streams import normals, uniforms
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

CPU = torch.device("cpu")
H_ONLY = {"objective": "multi_perturbed_ce", "perturb": {"sigma": 0.7, "rollouts": 3, "where": ["z_H"]}}
SINGLE = {"objective": "single_perturbed_ce", "perturb": {"sigma": 0.7}}
OPTIM = {"optim": {"lr": 3e-3, "warmup_steps": 3, "min_lr_ratio": 0.1, "weight_decay": 0.5, "ema_rate": 0.5}}
KINDS = {
    "clean": {},
    "single, both": SINGLE,
    "multi, z_H": H_ONLY,
    "multi, a step a rollout": H_ONLY | {"train": {"optimizer_step": "rollout"}},
}


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


def plain_training(config, steps: int) -> tuple[dict[str, torch.Tensor], list[float]]:
    """`steps` batches, trajectory by trajectory, straight from SPEC.md: the last weights and the loss of each batch."""
    trainer = Trainer(config, CPU)  # for its first weights and its puzzles only
    model, B, K, M = trainer.model.train(), config.train.batch_size, config.rollouts, config.model.halt_max_steps
    each_step = config.train.optimizer_step == "act"
    o = config.optim
    optimizer = AdamATan2(model.parameters(), lr=1, beta1=o.beta1, beta2=o.beta2, weight_decay=o.weight_decay)
    updates, total = 0, config.train.steps * (M if each_step else 1)

    def update() -> None:
        nonlocal updates
        updates += 1
        rates = [
            schedule(base, updates, warmup_steps=o.warmup_steps, total_steps=total, min_lr_ratio=o.min_lr_ratio)
            for base in (o.lr, o.puzzle_emb_lr)
        ]
        optimizer.param_groups[0]["lr"] = rates[0]
        optimizer.step()
        optimizer.zero_grad()
        assert model.puzzle_emb is not None
        gradient, times = model.puzzle_emb.take_gradients()
        decay = o.puzzle_emb_weight_decay
        sign_sgd(model.puzzle_emb.weights, gradient, times > 0, lr=rates[1], weight_decay=decay)

    losses = []
    for step in range(steps):
        batch = trainer.data.train_batch(config.seed, step, B)
        trajectories = []
        for k in range(K):
            z = {name: getattr(model, f"{name[-1]}_init").expand(B, model.positions, -1) for name in ("z_H", "z_L")}
            is_clean = config.objective == "clean" or (config.objective == "multi_perturbed_ce" and k == 0)
            for name in () if is_clean else config.perturb.where:
                shape = tuple(z[name].shape[1:])
                xi = normals(config.seed, f"perturb.{name}", step, range(B), k, shape, CPU)
                z[name] = z[name] + config.perturb.sigma * xi
            trajectories.append(z)
        sum_of_losses = 0.0
        for _ in range(M):
            for k in range(K):
                trajectories[k], output = model.act_step(trajectories[k], batch)
                rows = row_losses(output, batch.labels, "stablemax").total
                (rows.sum() / (B * K * (1 if each_step else M))).backward()
                sum_of_losses += rows.sum().item()
            if each_step:
                update()
        if not each_step:
            update()
        losses.append(sum_of_losses / (B * K * M))
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}, losses


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_plain_loop(kind):
    config = tiny_config(**OPTIM | KINDS[kind])
    trainer = Trainer(config, CPU)
    trainer.train_until(4)
    expected, losses = plain_training(config, 4)
    start = Trainer(config, CPU).model.state_dict()
    for name, tensor in trainer.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=2e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    moved = max((expected[name] - start[name]).abs().max().item() for name in expected)
    assert moved > 1e-3  # the tolerance is far below what training does
    assert trainer.history[-1]["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_arms_differ_by_more_than_the_tolerance():
    """What the test above relies on: other noise, another clean branch or another place gives other weights."""
    ends = [plain_training(tiny_config(**OPTIM | kind), 4)[0]["lm_head.weight"] for kind in ({}, SINGLE, MULTI, H_ONLY)]
    for i, a in enumerate(ends):
        for b in ends[i + 1 :]:
            assert (a - b).abs().max() > 2e-4


def test_training_starts_from_the_noise_that_its_config_asks_for():
    """Every field of perturb at once, against SPEC.md, C, written out for each row and trajectory."""
    B, K, step = 4, 5, 2
    low, high = 0.1, 2.0
    perturb = {"sampling": "loguniform", "sigma": [low, high], "rollouts": K, "where": ["z_L"], "scale": "rms"}
    perturb |= {"p_clean": 0.4, "warmup_steps": 1, "ramp_steps": 4, "antithetic": True}
    trainer = Trainer(tiny_config(objective="multi_perturbed_ce", perturb=perturb, seed=3), CPU)
    trainer.model.L_init.mul_(3.0)
    starts, act_step = [], trainer.model.act_step
    trainer.model.act_step = lambda latents, batch: starts.append(latents) or act_step(latents, batch)
    trainer.train_until(step)
    starts.clear()
    trainer.train_step()
    z0, clean = {name: z[0] for name, z in trainer.model.initial_latents(1).items()}, 0
    for b, k in np.ndindex(B, K):
        pair = (k - 1) // 2 * 2 + 1
        u = uniforms(3, f"perturb.sigma.{pair}", step, range(b, b + 1), 4)[0]
        sigma = 0.5 * np.exp(np.log(low) + u[0] * np.log(high / low)) if k and u[1] >= 0.4 else 0.0
        clean += sigma == 0
        xi = normals(3, "perturb.z_L", step, range(b, b + 1), pair, tuple(z0["z_L"].shape), CPU)[0]
        rms = z0["z_L"].square().mean().sqrt()
        expected = z0["z_L"] + (1 if k == pair else -1) * sigma * rms * xi
        torch.testing.assert_close(starts[0]["z_L"].unflatten(0, (B, K))[b, k], expected, atol=1e-5, rtol=1e-5)
    assert B < clean < B * K
    assert torch.equal(starts[0]["z_H"], z0["z_H"].expand(B * K, -1, -1))


def test_serial_act_explores_with_the_share_asked_for():
    """A model that wants to halt at once goes on in the slots that explore, and in no others."""
    config = tiny_config(
        rollout="serial_act", model={"halt_max_steps": 4}, train={"batch_size": 16, "halt_exploration_prob": 0.4}
    )
    trainer = Trainer(config, CPU)
    torch.nn.init.constant_(trainer.model.q_head.bias[:1], 5.0)
    trainer.train_step()
    explores = uniforms(config.seed, "halt.0", 0, range(16), 4)[:, 0] < 0.4
    assert 0 < explores.mean() < 1
    assert np.array_equal(trainer.slots[0][0].halted.numpy(), ~explores)


@pytest.mark.parametrize("normalise", ["valid_steps", "slots", "per_trajectory"])
@pytest.mark.parametrize(
    "model", [{}, TINY_HRM, TINY_SRM | {"learn_kappa": True, "kappa": 0.8}], ids=["trm", "hrm", "srm"]
)
def test_act_mask_trains_the_mean_that_normalise_says(model, normalise, monkeypatch):
    """Gradients, loss and count of one batch against SPEC.md, C; here exploration alone decides when a row halts."""
    B, K, M = 4, 3, 4
    config = tiny_config(
        model=model | {"halt_max_steps": M},
        rollout="act_mask",
        train={"optimizer_step": "rollout", "normalise": normalise, "halt_exploration_prob": 0.6},
        **{name: H_ONLY[name] for name in ("objective", "perturb")},
    )
    trainer, plain = Trainer(config, CPU), Trainer(config, CPU).model.train()
    for each in (trainer.model, plain):
        torch.nn.init.constant_(each.q_head.bias[:1], 5.0)
    start = {name: z.repeat_interleave(K, dim=0) for name, z in plain.initial_latents(B).items()}
    for k in (1, 2):
        xi = normals(config.seed, "perturb.z_H", 0, range(B), k, tuple(start["z_H"].shape[1:]), CPU)
        start["z_H"].unflatten(0, (B, K))[:, k] += 0.7 * xi
    u = np.stack([uniforms(config.seed, f"halt.{k}", 0, range(B), 4) for k in range(K)], axis=1)
    taken = np.where(u[..., 0] < 0.6, 2 + np.floor(u[..., 1] * (M - 1)), 1)
    assert set(taken.flat) == {1, 2, 3, 4}
    active = torch.arange(1, M + 1)[:, None] <= torch.from_numpy(taken).flatten()
    weights = {
        "valid_steps": active / active.sum(),
        "slots": active / (B * K * M),
        "per_trajectory": active / active.sum(0) / (B * K),
    }[normalise]
    batch, z, loss = trainer.data.train_batch(config.seed, 0, B).repeat(K), start, torch.zeros((), dtype=torch.float64)
    for step in range(M):
        z, output = plain.act_step(z, batch)
        target = q_continue_target(plain.act_step, z, batch, step == M - 1) if plain.learns_q_continue else None
        loss = loss + (row_losses(output, batch.labels, "stablemax", target).total * weights[step]).sum()
    loss.backward()
    penalty = plain.penalty()
    if penalty is not None:
        penalty.backward()

    updates: list[dict[str, torch.Tensor]] = []

    def gradients(model, table):
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None} | {"table": table}

    def keep(weights, table, touched, **_):
        updates.append(gradients(trainer.model, table))

    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    monkeypatch.setattr(trainer.optimizer, "zero_grad", lambda **_: None)
    monkeypatch.setattr("rrm.train.sign_sgd", keep)
    trainer.train_step()
    (found,) = updates
    expected = gradients(plain, plain.puzzle_emb.take_gradients()[0])
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert expected["table"].abs().max() > 1e-4
    assert trainer.losses_since_evaluation == [pytest.approx(loss.item(), rel=1e-6)]
    assert trainer.act_steps == taken.sum()


def test_the_best_step_is_chosen_on_validation_the_earliest_of_equals(monkeypatch):
    trainer = Trainer(tiny_config(), CPU)
    validation, test = iter([0.1, 0.6, 0.6, 0.3]), iter([0.9, 0.2, 0.3, 0.8])

    def rows(_watch: Watch) -> list[dict[str, Any]]:
        scores = {"validation": next(validation), "test": next(test)}
        return [
            {"split": split, "sigma": sigma, "exact_accuracy": score if sigma == 0 else 1.0}
            for split, score in scores.items()
            for sigma in (0.0, 0.5)
        ]

    monkeypatch.setattr(trainer, "evaluate", rows)
    trainer.train_until(12)
    assert trainer.best == {"step": 4, "exact_accuracy": 0.6}


def test_evaluation_is_the_plain_one_whatever_the_chunk():
    """Each example and rollout alone, with its own noise: chunks change neither the noise nor the order."""
    trainer = Trainer(tiny_config(), CPU)
    model, batch = trainer.model.eval(), trainer.eval_batches["test"]
    torch.nn.init.normal_(model.lm_head.weight, generator=torch.Generator().manual_seed(0))
    config = EvalConfig(every=1, n=8, sigmas=(2.0,), rollouts=3, batch_size=6)
    (clean, noisy) = evaluate_split(
        model, batch, config, trainer.config.task, token_loss="stablemax", seed=0, split="test"
    )
    token_accuracy, losses = np.zeros((8, 3)), np.zeros((8, 3))
    for i in range(8):
        alone = type(batch)(*(x[i : i + 1] for x in batch))
        for k in range(3):
            z = model.initial_latents(1)
            for name in z:
                xi = normals(0, f"eval.test.{name}", 0, range(i, i + 1), k, tuple(z[name].shape[1:]), CPU)
                z[name] = z[name] + 2.0 * xi
            with torch.no_grad():
                for _ in range(model.halt_max_steps):
                    z, output = model.act_step(z, alone)
            rows = row_losses(output, alone.labels, "stablemax")
            token_accuracy[i, k], losses[i, k] = rows.token_accuracy.item(), rows.lm.item()
    assert noisy["token_accuracy"] == pytest.approx(token_accuracy.mean())
    assert noisy["lm_loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert clean["lm_loss"] != pytest.approx(noisy["lm_loss"], rel=1e-3)
    (_, whole) = evaluate_split(
        model,
        batch,
        config.model_copy(update={"batch_size": 256}),
        trainer.config.task,
        token_loss="stablemax",
        seed=0,
        split="test",
    )
    assert whole["lm_loss"] == pytest.approx(noisy["lm_loss"], rel=1e-6)


class Oracle:
    """Solves the examples and rollouts whose noise sums to more than 0: its answers say which noise it got."""

    latent_names, halt_max_steps, learns_q_continue = ("z_H", "z_L"), 1, False

    def initial_latents(self, batch_size: int) -> Latents:
        return {name: torch.zeros(batch_size, 2, 3) for name in self.latent_names}

    def act_step(self, latents: Latents, batch: Batch) -> tuple[Latents, StepOutput]:
        sign = latents["z_H"].sum(dim=(1, 2)).sign()
        logits = torch.nn.functional.one_hot(batch.labels, 6).float() * sign[:, None, None]
        return latents, StepOutput(logits, torch.zeros(len(sign)), torch.zeros(len(sign)))


def test_correct_bits_stand_by_example_and_rollout():
    batch = Trainer(tiny_config(), CPU).eval_batches["test"]
    config = EvalConfig(every=1, n=8, sigmas=(2.0,), rollouts=3, batch_size=6)
    (_, noisy) = evaluate_split(
        Oracle(), batch, config, tiny_config().task, token_loss="stablemax", seed=0, split="test"
    )

    def solves(i: int, k: int) -> bool:
        return normals(0, "eval.test.z_H", 0, range(i, i + 1), k, (2, 3), CPU).sum().item() > 0

    expected = np.array([[solves(i, k) for k in range(3)] for i in range(8)])
    assert 0 < expected.mean() < 1
    assert np.array_equal(unpack_correct(noisy["correct"], 8, 3), expected)
    assert noisy["exact_accuracy"] == pytest.approx(expected.mean())
    assert noisy["all_exact_accuracy"] == pytest.approx(expected.all(axis=1).mean())


class AsBefore(torch.optim.Optimizer):
    """Adam-atan2 as a subclass of torch's optimizer, by which earlier versions saved."""

    step, _update = AdamATan2.step, AdamATan2._update  # pyright: ignore[reportAssignmentType]


@pytest.mark.parametrize(("writes", "reads"), [(AsBefore, AdamATan2), (AdamATan2, AsBefore), (AdamATan2, AdamATan2)])
def test_an_optimizers_state_is_torchs(writes, reads):
    settings = {"lr": 0.1, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1}
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(3, generator=generator) for _ in range(3)]

    def made(kind, values):
        params = [torch.nn.Parameter(value.clone()) for value in values]
        groups = [{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.0}]
        return params, kind(groups, settings) if kind is AsBefore else kind(groups, **settings)

    def stepped(params, optimizer, number: int) -> None:
        for i, p in enumerate(params):
            p.grad = None if (number, i) == (0, 1) else torch.full_like(p, number + i - 0.5)
        optimizer.step()

    params, optimizer = made(writes, start)
    stepped(params, optimizer, 0)
    saved = checkpoint.loads(checkpoint.serialise(optimizer.state_dict()), "state")
    others, other = made(reads, [p.detach() for p in params])
    other.load_state_dict(saved)
    for number in (1, 2):
        stepped(params, optimizer, number)
        stepped(others, other, number)
    assert all(map(torch.equal, params, others))
    assert [group["weight_decay"] for group in other.param_groups] == [0.1, 0.0]

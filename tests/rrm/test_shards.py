"""Shards: the same training as of the whole batch, in less memory, and sums that do not depend on who makes them."""

import itertools
import weakref
from functools import partial
from itertools import count
from typing import Any

import pytest
import torch
from tiny import MULTI, TINY_HRM, TINY_SRM, tiny_config

from rrm.config import TrialConfig
from rrm.models.act import q_continue_target
from rrm.models.losses import row_losses
from rrm.optim import EMA, schedule, sign_sgd
from rrm.presets import merge
from rrm.rollout import ROLLOUTS
from rrm.shards import TreeSum, cut_rows, join_rows, noise_columns, shard_rows
from rrm.streams import normals, torch_generator
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

CPU = torch.device("cpu")
MODELS: dict[str, dict[str, Any]] = {
    "trm": {},
    "hrm": TINY_HRM,
    "srm": TINY_SRM | {"learn_kappa": True, "kappa": 0.8},
}
ATTENTION = {"mlp_t": False, "pos_encodings": "rope"}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "clean": {},
    "single": {"objective": "single_perturbed_ce", "perturb": {"sigma": 0.5, "p_clean": 0.3, "when": "act_step"}},
    "multi": merge(MULTI, {"perturb": {"when": "update"}}),
    "multi, start": MULTI,
    "winner": {"objective": "winner_perturbed_ce", "perturb": {"sigma": 0.5, "rollouts": 3, "when": "act_step"}},
}


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


def halting(trainer: Trainer) -> Trainer:
    """With a halting head that says yes half of the time, where an untrained one never does."""
    torch.nn.init.normal_(trainer.model.q_head.weight, generator=torch_generator(0, "q_head"))
    torch.nn.init.zeros_(trainer.model.q_head.bias)
    return trainer


def added(terms: list[torch.Tensor]) -> torch.Tensor:
    tree = TreeSum()
    for term in terms:
        tree.add({"x": term.clone()})
    return tree.total()["x"]


def test_terms_are_added_in_a_binary_tree_whoever_adds_which_of_its_subtrees():
    terms = [torch.randn(50, generator=torch_generator(0, "terms", i)) for i in range(8)]

    def plain(part: list[torch.Tensor]) -> torch.Tensor:
        half = len(part) // 2
        return plain(part[:half]) + plain(part[half:]) if half else part[0]

    whole = added(terms)
    assert torch.equal(whole, plain(terms))
    assert not torch.equal(whole, sum(terms[1:], terms[0]))  # the order matters
    for workers in (2, 4, 8):
        size = 8 // workers
        assert torch.equal(whole, added([added(terms[i : i + size]) for i in range(0, 8, size)]))


@pytest.mark.parametrize("rollout", ROLLOUTS)
@pytest.mark.parametrize("model", MODELS)
def test_shards_train_what_the_whole_batch_trains(model, rollout, monkeypatch):
    """Gradients, loss, counts and noise of each optimizer step of two batches, in float64; nothing else can differ."""
    monkeypatch.setattr("torch.nn.functional.binary_cross_entropy_with_logits", _in_float64)
    optimizer_steps = ["rollout"] if rollout == "act_mask" else ["rollout", "act"]
    for objective, optimizer_step in itertools.product(OBJECTIVES, optimizer_steps):
        if objective == "winner" and rollout != "parallel_fixed":
            continue
        whole, *sharded = (
            _trained(
                tiny_config(
                    model=MODELS[model] | {"halt_max_steps": 3},
                    rollout=rollout,
                    train={"optimizer_step": optimizer_step, "shards": shards, "halt_exploration_prob": 0.4},
                    **OBJECTIVES[objective],
                )
            )
            for shards in (1, 2, 4)
        )
        for other in sharded:
            assert other.keys() == whole.keys()
            for name, value in whole.items():
                where = f"{objective}: {name}"
                torch.testing.assert_close(
                    other[name], value, rtol=1e-7, atol=1e-11, msg=lambda m, where=where: f"{where}: {m}"
                )


@pytest.mark.parametrize("optimizer_step", ["rollout", "act"])
@pytest.mark.parametrize("model", [*MODELS, "trm-att", "trm-singlez"])
def test_one_shard_has_the_bits_of_a_plain_step_of_the_whole_batch(model, optimizer_step):
    """Written out here without Trainer, shards, sums or what is computed once: unroll, backward, update."""
    fields = MODELS.get(model) or {"trm-att": ATTENTION, "trm-singlez": {"single_z": True}}.get(model, {})
    latents = ["z_L"] if model == "trm-singlez" else ["z_H", "z_L"]
    objective = merge(MULTI, {"perturb": {"where": latents, "rollouts": 3}})
    optim = {"weight_decay": 0.5, "warmup_steps": 2, "ema_rate": 0.9}
    train = {"batch_size": 5, "optimizer_step": optimizer_step}  # means over no power of two: dividing rounds
    config = tiny_config(model=fields, train=train, optim=optim, **objective)
    trainer, plain = Trainer(config, CPU), Trainer(config, CPU)
    for _ in range(3):
        trainer.train_step()
    _train_plainly(plain, latents, 3)
    for ours, theirs in ((trainer.model, plain.model), (trainer.ema, plain.ema)):
        ours, theirs = (x.shadow if isinstance(x, EMA) else x.state_dict() for x in (ours, theirs))
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert torch.equal(ours[name], tensor), name


def _train_plainly(start: Trainer, latents: list[str], steps: int) -> None:
    """Train from the weights of `start`, on its puzzles, with its optimizer."""
    config, model, B, K = start.config, start.model.train(), start.config.train.batch_size, start.config.rollouts
    updates_a_batch = model.halt_max_steps if config.train.optimizer_step == "act" else 1
    updates = count(1)
    assert model.puzzle_emb is not None

    def update() -> None:
        total, o = config.train.steps * updates_a_batch, config.optim
        rate = partial(schedule, warmup_steps=o.warmup_steps, total_steps=total, min_lr_ratio=o.min_lr_ratio)
        penalty, number = model.penalty(), next(updates)
        if penalty is not None:
            penalty.backward()
        for group in start.optimizer.param_groups:
            group["lr"] = rate(o.lr, number)
        start.optimizer.step()
        start.optimizer.zero_grad()
        gradient, times = model.puzzle_emb.take_gradients()
        table, lr, decay = model.puzzle_emb.weights, rate(o.puzzle_emb_lr, number), o.puzzle_emb_weight_decay
        sign_sgd(table, gradient, times > 0, lr=lr, weight_decay=decay)
        start.ema.update()

    for step in range(steps):
        batch = start.data.train_batch(config.seed, step, B).repeat(K)
        z = {name: x.repeat_interleave(K, dim=0) for name, x in model.initial_latents(B).items()}
        for name, k in itertools.product(latents, range(1, K)):  # the first trajectory is the clean one
            xi = normals(config.seed, f"perturb.{name}", step, range(B), k, tuple(z[name].shape[1:]), CPU)
            z[name].unflatten(0, (B, K))[:, k] += 0.5 * xi
        for t in range(model.halt_max_steps):
            z, output = model.act_step(z, batch)
            is_last = t == model.halt_max_steps - 1
            target = q_continue_target(model.act_step, z, batch, is_last) if model.learns_q_continue else None
            rows = row_losses(output, batch.labels, config.model.token_loss, target)
            (rows.total.sum() * (updates_a_batch / (B * K * model.halt_max_steps))).backward()
            if updates_a_batch > 1:
                update()
        if updates_a_batch == 1:
            update()


_BCE = torch.nn.functional.binary_cross_entropy_with_logits


def _in_float64(logits, target, **kwargs):
    return _BCE(logits.double(), target.double(), **kwargs)


def _trained(config: TrialConfig) -> dict[str, torch.Tensor]:
    trainer = halting(Trainer(config, CPU))
    trainer.model.double()
    kept: dict[str, torch.Tensor] = {}
    step = trainer.optimizer.step

    def keep() -> None:
        gradients = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
        kept.update({f"{trainer.optimizer_steps}.{name}": gradient for name, gradient in gradients.items()})
        step()

    trainer.optimizer.step = keep  # pyright: ignore[reportAttributeAccessIssue]
    for _ in range(2):
        trainer.train_step()
    for name, value in noise_columns(trainer.noise_since_evaluation).items():
        kept[name] = value
    assert trainer.model.puzzle_emb is not None
    kept["table"] = trainer.model.puzzle_emb.weights
    kept["losses"] = torch.tensor(trainer.losses_since_evaluation, dtype=torch.float64)
    kept["act_steps"] = torch.tensor(trainer.act_steps)
    for bank, slots in enumerate(trainer.state_dict()["slots"]):
        kept |= {f"{bank}.{name}": z for part in ("latents", "batch") for name, z in slots[part].items()}
        kept |= {f"{bank}.steps": slots["steps"], f"{bank}.halted": slots["halted"]}
    return kept


@pytest.mark.parametrize("optimizer_step", ["rollout", "act"])
def test_one_shards_activations_are_held_at_a_time(optimizer_step):
    most = [_most_bytes_kept(shards, optimizer_step) for shards in (1, 2, 4)]
    assert most[1] < 0.6 * most[0]
    assert most[2] < 0.6 * most[1]


def _most_bytes_kept(shards: int, optimizer_step: str) -> int:
    """The most that autograd keeps for backward at any time of a step, without the weights."""
    trainer = Trainer(
        tiny_config(train={"batch_size": 16, "shards": shards, "optimizer_step": optimizer_step}, **MULTI), CPU
    )
    weights = {parameter.data_ptr() for parameter in trainer.model.parameters()}
    kept, most = [0], [0]

    class Saved:
        def __init__(self, tensor: torch.Tensor):
            self.tensor = tensor
            if tensor.data_ptr() not in weights:
                kept[0] += tensor.nbytes
                weakref.finalize(self, lambda n=tensor.nbytes: kept.__setitem__(0, kept[0] - n))
            most[0] = max(most[0], kept[0])

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        trainer.train_step()
    return most[0]


def test_rows_are_cut_and_joined():
    whole = [{"latents": {"z": torch.arange(16).view(8, 2)}, "halted": torch.arange(8) > 3}]
    for shards in (1, 2, 8):
        again = join_rows([cut_rows(whole, rows) for rows in shard_rows(8, shards)])
        assert torch.equal(again[0]["latents"]["z"], whole[0]["latents"]["z"])
        assert torch.equal(again[0]["halted"], whole[0]["halted"])
    assert join_rows([]) == []


def test_shards_are_part_of_a_trials_name_unless_there_is_one():
    names = {shards: tiny_config(train={"shards": shards}).trial_id() for shards in (1, 2, 4)}
    assert names[1] == tiny_config().trial_id()
    assert len(set(names.values())) == 3


@pytest.mark.parametrize(("shards", "batch_size", "most"), [(3, 12, 4), (8, 12, 4), (2, 5, 1), (512, 768, 256)])
def test_a_batch_that_cannot_be_cut_is_named_with_what_can(shards, batch_size, most):
    with pytest.raises(ValueError, match=rf"train.shards: {shards} cuts no batch of {batch_size} .* {most} at most"):
        tiny_config(train={"shards": shards, "batch_size": batch_size})

"""A training step needs no number from the device, and an ACT step is one graph: on tensors without data.

Torch's meta device stands for a GPU: reading from it is an error, and so is to mix its tensors with the CPU's.
"""

import itertools

import pytest
import torch
from tiny import MULTI, TINY_HRM, TINY_SRM, tiny_config

from rrm import noise, perturb, rollout
from rrm.presets import merge
from rrm.train import LATER, Trainer

META = torch.device("meta")
DTYPES = ("float32", "tensorfloat32", "bfloat16")
MODELS = {
    "mlp": {},
    "attention": {"mlp_t": False, "pos_encodings": "rope"},
    "hrm": TINY_HRM,
    "srm": TINY_SRM | {"learn_kappa": True, "kappa": 0.8},
}
ROLLOUTS = {
    "parallel_fixed": {},
    "a step a rollout": {"train": {"optimizer_step": "rollout"}},
    "serial_act": {"rollout": "serial_act"},
    "act_mask": {"rollout": "act_mask", "train": {"optimizer_step": "rollout"}},
    "noise at every update": {"rollout": "serial_act", "perturb": {"when": "update"}},
    "winner": {"objective": "winner_perturbed_ce"},
}


@pytest.fixture
def meta(monkeypatch) -> torch.device:
    """The device, with noise, which no generator of it draws, and with what comes of its halting masks later."""
    for module in (perturb, noise):
        monkeypatch.setattr(module, "normals", lambda *key: torch.empty(len(key[3]), *key[5], device=META))
    monkeypatch.setattr(rollout, "on_its_way", lambda mask: lambda: torch.arange(len(mask)) % 2 == 0)
    return META


@pytest.mark.parametrize(("model", "rollout", "dtype"), list(itertools.product(MODELS, ROLLOUTS, DTYPES)))
def test_a_training_step_reads_nothing_from_the_device(model, rollout, dtype, meta):
    own = {"model": MODELS[model], "train": {"forward_dtype": dtype, "shards": 2}}
    trainer = Trainer(tiny_config(**merge(merge(MULTI, own), ROLLOUTS[rollout])), meta)
    trainer.later = LATER
    steps = 2 if trainer.config.rollout == "serial_act" else 1  # its slots are reloaded at the second
    for _ in range(steps):
        trainer.train_step()
    assert (trainer.step, len(trainer.losses_since_evaluation)) == (steps, 0)
    with pytest.raises(RuntimeError, match="meta tensors"):
        trainer.state_dict()  # which reads losses


@pytest.mark.parametrize(("model", "dtype"), list(itertools.product(MODELS, DTYPES)))
def test_an_act_step_is_one_graph(model, dtype):
    trainer = Trainer(tiny_config(model=MODELS[model], train={"forward_dtype": dtype}), torch.device("cpu"))
    batch, z0 = trainer.data.train_batch(0, 0, 4), trainer.model.initial_latents(4)
    torch.compiler.reset()
    found = torch._dynamo.explain(trainer.model.train().act_step)(z0, batch)
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons

"""What follows from weights alone is computed once an optimizer step and once an evaluation, to the same bits."""

import gc
import weakref
from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from tiny import MULTI, TINY_SRM, tiny_config

from rrm.diagnose import DiagnoseConfig
from rrm.models import base, srm
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

CPU = torch.device("cpu")
MODELS = {"mlp": {}, "srm": TINY_SRM}
STEPS = [("parallel_fixed", "rollout"), ("parallel_fixed", "act"), ("serial_act", "act"), ("act_mask", "rollout")]


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


def trainer_of(model: str, rollout: str, optimizer_step: str) -> Trainer:
    train = {"forward_dtype": "bfloat16", "shards": 2, "optimizer_step": optimizer_step}
    return Trainer(tiny_config(**MULTI, model=MODELS[model], rollout=rollout, train=train), CPU)


@pytest.mark.parametrize(("rollout", "optimizer_step"), STEPS)
@pytest.mark.parametrize("model", MODELS)
def test_bits_are_those_of_computing_it_each_time(model, rollout, optimizer_step, monkeypatch):
    once, each = (trainer_of(model, rollout, optimizer_step) for _ in range(2))
    monkeypatch.setattr(each.model, "constant_weights", nullcontext)
    for trainer in (once, each):
        trainer.train_until(4)
    assert once.history == each.history
    ours, theirs = (trainer.model.state_dict() for trainer in (once, each))
    assert all(torch.equal(theirs[name], x) for name, x in ours.items())


@pytest.mark.parametrize(("rollout", "optimizer_step"), STEPS)
def test_it_is_computed_once(rollout, optimizer_step, monkeypatch):
    trainer = trainer_of("srm", rollout, optimizer_step)
    calls: Counter[str] = Counter()
    cayley, rounded = srm.cayley, base.rounded
    monkeypatch.setattr(srm, "cayley", lambda W: calls.update(["cayley"]) or cayley(W))
    monkeypatch.setattr(base, "rounded", lambda *weight: calls.update(["rounded"]) or rounded(*weight))
    trainer.train_step()
    updates = trainer.config.optimizer_steps_per_batch
    assert calls["cayley"] == 3 * updates  # two sandwiches of one block, and the mix
    calls.clear()
    trainer.evaluate()
    assert calls["cayley"] == 3
    calls.clear()
    trainer.diagnose(DiagnoseConfig(every=4, n=4, k=1, batch_size=8))
    assert calls["cayley"] == 3 * 2 * 2  # in each of two parts for the spectra, in float32, and for the outcomes
    mlp = trainer_of("mlp", rollout, optimizer_step)
    calls.clear()
    mlp.train_step()
    assert calls["rounded"] == 4 * updates  # two matrices of each of two SwiGLUs


@pytest.mark.parametrize(("rollout", "optimizer_step"), STEPS)
def test_nothing_of_it_outlives_the_step(rollout, optimizer_step, monkeypatch):
    """Without Python's collector of cycles, which a full GPU does not wake."""
    leaves, as_leaf = [], base.BaseModel.as_leaf

    def noted(self: base.BaseModel, x: torch.Tensor) -> torch.Tensor:
        leaf = as_leaf(self, x)
        leaves.append(weakref.ref(leaf))
        return leaf

    monkeypatch.setattr(base.BaseModel, "as_leaf", noted)
    trainer = trainer_of("srm", rollout, optimizer_step)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            trainer.train_step()
        alive = [leaf for leaf in leaves if leaf() is not None]
    finally:
        gc.enable()
    assert len(leaves) > 10
    assert alive == []

"""torch.compile of the recursion's block: near eager, exact in itself, invisible in files, and refused clearly."""

import io

import pytest
import torch
from tiny import MULTI, has_compiler, tiny_config

from rrm.checkpoint import serialise
from rrm.lyapunov import diagnose
from rrm.torch_setup import CompilerError, set_up_torch
from rrm.train import Trainer

CPU = torch.device("cpu")
CASES = {
    "mlp, float32": {},
    "attention, bfloat16": {"model": {"mlp_t": False, "pos_encodings": "rope"}, "train": {"forward_dtype": "bfloat16"}},
}


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="torch.compile needs a C++ compiler, and none is here")


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


def trained(step: int, compiled: bool, changes: dict) -> Trainer:
    train = changes.get("train", {}) | {"compile": compiled}
    all_of_eight_rows = {"eval": {"rollouts": 1}}  # each size is compiled anew
    trainer = Trainer(tiny_config(**MULTI | changes | {"train": train} | all_of_eight_rows), CPU)
    trainer.train_until(step)
    return trainer


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_compiled_is_near_eager_and_resumes_to_the_same_bits(name):
    eager, compiled = trained(8, False, CASES[name]), trained(3, True, CASES[name])
    first = serialise(compiled.state_dict())
    compiled.train_until(8)
    ours, theirs = (trainer.state_dict() for trainer in (compiled, eager))
    for part in ("model", "ema"):
        assert ours[part].keys() == theirs[part].keys()
    near = {"rel": 1e-2 if "bfloat16" in name else 1e-4}
    assert ours["history"][-1]["train_loss"] == pytest.approx(theirs["history"][-1]["train_loss"], **near)
    losses = ([row["lm_loss"] for row in state["history"]] for state in (ours, theirs))
    assert next(losses) == pytest.approx(next(losses), **near)
    second = trained(0, True, CASES[name])
    second.load_state_dict(torch.load(io.BytesIO(first), weights_only=True))
    second.train_until(8)
    resumed = second.state_dict()
    assert all(torch.equal(resumed["model"][key], tensor) for key, tensor in ours["model"].items())
    assert resumed["history"] == ours["history"]
    batch = compiled.data.train_batch(0, 0, 2)
    eager.model.load_state_dict(ours["model"])
    spectra = [torch.from_numpy(diagnose(trainer.model, batch, k=2).exponents) for trainer in (compiled, eager)]
    assert torch.equal(*spectra)  # forward derivatives go through the plain blocks


def test_a_missing_compiler_is_one_message(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CompilerError, match=r"train.compile: torch compiles by no-such-compiler, which is not on this"):
        Trainer(tiny_config(train={"compile": True}), CPU)


def test_a_shrinking_batch_is_not_compiled():
    with pytest.raises(ValueError, match=r"train.compile: true with rollout act_mask, whose batch shrinks"):
        tiny_config(rollout="act_mask", train={"compile": True, "optimizer_step": "rollout"})

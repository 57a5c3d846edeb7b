"""torch.compile of every model's block on a GPU: one graph, near eager, exact in itself."""

import pytest
import torch
from on_gpu import MODELS, gpu_config

from rrm.train import Trainer

CASES = [*((model, "bfloat16") for model in MODELS), ("srm", "tensorfloat32"), ("trm-mlp", "tensorfloat32")]


@pytest.mark.parametrize(("model", "dtype"), CASES)
def test_compiled_is_near_eager_and_resumes_to_the_same_bits(model, dtype, cuda):
    eager, compiled, first, second = (
        Trainer(gpu_config(model, "serial_act", dtype, compile=compiled), cuda)
        for compiled in (False, True, True, True)
    )
    for trainer in (eager, compiled):
        trainer.train_until(4)
    near = {"rel": 2e-2 if dtype == "bfloat16" else 1e-3}
    assert compiled.history[-1]["train_loss"] == pytest.approx(eager.history[-1]["train_loss"], **near)
    first.train_until(3)
    second.load_state_dict(first.state_dict())
    second.train_until(4)
    ours, theirs = compiled.state_dict(), second.state_dict()
    assert all(torch.equal(theirs["model"][name], x) for name, x in ours["model"].items())
    assert theirs["history"] == ours["history"]

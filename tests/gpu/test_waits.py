"""A training step asks a GPU for nothing that it would have to wait for."""

import itertools

import pytest
import torch
from on_gpu import DTYPES, MODELS, ROLLOUTS, gpu_config

from rrm.train import LATER, Trainer


@pytest.fixture
def no_waits():
    """Within the test, an operation of torch that waits for the GPU raises RuntimeError."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("model", "rollout", "dtype"), list(itertools.product(MODELS, ROLLOUTS, DTYPES)))
def test_a_training_step_does_not_wait(model, rollout, dtype, no_waits, cuda):
    trainer = Trainer(gpu_config(model, rollout, dtype, shards=2), cuda)
    trainer.train_step()
    no_waits()
    with pytest.raises(RuntimeError, match="synchroniz"):  # it does notice
        torch.ones((), device=cuda).item()
    for _ in range(LATER + 1):  # the last of them reads a loss
        trainer.train_step()
    assert len(trainer.losses_since_evaluation) == 2

"""CUDA graphs where there is no GPU: what they are not for, and that what they stand for trains to the same bits.

tests/gpu/test_graphs.py holds real ones to the plain step.
"""

import gc
from contextlib import nullcontext
from weakref import ref

import pytest
import torch
from tiny import TINY_HRM, TINY_SRM, tiny_config

from rrm.models import cuda_graphs
from rrm.train import Trainer

CPU = torch.device("cpu")
NOISE = {"objective": "multi_perturbed_ce", "perturb": {"sigma": 0.1, "rollouts": 2}}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rollout": "act_mask"}, "rollout act_mask, whose batch shrinks as trajectories halt, and each size would"),
        ({"train": {"compile": True}}, "train.compile, which launches code of its own; choose one of the two"),
        (
            NOISE | {"perturb": NOISE["perturb"] | {"when": "update"}},
            "perturb.when: update, whose noise is drawn between",
        ),
        ({"model": TINY_SRM}, "srm, whose factors are computed once for all ACT steps, not in each; use false"),
    ],
)
def test_what_graphs_are_not_for_is_refused(change, why):
    train = change.get("train", {}) | {"cuda_graphs": True}
    with pytest.raises(ValueError, match=f"train.cuda_graphs: true with {why}"):
        tiny_config(**change | {"train": train})


def test_they_rename_no_trial_and_are_nothing_to_a_cpu():
    plain, graphed = tiny_config(), tiny_config(train={"cuda_graphs": True})
    assert graphed.trial_id() == plain.trial_id()
    assert Trainer(graphed, CPU).model.graphs is None


class Recording:
    """A graph that is nothing yet: `Again` runs the recursion once more in its place."""

    def pool(self) -> None:
        """None."""


class Again(cuda_graphs._Graph):
    def replay(self, embedding, latents):
        torch._foreach_copy_([self.embedding.data, *self.latents.values()], [embedding, *latents])
        with torch.set_grad_enabled(self.embedding.requires_grad):
            self.now = self._forward()
        self.awaits_backward = self.learns
        return tuple(z.detach().clone() for z in self.now)

    def replay_backward(self, gradient):
        self.gradient.copy_(gradient)
        self.awaits_backward = False
        with torch.enable_grad():
            return self._backward(self.now[0])


@pytest.mark.parametrize("change", [{}, {"train": {"optimizer_step": "rollout"}}, {"rollout": "serial_act"}])
@pytest.mark.parametrize("model", [{}, TINY_HRM])
def test_a_call_keeps_its_backward_from_the_next(model, change, monkeypatch):
    class Stream:
        def wait_stream(self, _other) -> None: ...

    for name, stand_in in (("Stream", Stream), ("current_stream", Stream), ("CUDAGraph", Recording)):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: nullcontext())
    monkeypatch.setattr(cuda_graphs, "_Graph", Again)
    config = tiny_config(**NOISE | {"model": model} | change)
    plain, graphed = Trainer(config, CPU), Trainer(config, CPU)
    graphed.model.graph_recursion()
    for trainer in (plain, graphed):
        for _ in range(2):
            trainer.train_step()
    assert graphed.model.graphs is not None
    assert graphed.model.graphs.replays >= 2 * 2
    pairs = zip(plain.model.state_dict().values(), graphed.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    model = ref(graphed.model)
    gc.collect()
    gc.disable()  # a full GPU wakes no collector
    try:
        del graphed, trainer, pairs
        assert model() is None
    finally:
        gc.enable()

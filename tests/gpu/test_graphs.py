"""CUDA graphs: the bits of the plain step, for every model, precision and rollout that they are for."""

import itertools

import pytest
from on_gpu import DTYPES, MODELS, gpu_config, halting_trainer, plain

GRAPHED_MODELS = [model for model in MODELS if model != "srm"]
ROLLOUTS = ("parallel_fixed", "parallel_fixed, one optimizer step", "serial_act")


@pytest.mark.parametrize(
    ("model", "rollout", "dtype"),
    [
        *itertools.product(GRAPHED_MODELS, ROLLOUTS, DTYPES),
        ("hrm", "noise at every ACT step", "bfloat16"),
        ("trm-att", "winner", "tensorfloat32"),
    ],
)
def test_graphs_give_the_bits_of_the_plain_step(model, rollout, dtype, cuda):
    whole, graphed = (
        halting_trainer(gpu_config(model, rollout, dtype, shards=2, cuda_graphs=graphs), cuda)
        for graphs in (False, True)
    )
    whole.train_until(4)
    graphed.train_until(3)
    graphs, graphed.model.graphs = graphed.model.graphs, None  # it goes on without
    graphed.train_until(4)
    assert graphs.replays >= 3 * 2 * 2
    assert plain(graphed.state_dict()) == plain(whole.state_dict())

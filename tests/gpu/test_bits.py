"""On one GPU, the same bits: of a run and of one that was resumed, by one process and by two; of noise in parts."""

import itertools
import multiprocessing

import pytest
import torch
from on_gpu import DTYPES, MODELS, ROLLOUTS, gpu_config, halting_trainer, plain, work

from rrm import checkpoint
from rrm.checkpoint import serialise
from rrm.streams import normals
from rrm.train import Trainer


@pytest.mark.parametrize(("model", "rollout", "dtype"), list(itertools.product(MODELS, ROLLOUTS, DTYPES)))
def test_a_run_that_was_resumed_ends_with_the_bits_of_another(model, rollout, dtype, cuda, tmp_path):
    config = gpu_config(model, rollout, dtype, shards=2)
    whole = halting_trainer(config, cuda)
    whole.train_until(4)
    first, second = halting_trainer(config, cuda), Trainer(config, cuda)
    first.train_until(3)
    (tmp_path / "state.pt").write_bytes(serialise(first.state_dict()))
    second.load_state_dict(checkpoint.load(tmp_path / "state.pt"))
    second.train_until(4)
    assert len(whole.history) == 3 * 4
    if rollout != "parallel_fixed":
        assert rollout == "serial_act" or 0 < whole.act_steps <= 4 * 64 * 2 * 3
    assert plain(second.state_dict()) == plain(whole.state_dict())


def test_two_processes_on_the_gpu_end_with_the_bits_of_one(cuda, tmp_path):
    names = [
        ("trm-mlp", "serial_act", "bfloat16"),
        ("hrm", "act_mask", "float32"),
        ("srm", "parallel_fixed", "tensorfloat32"),
    ]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, tmp_path, names, cuda)) for rank in range(2)]
    for process in processes:
        process.start()
    alone = []
    for name in names:
        trainer = halting_trainer(gpu_config(*name, shards=4), cuda)
        trainer.train_until(2)
        (tmp_path / "alone.pt").write_bytes(serialise(trainer.state_dict()))
        alone.append(checkpoint.load(tmp_path / "alone.pt"))
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for number, (name, mine) in enumerate(zip(names, alone, strict=True)):
        assert plain(checkpoint.load(tmp_path / f"{number}.pt")) == plain(mine), name


def test_weights_that_a_gpu_shards_are_near_those_of_the_whole_batch(cuda):
    whole, cut = (halting_trainer(gpu_config("trm-att", shards=shards), cuda) for shards in (1, 4))
    for trainer in (whole, cut):
        trainer.train_until(2)
    pairs = zip(whole.model.parameters(), cut.model.parameters(), strict=True)
    assert max((a - b).abs().max().item() for a, b in pairs) < 1e-3


def test_noise_is_the_same_again_and_in_parts(cuda):
    """A block of the published size, 32 x 97 x 512, which is more than a GPU's threads draw at a time."""
    whole = normals(1, "perturb.z_H", 7, range(96), 2, (97, 512), cuda)
    assert torch.equal(normals(1, "perturb.z_H", 7, range(96), 2, (97, 512), cuda), whole)
    for rows in (range(0, 32), range(40, 80), range(95, 96)):
        assert torch.equal(normals(1, "perturb.z_H", 7, rows, 2, (97, 512), cuda), whole[rows.start : rows.stop])
    flat = whole.double()
    assert abs(flat.mean().item()) < 1e-3
    assert abs(flat.std().item() - 1) < 1e-3
    assert len({row.sum().item() for row in flat}) == 96


def test_noise_of_a_published_block_is_written_down(record_property, cuda):
    """Its numbers depend on how many multiprocessors there are: recorded, to be held against another GPU's."""
    properties = torch.cuda.get_device_properties(0)
    small = normals(0, "a", 0, range(1), 0, (4,), cuda).tolist()
    sums = [normals(0, "a", 0, range(32), 0, (97, 512), cuda).double().sum().item() for _ in range(2)]
    assert sums[0] == sums[1]
    record_property(f"noise, {properties.name}, {properties.multi_processor_count} multiprocessors", (small, sums[0]))

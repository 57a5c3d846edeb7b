"""Random numbers are functions of (seed, stream, step, row): slices, repeats, independence."""

import numpy as np
import pytest
import torch

from rrm import streams
from rrm.streams import normals, stream_key, uniforms

CPU = torch.device("cpu")


def test_keys_are_the_same_on_every_machine():
    # Written down once: another value would give every trial of every user other numbers under the same name.
    assert stream_key(0, "init") == 10539162269208093065
    assert stream_key(1, "order", 2, 3) == 15102196269030612454


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (2, 7), (9, 10)])
def test_a_slice_of_the_rows_gives_the_slice_of_the_numbers(start, stop):
    whole = uniforms(5, "augment", 3, range(10), 8)
    assert np.array_equal(uniforms(5, "augment", 3, range(start, stop), 8), whole[start:stop])


@pytest.mark.parametrize("block", [1, 4])
def test_noise_of_a_shard_is_a_shard_of_the_noise(monkeypatch, block):
    monkeypatch.setitem(streams.ROWS_PER_DRAW, "cpu", (block, block))
    whole = normals(1, "perturb.z_H", 7, range(10), 2, (3, 5), CPU)
    assert whole.shape == (10, 3, 5)
    for rows in (range(0, 10), range(3, 6), range(4, 8), range(9, 10)):
        assert torch.equal(normals(1, "perturb.z_H", 7, rows, 2, (3, 5), CPU), whole[rows.start : rows.stop])


def test_streams_steps_rows_and_trajectories_differ():
    def draw(seed=1, stream="a", step=0, k=0, row=0):
        return normals(seed, stream, step, range(row, row + 1), k, (64,), CPU)

    draws = [draw(), draw(seed=2), draw(stream="b"), draw(step=1), draw(k=1), draw(row=1)]
    for i, first in enumerate(draws):
        for second in draws[i + 1 :]:
            assert not torch.equal(first, second)
    assert torch.equal(draw(), draws[0])


def test_noise_is_standard_normal():
    x = torch.cat([normals(3, "perturb.z_L", step, range(8), 0, (64, 64), CPU) for step in range(4)]).double()
    assert abs(x.mean().item()) < 0.01
    assert abs(x.std().item() - 1) < 0.01
    assert abs((x**4).mean().item() - 3) < 0.1

"""Noise on the initial latents: what is clean stays bitwise clean, what is drawn is float32 and stateless."""

import pytest
import torch

from rrm.perturb import PerturbConfig, perturb_latents
from rrm.streams import normals

B, K, N, D = 3, 4, 5, 6
Z0 = {"z_H": torch.randn(D).expand(B, N, D), "z_L": torch.randn(D).expand(B, N, D)}


def perturbed(*, sigma=0.5, where=("z_H", "z_L"), rollouts=K, clean_first=True, step=7, rows=range(B), z0=None):
    return perturb_latents(
        z0 or Z0,
        sigma=sigma,
        where=where,
        rollouts=rollouts,
        clean_first=clean_first,
        seed=1,
        stream="perturb",
        step=step,
        rows=rows,
    )


def by_trajectory(z: torch.Tensor) -> torch.Tensor:
    return z.view(-1, K, N, D)


def test_rollout_zero_is_clean_and_the_others_are_z0_plus_sigma_xi():
    moved = perturbed()
    for name, z in moved.items():
        assert torch.equal(by_trajectory(z)[:, 0], Z0[name])
        for k in range(1, K):
            xi = normals(1, f"perturb.{name}", 7, range(B), k, (N, D), torch.device("cpu"))
            assert torch.equal(by_trajectory(z)[:, k], Z0[name] + 0.5 * xi)


def test_without_a_clean_branch_every_rollout_is_perturbed():
    z = by_trajectory(perturbed(clean_first=False)["z_H"])
    assert all(not torch.equal(z[:, k], Z0["z_H"]) for k in range(K))


@pytest.mark.parametrize("where", [("z_H",), ("z_L",)])
def test_only_the_locations_named_move(where):
    both, one = perturbed(), perturbed(where=where)
    for name in Z0:
        expected = both[name] if name in where else Z0[name].repeat_interleave(K, dim=0)
        assert torch.equal(one[name], expected)


def test_sigma_zero_is_bitwise_clean():
    for name, z in perturbed(sigma=0.0, clean_first=False).items():
        assert torch.equal(z, Z0[name].repeat_interleave(K, dim=0))


def test_steps_differ_and_shards_agree():
    whole, again, later = perturbed()["z_L"], perturbed()["z_L"], perturbed(step=8)["z_L"]
    assert torch.equal(whole, again)
    assert not torch.equal(whole, later)
    shard = perturbed(rows=range(1, 3), z0={name: z[1:3] for name, z in Z0.items()})["z_L"]
    assert torch.equal(shard, whole[K : 3 * K])


def test_more_rollouts_keep_the_first_ones():
    few = perturbed(rollouts=2)["z_H"].view(B, 2, N, D)
    assert torch.equal(by_trajectory(perturbed()["z_H"])[:, :2], few)


def test_noise_is_drawn_and_added_in_float32_whatever_the_latents_are():
    z0 = {"z_H": torch.full((B, N, D), 1.0, dtype=torch.bfloat16)}
    z = perturbed(z0=z0, where=("z_H",), sigma=1.0, clean_first=False)["z_H"].view(B, K, N, D)
    assert z.dtype == torch.bfloat16
    xi = normals(1, "perturb.z_H", 7, range(B), 2, (N, D), torch.device("cpu"))
    assert torch.equal(z[:, 2], (1.0 + xi).to(torch.bfloat16))


def test_locations_are_checked_and_ordered():
    assert PerturbConfig(sigma=0.1, where=("z_L", "z_H")) == PerturbConfig(sigma=0.1, where=("z_H", "z_L"))
    with pytest.raises(ValueError, match="each once"):
        PerturbConfig(sigma=0.1, where=("z_L", "z_L"))
    with pytest.raises(ValueError, match="each once"):
        PerturbConfig(sigma=0.1, where=())

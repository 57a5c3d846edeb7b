"""Noise on the initial latents: what is clean stays bitwise clean, what is drawn is float32 and stateless."""

import numpy as np
import pytest
import torch

from rrm import perturb
from rrm.perturb import PerturbConfig, draw_sigmas, noise_rms, perturb_latents
from rrm.streams import normals, torch_generator

B, K, N, D = 3, 4, 5, 6
Z0 = {name: torch.randn(D, generator=torch_generator(0, name)).expand(B, N, D) for name in ("z_H", "z_L")}


def perturbed(
    *, sigma=0.5, where=("z_H", "z_L"), rollouts=K, clean_first=True, step=7, rows=range(B), z0=None, **changes
):
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
        **changes,
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


def sigmas(*, clean_first=False, step=100, rows=range(4000), seed=1, **fields):
    """[rows, K] as training draws them."""
    perturb = PerturbConfig(**{"rollouts": K} | fields)
    return draw_sigmas(perturb, clean_first=clean_first, seed=seed, step=step, rows=rows)


LOGUNIFORM = {"sampling": "loguniform", "sigma": (3e-5, 3e-3)}
BAND = {"sampling": "band", "sigma": 1e-3}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [1, 1, 1, 1, 1, 1, 1, 1]),
        ({"ramp_steps": 4}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ({"warmup_steps": 3}, [0, 0, 0, 1, 1, 1, 1, 1]),
        ({"warmup_steps": 2, "ramp_steps": 4}, [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]),
    ],
)
def test_warm_up_and_ramp_scale_every_kind_of_noise(fields, expected):
    assert [PerturbConfig(sigma=0.1, **fields).ramp(step) for step in range(8)] == expected
    for kind in ({"sigma": 0.1}, LOGUNIFORM, BAND, {"sigma": 0.1, "p_clean": 0.5}):
        for step, share in enumerate(expected):
            scaled, full = sigmas(step=step, **kind, **fields), sigmas(step=step, **kind)
            np.testing.assert_allclose(scaled, share * full, rtol=1e-15)


def test_warm_up_draws_nothing(monkeypatch):
    monkeypatch.setattr(perturb, "normals", None)
    monkeypatch.setattr(perturb, "uniforms", None)
    warming_up = sigmas(**LOGUNIFORM, warmup_steps=5, step=4, rows=range(B))
    for name, z in perturbed(sigma=warming_up, clean_first=False).items():
        assert torch.equal(z, Z0[name].repeat_interleave(K, dim=0))
    with pytest.raises(TypeError):
        sigmas(**LOGUNIFORM, warmup_steps=4, step=4)


def test_loguniform_is_uniform_in_the_exponent():
    u = np.log(sigmas(**LOGUNIFORM) / 3e-5) / np.log(100)
    assert 0 <= u.min() < 0.001 < 0.999 < u.max() <= 1
    np.testing.assert_allclose(np.quantile(u, [0.1, 0.25, 0.5, 0.75, 0.9]), [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.015)
    assert abs(np.corrcoef(u.T) - np.eye(K)).max() < 0.05  # a sigma for each trajectory


@pytest.mark.parametrize("band", [2.0, 5.0])
def test_band_lies_around_its_sigma(band):
    u = (np.log(sigmas(**BAND, band=band) / 1e-3) / np.log(band) + 1) / 2
    assert 0 <= u.min() < 0.001 < 0.999 < u.max() <= 1
    np.testing.assert_allclose(np.quantile(u, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.015)


@pytest.mark.parametrize("p_clean", [0.2, 0.7])
def test_the_mixture_has_its_share_of_clean_trajectories(p_clean):
    mixed, all_noisy = sigmas(**LOGUNIFORM, p_clean=p_clean), sigmas(**LOGUNIFORM)
    clean = mixed == 0
    np.testing.assert_allclose(clean.mean(axis=0), p_clean, atol=0.03)
    assert abs(np.corrcoef(clean.T) - np.eye(K)).max() < 0.05
    assert np.array_equal(mixed[~clean], all_noisy[~clean])
    # Which are clean says nothing about the size of the others.
    assert abs(np.corrcoef(clean.ravel(), np.log(all_noisy).ravel())[0, 1]) < 0.03


def test_clean_trajectories_of_a_mixture_are_bitwise_z0_and_the_others_do_not_notice():
    mixed = sigmas(sigma=0.7, p_clean=0.5, rows=range(B))
    assert 0 < (mixed == 0).mean() < 1
    z0 = {name: z.double() / 3 for name, z in Z0.items()}  # what float32 does not hold
    for name, z in perturbed(sigma=mixed, clean_first=False, z0=z0).items():
        noisy = by_trajectory(perturbed(sigma=0.7, clean_first=False, z0=z0)[name])
        for b, k in np.ndindex(B, K):
            assert torch.equal(by_trajectory(z)[b, k], z0[name][b] if mixed[b, k] == 0 else noisy[b, k])


def test_a_sigma_an_example_is_shared_by_its_trajectories_whose_noise_is_not():
    shared = sigmas(**LOGUNIFORM, sigma_per="example", p_clean=0.3, clean_first=True)
    assert (shared[:, 0] == 0).all()
    assert (shared[:, 1:] == shared[:, 1:2]).all()
    assert len(np.unique(shared)) > 2000
    z = by_trajectory(perturbed(sigma=sigmas(sigma=0.5, sigma_per="example", rows=range(B)))["z_H"])
    assert not torch.equal(z[:, 1], z[:, 2])


@pytest.mark.parametrize(("clean_first", "rollouts"), [(True, 5), (False, 4)])
def test_antithetic_pairs_share_sigma_and_average_to_the_clean_start(clean_first, rollouts):
    kind = {"clean_first": clean_first, "rollouts": rollouts}
    drawn = sigmas(sampling="loguniform", sigma=(0.1, 2.0), p_clean=0.2, antithetic=True, rows=range(B), **kind)
    first = int(clean_first)
    assert np.array_equal(drawn[:, first::2], drawn[:, first + 1 :: 2])
    assert len(np.unique(drawn[:, first:])) > B
    for name, z in perturbed(sigma=drawn, antithetic=True, **kind).items():
        z = z.view(B, rollouts, N, D)
        torch.testing.assert_close(z.mean(dim=1), Z0[name].contiguous(), atol=1e-6, rtol=0)
        pairs = z[:, first:].unflatten(1, (-1, 2)) - Z0[name][:, None, None]
        torch.testing.assert_close(pairs[:, :, 0], -pairs[:, :, 1], atol=1e-6, rtol=0)
        assert pairs.abs().max() > 0.1
        assert not torch.allclose(pairs[:, 0].abs(), pairs[:, 1].abs())


def test_sigmas_of_a_shard_are_its_rows_and_fewer_rollouts_have_the_first_ones():
    kind = {**LOGUNIFORM, "p_clean": 0.3}
    whole = sigmas(**kind, rows=range(9))
    assert np.array_equal(sigmas(**kind, rows=range(4, 7)), whole[4:7])
    assert np.array_equal(sigmas(**kind, rows=range(9), rollouts=2), whole[:, :2])
    assert np.array_equal(sigmas(**kind, rows=range(9)), whole)
    for other in ({"step": 101}, {"seed": 2}):
        assert not (sigmas(**{"rows": range(9), "sampling": "loguniform", "sigma": (1.0, 2.0)} | other) == whole).any()


def test_rms_scales_by_each_rows_own_size():
    sizes = torch.tensor([0.5, 1.0, 20.0])[:, None, None]
    z0 = {name: sizes * z / z.square().mean(dim=(1, 2), keepdim=True).sqrt() for name, z in Z0.items()}
    absolute, relative = (perturbed(z0=z0, scale=scale, clean_first=False) for scale in ("abs", "rms"))
    for name in Z0:
        noise = by_trajectory(absolute[name]) - z0[name][:, None]
        expected = z0[name][:, None] + sizes[:, None] * noise
        torch.testing.assert_close(by_trajectory(relative[name]), expected, atol=1e-3, rtol=1e-4)


def test_a_plain_sigma_is_the_array_of_it_and_float32_arithmetic():
    moved = perturbed(sigma=0.3, clean_first=False)
    for name, z in perturbed(sigma=np.full((B, K), 0.3), clean_first=False).items():
        assert torch.equal(z, moved[name])
        xi = normals(1, f"perturb.{name}", 7, range(B), 1, (N, D), torch.device("cpu"))
        assert torch.equal(by_trajectory(z)[:, 1], Z0[name] + 0.3 * xi)


def test_realised_rms_is_what_reached_the_latents():
    z0 = {name: torch.zeros(B, 64, 64) for name in Z0}
    drawn = np.array([[0.0, 1.0, 2.0]] * B)
    z = perturbed(z0=z0, sigma=drawn, rollouts=3, where=("z_L",))
    rms = noise_rms(z0, z, clean_first=True)
    assert rms["z_H"] == 0
    assert rms["z_L"].dtype == torch.float64
    assert rms["z_L"].item() == pytest.approx(1.5, rel=0.01)
    assert noise_rms(z0, z, clean_first=False)["z_L"].item() == pytest.approx(1.0, rel=0.01)
    # In bfloat16 a small sigma around 1 reaches few coordinates, and those too far: that is what the column is for.
    ones = {"z_L": torch.ones(B, 64, 64, dtype=torch.bfloat16)}
    rounded = perturbed(z0=ones, sigma=1e-4, where=("z_L",), clean_first=False)
    assert noise_rms(ones, rounded, clean_first=False)["z_L"].item() < 0.5e-4

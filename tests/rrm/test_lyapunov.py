"""Lyapunov exponents: maps with known spectra, models against finite differences, SRM against its bound."""

import math

import numpy as np
import pytest
import torch
from tiny import TINY_HRM, TINY_SRM, tiny_config
from torch.nn.attention import SDPBackend, sdpa_kernel

from rrm.lyapunov import (
    Diagnosis,
    by_forward_mode,
    cholesky_qr2,
    diagnose,
    householder_qr,
    orthonormal_vectors,
    otsu_threshold,
    tangent_unroll,
)
from rrm.models import build_model, tangents
from rrm.models.act import Batch
from rrm.streams import torch_generator
from rrm.torch_setup import set_up_torch

B, T = 3, 6


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


# Maps with known spectra


def normals(name: str, *shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch_generator(0, name))


def log_growth(step, z, Q, steps) -> torch.Tensor:
    """[steps, B, K]"""
    return torch.stack([growth for _, growth in tangent_unroll(by_forward_mode(step), z, Q, steps)])


def test_diagonal_map():
    d = torch.tensor([1.5, -0.9, 0.5, 0.1], dtype=torch.float64)
    z = normals("z", B, 4)
    aligned = log_growth(lambda z: z * d, z, torch.eye(4), 5)
    torch.testing.assert_close(aligned, d.abs().log().expand(5, B, 4), rtol=0, atol=1e-15)
    random = log_growth(lambda z: z * d, z, orthonormal_vectors(4, 3, seed=0), 120)
    torch.testing.assert_close(random[60:].mean(0), d[:3].abs().log().expand(B, 3), rtol=0, atol=1e-12)


def test_symmetric_map():
    eigenvalues = torch.tensor([1.3, -1.0, 0.7, 0.4, -0.2, 0.1], dtype=torch.float64)
    V = torch.linalg.qr(normals("V", 6, 6)).Q
    A = V @ eigenvalues.diag() @ V.T
    growth = log_growth(lambda z: z @ A, normals("z", B, 6), orthonormal_vectors(6, 6, seed=0), 200)
    torch.testing.assert_close(growth[100:].mean(0), eigenvalues.abs().log().expand(B, 6), rtol=0, atol=1e-12)


def test_shear_neither_grows_nor_fades():
    shear = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    assert log_growth(lambda z: z @ shear.T, torch.ones(1, 2).double(), torch.eye(2), 50).abs().max() < 1e-15


def test_nonlinear_map_at_every_step():
    """QR on the way gives what the Jacobian of the whole way does to the vectors, and to volume."""
    A, b = normals("A", 5, 5), normals("b", 5)

    def step(z):
        return torch.tanh(z @ A + b) + 0.5 * z.roll(1, -1)

    Q = orthonormal_vectors(5, 5, seed=0)
    starts = normals("z", B, 5)
    growth = log_growth(step, starts, Q, 6).cumsum(0)
    for row, z in enumerate(starts):
        J = torch.eye(5, dtype=torch.float64)
        log_det = 0.0
        for t in range(6):
            here = torch.func.jacrev(step)(z)
            J, z = here @ J, step(z)
            log_det += torch.linalg.slogdet(here).logabsdet.item()
            assert abs(growth[t, row].sum().item() - log_det) < 1e-12
            expected = torch.linalg.qr(J @ Q).R.diagonal().abs().log()
            torch.testing.assert_close(growth[t, row], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("condition", [1.0, 1e6, 1e10, math.inf])
def test_the_gpus_decomposition_is_householders(dtype, condition):
    """Of columns so near to parallel that the squares lose it, too."""
    Y = normals("Y", B, 50, 5)
    Y[1, :, 4] = Y[1, :, :4].sum(1) + Y[1, :, 4] / condition
    Y[2] *= 1e3
    Y = Y.to(dtype)
    (Q, stretch), (expected, expected_stretch) = cholesky_qr2(Y), householder_qr(Y)
    eps = torch.finfo(dtype).eps
    if condition < 1e8 or dtype == torch.float64:  # in float32 nothing is as parallel as that
        assert torch.equal(Q, expected) == (condition > 1e8)
    assert Q.dtype == stretch.dtype == dtype
    torch.testing.assert_close(Q.mT @ Q, torch.eye(5, dtype=dtype).expand(B, 5, 5), rtol=0, atol=20 * eps)
    accurate = 1e-5 if dtype == torch.float32 else 1e-12  # but for what is lost in Y itself
    torch.testing.assert_close(stretch[:, :4], expected_stretch[:, :4], rtol=accurate, atol=0)
    lost = 100 * eps * Y[:, :, 4].norm(dim=1)
    assert ((stretch - expected_stretch)[:, 4].abs() < lost).all()
    signs = (Q * expected).sum(1).sign()
    torch.testing.assert_close((Q * signs[:, None])[..., :4], expected[..., :4], rtol=0, atol=100 * eps)


def test_henon_map():
    """lambda_1 0.41922 and sum ln 0.3. One trajectory of 20,000 steps is off by 2.6e-3 (standard deviation)."""

    def five_iterations(z):
        x, y = z.unbind(-1)
        for _ in range(5):
            x, y = 1 - 1.4 * x * x + y, 0.3 * x
        return torch.stack((x, y), -1)

    growth = log_growth(five_iterations, 0.1 * normals("z", 64, 2), torch.eye(2), 400).sum(0) / 2000
    assert abs(growth[:, 0].mean().item() - 0.41922) < 5e-3
    assert (growth.sum(1) - math.log(0.3)).abs().max() < 1e-12


def test_vectors_are_orthonormal_and_nested():
    Q = orthonormal_vectors(200, 8, seed=0)
    torch.testing.assert_close(Q.T @ Q, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(orthonormal_vectors(200, 4, seed=0), Q[:, :4], rtol=0, atol=1e-14)
    assert (orthonormal_vectors(200, 4, seed=1) - Q[:, :4]).abs().max() > 0.01
    for k in (0, 201):
        with pytest.raises(ValueError, match=f"k: {k} is not between 1 and 200"):
            orthonormal_vectors(200, k, seed=0)


# Models

MODELS = {
    "trm-mlp": {},
    "trm-att": {"mlp_t": False, "pos_encodings": "rope"},
    "single-z": {"single_z": True, "mlp_t": False, "pos_encodings": "rope"},
    "hrm, rope": TINY_HRM,
    "hrm, learned": TINY_HRM | {"pos_encodings": "learned"},
    "srm": TINY_SRM,
}


def build(changes):
    config = tiny_config(model={"L_cycles": 2, "halt_max_steps": T} | changes).model
    model = build_model(config, seq_len=16, vocab_size=6, num_puzzles=2, generator=torch_generator(0, "init"))
    if model.puzzle_emb is not None:
        model.puzzle_emb.weights.data.normal_(generator=torch_generator(0, "puzzles"))
    return model.double()


@pytest.fixture(params=MODELS)
def model(request):
    return build(MODELS[request.param])


def puzzles(n: int = B) -> Batch:
    tokens = torch.randint(1, 6, (n, 16), generator=torch_generator(0, "tokens"))
    return Batch(tokens, tokens, torch.arange(n) % 2)


def step_flat(model, z_flat: torch.Tensor, batch: Batch) -> torch.Tensor:
    parts = z_flat.chunk(len(model.latent_names), dim=1)
    latents = {name: z.view(len(z), model.positions, -1) for name, z in zip(model.latent_names, parts, strict=True)}
    with torch.no_grad():
        latents, _ = model.act_step(latents, batch)
    return torch.cat([latents[name].flatten(1) for name in model.latent_names], dim=1)


def by_differences(model, k: int, relative_step: float) -> Diagnosis:
    """The same numbers from central differences of the public ACT step, vector by vector."""
    batch = puzzles()
    z = torch.cat([z.flatten(1) for z in model.initial_latents(B).values()], dim=1)
    first = z.shape[1] // len(model.latent_names)
    Q = orthonormal_vectors(z.shape[1], k, seed=0).expand(B, -1, -1)
    growth, drift, norm = [], [], []
    for _ in range(T):
        h = relative_step * z.norm(dim=1)[:, None, None]
        shifted = [(z[:, None] + sign * h * Q.mT).flatten(0, 1) for sign in (1, -1)]
        ahead, behind = (step_flat(model, z_, batch.repeat(k)).unflatten(0, (B, k)).mT for z_ in shifted)
        Q, R = torch.linalg.qr((ahead - behind) / (2 * h))
        growth.append(R.diagonal(dim1=1, dim2=2).abs().log())
        before, z = z, step_flat(model, z, batch)
        drift.append((z - before)[:, :first].norm(dim=1))
        norm.append(z[:, :first].norm(dim=1))
    return Diagnosis(*(torch.stack(x, 1).numpy() for x in (growth, drift, norm)), model.sub_updates)


def test_models_agree_with_finite_differences(model):
    found = diagnose(model, puzzles(), k=4)
    assert found.log_growth.shape == (B, T, 4)
    for relative_step, tolerance in ((1e-5, 1e-6), (1e-3, 1e-3)):
        expected = by_differences(model, 4, relative_step)
        np.testing.assert_allclose(found.exponents, expected.exponents, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.drift, expected.drift, rtol=1e-9)
    np.testing.assert_allclose(found.norm, expected.norm, rtol=1e-9)


def test_vectors_go_as_torchs_own_derivatives_have_it(model):
    """To rounding, for states and vectors of any size."""
    name = model.latent_names
    z, V = (3 * normals(x, *shape, B, len(name), model.positions, 8) for x, shape in (("z", ()), ("V", (5,))))
    V *= torch.tensor([1e-6, 1, 1, 1, 1e6]).view(5, 1, 1, 1, 1)
    embedding = model.embed(puzzles())

    def reason(rows, embedding):
        after = model.reason(dict(zip(name, rows.unbind(1), strict=True)), embedding)
        return torch.stack([after[one] for one in name], dim=1)

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        expected, images = by_forward_mode(lambda z: reason(z, embedding))(z, V)
        with tangents.carried(5):
            rows = torch.cat((z[None], V)).flatten(0, 1)
            state, vectors = tangents.split(reason(rows, torch.cat((embedding, embedding.new_zeros(5 * B, 16 + 1, 8)))))
    torch.testing.assert_close(state, expected, rtol=1e-10, atol=1e-10)
    sizes = images.flatten(2).norm(dim=2)
    assert ((vectors - images).flatten(2).norm(dim=2) < 1e-10 * sizes).all()


def test_a_spectrum_depends_on_its_puzzle_alone(model):
    together = diagnose(model, puzzles(), k=8)
    alone = diagnose(model, puzzles(), k=8, batch_size=1)
    for name in ("log_growth", "drift", "norm"):
        np.testing.assert_allclose(getattr(together, name), getattr(alone, name), rtol=0, atol=1e-9)
    others = diagnose(model, Batch(*(x[[2, 0]] for x in puzzles())), k=4)
    np.testing.assert_allclose(others.log_growth, together.log_growth[[2, 0], :, :4], rtol=0, atol=1e-9)


def test_batch_size_bounds_the_rows():
    model, seen = build({}), []
    embed = model.embed
    model.embed = lambda batch: seen.append(len(batch.inputs)) or embed(batch)
    diagnose(model, puzzles(5), k=3, batch_size=22)
    assert seen == [2, 2, 1]


def test_float32_is_enough(model):
    exact = diagnose(model, puzzles(), k=8)
    model.float()
    eight, four = (diagnose(model, puzzles(), k=k) for k in (8, 4))
    np.testing.assert_allclose(eight.exponents, exact.exponents, rtol=0, atol=1e-4)
    np.testing.assert_allclose(four.exponents, eight.exponents[:, :4], rtol=0, atol=1e-6)


def test_sub_updates_are_the_updates_of_a_latent(model):
    calls = []
    levels = [module for name, module in model.named_modules() if name in ("L_level", "H_level", "blocks.0")]
    for level in levels:
        level.register_forward_hook(lambda *_: calls.append(1))
    model.reason(model.initial_latents(1), model.embed(puzzles(1)))
    assert model.sub_updates == len(calls) == 6


# SRM


def srm_bound(model) -> float:
    """rho_c bounds a cycle in max(||z_H||, sqrt(eta) ||z_L||): the Euclidean norm costs a constant, once."""
    eta, per_cycle = model.config.eta, model.config.L_cycles + 1
    slack = 0.5 * math.log((1 + 1 / eta) * max(1, eta))
    return math.log(model.bound()) / per_cycle + slack / (T * model.sub_updates)


@pytest.mark.parametrize("changes", [{}, {"kappa": 0.99, "L_cycles": 3}, {"alpha": 0.6, "eta": 4.0}, {"eta": 0.25}])
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_srm_never_exceeds_its_bound(changes, scale):
    model = build(TINY_SRM | changes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not model.decays(name):
                parameter.mul_(scale)
    assert diagnose(model, puzzles(8), k=1).exponents.max() <= srm_bound(model)


def test_linear_srm_has_the_spectrum_of_its_gains():
    """With identities for layers and mixing, an H cycle is a 2 x 2 matrix of gains on (z_H, z_L), near the bound."""
    model = build(TINY_SRM | {"alpha": 0.6, "eta": 4.0})
    with torch.no_grad():
        model.mix.zero_()
        model.m.fill_(0.7)
        for name, parameter in model.blocks.named_parameters():
            if name.endswith(".W"):
                n = parameter.shape[1]
                parameter.copy_(torch.cat((torch.zeros(n, n), -math.tan(math.pi / 8) * torch.eye(n))))
            elif name.endswith("bias"):
                parameter.fill_(1e3 if "inner" in name else -1e3)
    c, kappa, root_eta = 1 / (1 + math.exp(-0.7)), 0.9, 2.0
    own, mixed = 0.4 + 0.6 * kappa * (1 - c), 0.6 * kappa * c
    low = np.array([[1, 0], [mixed / root_eta, own]])
    high = np.array([[own, mixed * root_eta], [0, 1]])
    act_step = np.linalg.matrix_power(high @ low @ low, 2)
    size = model.positions * 8
    Q = orthonormal_vectors(2 * size, 3, seed=0).numpy()
    found = diagnose(model, puzzles(), k=3)
    for t in range(1, T + 1):
        image = np.kron(np.linalg.matrix_power(act_step, t), np.eye(size)) @ Q
        grown = np.log(abs(np.linalg.qr(image).R.diagonal()))
        np.testing.assert_allclose(found.log_growth[:, :t].sum(axis=1), np.tile(grown, (B, 1)), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.exponents[0], grown / (T * 2 * 3), rtol=0, atol=1e-10)
    assert srm_bound(model) - 0.04 < found.exponents[0, 0] <= srm_bound(model)


# What a diagnosis says


def diagnosis(log_growth, drift=((1.0,),), norm=1.0) -> Diagnosis:
    drift = np.array(drift, dtype=float)
    return Diagnosis(np.array(log_growth, dtype=float), drift, np.full(drift.shape, norm), sub_updates=4)


def test_exponents_count_sub_updates_and_late_ones_drop_the_first_eighth():
    growth = np.zeros((1, 16, 2))
    growth[0, :2, 0] = 8.0
    growth[0, 2:, 0], growth[0, :, 1] = 0.08, -0.4
    found = diagnosis(growth)
    np.testing.assert_allclose(found.rates, [[(16 + 14 * 0.08) / 16, -0.4]])
    np.testing.assert_allclose(found.exponents, [[(16 + 14 * 0.08) / 64, -0.1]])
    np.testing.assert_allclose(found.late_exponents, [[0.02, -0.1]])
    np.testing.assert_allclose(found.spectral_mean, [((16 + 14 * 0.08) / 64 - 0.1) / 2])
    np.testing.assert_allclose(diagnosis(growth[:, 1:4]).late_exponents[0, 0], 0.02)  # 3 steps: without the first
    np.testing.assert_allclose(diagnosis(growth[:, :1]).late_exponents[0, 0], 2.0)


def test_a_positive_mode_grew_at_all_or_by_more_than_e():
    found = diagnosis([[[0.6, 0.4, -0.5]] * 2, [[-1, -2, -3]] * 2])
    assert found.n_pos0.tolist() == [2, 0]
    assert found.n_pos.tolist() == [1, 0]


def test_settled_is_the_low_group_of_late_drift():
    drift = [[9, 9, d, d, d, d] for d in (1e-3, 3e-3, 2e-3, 5.0, 9.0)]
    found = diagnosis(np.zeros((5, 6, 1)), drift, norm=10.0)
    np.testing.assert_allclose(found.late_drift, [1e-3, 3e-3, 2e-3, 5.0, 9.0])
    np.testing.assert_allclose(found.relative_late_drift, [1e-4, 3e-4, 2e-4, 0.5, 0.9])
    assert found.settled.tolist() == [True, True, True, False, False]
    assert diagnosis(np.zeros((2, 2, 1)), [[3.0, 1.0], [7.0, 9.0]]).late_drift.tolist() == [2.0, 8.0]


def test_drift_below_rounding_counts_as_rounding():
    assert diagnosis(np.zeros((3, 1, 1)), [[0.0], [0.0], [1e-9]]).settled.all()
    # As it is, 1e-30 would stand alone on the low side.
    assert diagnosis(np.zeros((4, 1, 1)), [[1e-30], [1e-4], [1.0], [1.0]]).settled.tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_otsu_separates_best():
    values = np.concatenate([np.random.default_rng(0).normal(m, 1.0, n) for m, n in ((0, 30), (6, 50))])
    values[5] = values[6]

    def within(cut):
        low, high = values[values < cut], values[values >= cut]
        return len(low) * low.var() + len(high) * high.var()

    threshold = otsu_threshold(values)
    best = min(within(cut) for cut in np.sort(values)[1:])
    np.testing.assert_allclose(within(threshold), best, rtol=1e-12)
    assert otsu_threshold(np.append(values, [np.nan, np.inf])) == threshold
    assert math.isnan(otsu_threshold(np.array([1.0])))

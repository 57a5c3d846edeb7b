"""What noise must not change, in whole trainings; and the invariants of SPEC.md, C, by their numbers."""

import copy
import itertools
import threading
from functools import cache

import pytest
import torch
from threads import two_threads
from tiny import TINY_HRM, TINY_SRM, tiny_config, tiny_model

from rrm.checkpoint import loads, serialise
from rrm.models import build_model
from rrm.models.act import Batch, q_continue_target
from rrm.models.losses import row_losses
from rrm.models.srm import SRM
from rrm.perturb import PerturbConfig, draw_sigmas, perturb_latents
from rrm.rollout import ROLLOUTS, Trajectories
from rrm.streams import torch_generator
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer
from rrm.workers import ALONE

B, M = 3, 4
NEVER = 99
MODELS = {
    "trm att": {"mlp_t": False, "pos_encodings": "rope"},
    "trm mlp": {},
    "trm singlez": {"single_z": True},
    "trm q continue": {"no_ACT_continue": False, "mlp_t": False, "pos_encodings": "learned"},
    "hrm": TINY_HRM,
    "srm": TINY_SRM,
}
OBJECTIVES = {"clean": 1, "single_perturbed_ce": 1, "multi_perturbed_ce": 4}  # and their trajectories, K
NOISE = {"sampling": "loguniform", "sigma": (0.1, 1.0)}


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


@cache
def halting(name):
    """In float64, so that sums in another order agree closely, and with a halting head that says yes now and then."""
    model = tiny_model(MODELS[name], halt_max_steps=M, num_puzzles=2)
    torch.nn.init.normal_(model.q_head.weight, generator=torch_generator(0, "q_head"))
    torch.nn.init.normal_(model.puzzle_emb.weights, generator=torch_generator(0, "puzzles"))
    model.double()
    z, margins = latents(model, "multi_perturbed_ce"), []
    with torch.no_grad():
        for _ in range(M):
            z, output = model.act_step(z, batch().repeat(4))
            margins.append(output.q_halt_logits - (output.q_continue_logits if model.learns_q_continue else 0))
        middle = torch.cat(margins).sort().values[M * B : 3 * M * B]
        widest = middle.diff().argmax()  # no answer stands near the threshold, where rounding would decide
        model.q_head.bias[0] -= middle[widest : widest + 2].mean()
    return model


@pytest.fixture(params=MODELS)
def model(request):
    return copy.deepcopy(halting(request.param))


@pytest.fixture(params=OBJECTIVES)
def objective(request):
    return request.param


def batch(call: int = 0) -> Batch:
    tokens = torch.randint(1, 6, (2, B, 16), generator=torch_generator(0, "tokens", call))
    return Batch(tokens[0], tokens[1], torch.arange(B) % 2)


def latents(model, objective, step=0, rows=range(B), **noise):
    """The latents that training starts from, [B * K, N, D]."""
    z0, clean_first = model.initial_latents(len(rows)), objective == "multi_perturbed_ce"
    if objective == "clean":
        return z0
    perturb = PerturbConfig(rollouts=OBJECTIVES[objective], **NOISE | noise)
    where = {"clean_first": clean_first, "seed": 0, "step": step, "rows": rows}
    sigma = draw_sigmas(perturb, **where)
    return perturb_latents(z0, sigma=sigma, where=("z_H", "z_L"), rollouts=perturb.rollouts, stream="perturb", **where)


def gradients(model):
    """Those of the weights and of the puzzle table, and none are left."""
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    found["puzzle_emb"], _ = model.puzzle_emb.take_gradients()
    model.zero_grad()
    return found


def plain_step(model, z, puzzles, is_last):
    """One ACT step as SPEC.md, 0, has it: the latents after it, the loss of each row, whether it wants to halt."""
    z, output = model.act_step(z, puzzles)
    target = q_continue_target(model.act_step, z, puzzles, is_last) if model.learns_q_continue else None
    wants = output.q_halt_logits > (output.q_continue_logits if model.learns_q_continue else 0)
    return z, row_losses(output, puzzles.labels, "stablemax", target).total, wants


def masked(model, z, K, min_steps=None):
    """act_mask as SPEC.md writes it, nothing dropped: losses and activity of every row, [M, B * K] each."""
    active, losses, activity = torch.ones(B * K, dtype=torch.bool), [], []
    for step in range(1, M + 1):
        z, loss, wants = plain_step(model, z, batch().repeat(K), step == M)
        losses.append(loss)
        activity.append(active)
        active = active & ~(wants & (step >= (0 if min_steps is None else min_steps.flatten())))
    return torch.stack(losses), torch.stack(activity)


def run(model, name, z, K, min_steps=None, normalise="slots"):
    """A whole rollout, M calls of serial_act: losses [M, B * K], trajectory fastest, and the gradient of their sum."""
    start = Trajectories(batch(), z, K, "stablemax", min_steps, normalise=normalise, constant_weights=True)
    losses = []
    for _ in range(M if name == "serial_act" else 1):
        for step in ROLLOUTS[name](model, start):
            step.total.sum().backward()
            losses.append(step.total.detach())
    if name == "serial_act":
        losses = torch.stack(losses).view(M, K, B).transpose(1, 2).flatten(1).unbind()
    return losses, gradients(model)


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_where_nothing_halts_a_rollout_is_each_trajectory_unrolled_alone(model, rollout, objective):
    """1 (bitwise, for K = 1), 2, 3 and 5."""
    K, z0 = OBJECTIVES[objective], latents(model, objective)
    expected = torch.zeros(M, B, K, dtype=torch.float64)
    sums = None
    for k in range(K):
        z = {name: z.view(B, K, *z.shape[1:])[:, k] for name, z in z0.items()}
        for step in range(M):
            z, loss, _ = plain_step(model, z, batch(), step == M - 1)
            loss.sum().backward()
            expected[step, :, k] = loss.detach()
        alone = gradients(model)
        sums = alone if sums is None else {name: sums[name] + alone[name] for name in alone}
    assert all(sums[name].any() for name in ("lm_head.weight", "q_head.weight", "puzzle_emb"))
    losses, found = run(model, rollout, z0, K, torch.full((B, K), NEVER))
    torch.testing.assert_close(torch.stack(losses), expected.flatten(1), rtol=1e-12, atol=0)
    assert_close(found, sums)
    if K == 1:
        assert torch.equal(torch.stack(losses), expected.flatten(1))
        assert all(torch.equal(found[name], gradient) for name, gradient in sums.items())


def test_act_mask_where_nothing_halts_is_parallel_fixed(model, objective):
    """2: not a bit of difference."""
    K, z0 = OBJECTIVES[objective], latents(model, objective)
    fixed, fixed_gradients = run(model, "parallel_fixed", z0, K)
    for normalise in ("slots", "per_trajectory"):
        losses, found = run(model, "act_mask", z0, K, torch.full((B, K), NEVER), normalise)
        assert torch.equal(torch.stack(losses), torch.stack(fixed))
        assert all(torch.equal(found[name], gradient) for name, gradient in fixed_gradients.items())


@pytest.mark.parametrize("explores", [False, True])
@pytest.mark.parametrize("normalise", ["slots", "per_trajectory"])
def test_act_mask_is_the_masked_rollout(model, objective, normalise, explores):
    """6, with every normalisation, for the losses that are left, their number, and the gradient of their sum.

    (valid_steps is slots with another divisor: the Trainer's, see test_trainer_wiring.)
    """
    K, z0 = OBJECTIVES[objective], latents(model, objective)
    min_steps = torch.arange(B * K).view(B, K) % 4 if explores else None
    losses, active = masked(model, z0, K, min_steps)
    assert (active[1:] <= active[:-1]).all()
    assert active[0].all()
    weights = M / active.sum(0).double() if normalise == "per_trajectory" else torch.ones(B * K)
    (losses * active * weights).sum().backward()
    expected = gradients(model)
    steps, found = run(model, "act_mask", z0, K, min_steps, normalise)
    taken = int(active.any(1).sum())
    assert len(steps) == taken
    for step in range(taken):
        alive = active[step]
        torch.testing.assert_close(steps[step], (losses[step] * weights)[alive].detach(), rtol=1e-6, atol=1e-6)
    assert_close(found, expected)
    if objective == "multi_perturbed_ce":
        assert 0 < active[1:].double().mean() < 1  # some halt early, some do not


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_rollout_zero_of_multi_is_the_clean_run(model, rollout):
    """4: halting included, for any sigma."""

    def rollout_zero(z, K):
        losses, _ = run(model, rollout, z, K)
        if rollout != "act_mask":
            return torch.stack(losses).view(M, B, K)[..., 0]
        _, active = masked(model, z, K)
        of_all = torch.zeros(M, B * K, dtype=torch.float64)
        for step, loss in enumerate(losses):
            of_all[step, active[step]] = loss
        return of_all.view(M, B, K)[..., 0]

    clean = rollout_zero(latents(model, "clean"), 1)
    for sigma in (0.01, 10.0):
        z = latents(model, "multi_perturbed_ce", sampling="fixed", sigma=sigma)
        torch.testing.assert_close(rollout_zero(z, 4), clean, rtol=1e-12, atol=0)


def test_noise_of_a_shard_is_the_slice_and_steps_differ(model, objective):
    """7."""
    K, whole = OBJECTIVES[objective], latents(model, objective)
    shard, again = latents(model, objective, rows=range(1, 3)), latents(model, objective)
    for name, z in whole.items():
        assert torch.equal(shard[name], z[K : 3 * K])
        assert torch.equal(again[name], z)
        assert torch.equal(latents(model, objective, step=1)[name], z) == (objective == "clean")


def test_srm_forgets_noise_as_its_bound_says():
    """8, over a whole unroll; test_srm holds a cycle's Jacobian to the bound."""
    config = tiny_config(model=TINY_SRM | {"halt_max_steps": M, "eta": 4.0}).model
    model = build_model(config, seq_len=16, vocab_size=6, num_puzzles=2, generator=torch_generator(0, "init")).double()
    assert isinstance(model, SRM)

    def norm(a, b):
        high, low = ((a[name] - b[name]).norm(dim=(1, 2)) for name in ("z_H", "z_L"))
        return torch.maximum(high, config.eta**0.5 * low)

    clean, noisy = model.initial_latents(B), latents(model, "single_perturbed_ce")
    distance = norm(clean, noisy)
    assert (distance > 0.1).all()
    for step in range(1, M + 1):
        clean, noisy = (model.act_step(z, batch())[0] for z in (clean, noisy))
        assert (norm(clean, noisy) <= model.bound() ** (step * config.H_cycles) * distance).all()


IN_THREE = {"single_perturbed_ce": 1, "multi_perturbed_ce": 3, "winner_perturbed_ce": 3}  # trajectories, K
TRAINED = {"trm": {}, "hrm": TINY_HRM, "srm": TINY_SRM}
WHEN = ("start", "act_step", "update")
CASES = [  # the models in turns: each meets each objective, each rollout and each `when`
    (*case, list(TRAINED)[(i + i // 3) % 3], "act" if i % 2 and case[1] != "act_mask" else "rollout")
    for i, case in enumerate(
        case
        for case in itertools.product(IN_THREE, ROLLOUTS, WHEN)
        if case[0] != "winner_perturbed_ce" or case[1] == "parallel_fixed"
    )
]


def trained(config, until, state=None, workers=ALONE):
    """The states after each step of `until`, serialised and read again; the halting head says yes now and then."""
    trainer = Trainer(config, torch.device("cpu"), workers)
    torch.nn.init.normal_(trainer.model.q_head.weight, generator=torch_generator(0, "q_head"))
    torch.nn.init.zeros_(trainer.model.q_head.bias)
    if state is not None:
        trainer.load_state_dict(state)
    states = []
    for step in until:
        trainer.train_until(step)
        states.append(loads(serialise(trainer.state_dict()), "state"))
    return states


def on_two_threads(config, until):
    """The states of worker 0 of two."""
    first, other = two_threads()
    second = threading.Thread(target=lambda: trained(config, until, workers=other))
    second.start()
    states = trained(config, until, workers=first)
    second.join()
    return states


def assert_same_bits(a, b, where="state"):
    """Two states, but for the trial's name, the seconds, and what is said of noise where one has none."""
    if isinstance(a, dict):
        left_out = {"trial_id", "seconds"} | {x for x in a.keys() ^ b.keys() if x.startswith(("train_sigma", "noise_"))}
        assert a.keys() - left_out == b.keys() - left_out, where
        for key in a.keys() - left_out:
            assert_same_bits(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same_bits(x, y, f"{where}[{i}]")
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, where


def first_answers(config):
    """What the trajectories' latents are after the first ACT step of the first batch: a list, bank by bank."""
    trainer, seen = Trainer(config, torch.device("cpu")), []
    reason = trainer.model.reason
    trainer.model.reason = lambda *arguments: seen.append(reason(*arguments)) or seen[-1]
    trainer.train_step()
    return [z["z_L"].detach() for z in seen]


@pytest.mark.parametrize(("objective", "rollout", "when", "model", "optimizer_step"), CASES)
def test_what_noise_must_not_change(objective, rollout, when, model, optimizer_step):
    """sigma 0 and every step of a warm-up are the clean run's bits, for any K: copies are trained as one.

    A resume, in the warm-up or after it, and two workers in place of one, end in the same bits; in two shards nothing
    but the order of sums is new (test_shards has their gradients). The first trajectories of more are those of fewer.
    """
    K = IN_THREE[objective]

    def config(sigma=None, *, shards=2, rollouts=K, **schedule):
        noise = {"sigma": sigma, "rollouts": rollouts, "when": when} | schedule
        return tiny_config(
            model=TRAINED[model] | {"halt_max_steps": 3},
            rollout=rollout,
            train={"steps": 4, "shards": shards, "optimizer_step": optimizer_step, "halt_exploration_prob": 0.4},
            eval={"every": 2, "n": 2, "sigmas": []},
            **({} if sigma is None else {"objective": objective, "perturb": noise}),
        )

    clean = trained(config(), (2, 4))
    assert_same_bits(trained(config(0.0), (4,))[0], clean[1])
    warm = config(0.5, warmup_steps=2)
    in_warm_up, at_its_end, noisy, whole = trained(warm, (1, 2, 3, 4))
    assert_same_bits(at_its_end, clean[0])
    assert not torch.equal(whole["model"]["lm_head.weight"], clean[1]["model"]["lm_head.weight"])
    for state in (in_warm_up, noisy):
        assert_same_bits(trained(warm, (4,), state)[0], whole)
    assert_same_bits(on_two_threads(warm, (4,))[0], whole)
    still, last = whole["history"][-3], whole["history"][-1]
    assert (still["train_sigma"], last["train_sigma"]) == (0, 0.5)
    assert 0.2 < last["noise_rms_z_L"] < 0.6  # below 0.5: slots of serial_act may be of the warm-up still
    assert ("winner_entropy" in still, "winner_entropy" in last) == (False, objective == "winner_perturbed_ce")
    if K > 1:
        more, fewer = (first_answers(config(0.5, shards=1, rollouts=rollouts)) for rollouts in (3, 2))
        if rollout == "serial_act":
            assert len(more) * 2 == len(fewer) * 3
            assert all(map(torch.equal, fewer, more))
        else:
            by_trajectory = [z[0].unflatten(0, (4, -1)) for z in (more, fewer)]
            torch.testing.assert_close(by_trajectory[0][:, :2], by_trajectory[1])
            assert not torch.allclose(by_trajectory[0][:, 2], by_trajectory[0][:, 1])


def test_a_quarter_of_the_ramp_is_a_quarter_of_the_interval():
    """9."""
    perturb = PerturbConfig(sampling="loguniform", sigma=(3e-5, 3e-3), ramp_steps=8, rollouts=4)
    rows = range(2000)
    sigmas = draw_sigmas(perturb, clean_first=False, seed=0, step=1, rows=rows)
    assert perturb.ramp(1) == 0.25
    assert 7.5e-6 <= sigmas.min() < 7.6e-6
    assert 7.4e-4 < sigmas.max() <= 7.5e-4

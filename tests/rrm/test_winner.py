"""The winner takes the gradient (SPEC.md, G): held to the plain version, which keeps a graph of every trajectory."""

import math

import pytest
import torch
from tiny import TINY_HRM, TINY_SRM, tiny_config, tiny_model

from rrm.checkpoint import CheckpointError
from rrm.models import build_model
from rrm.models.act import Batch, continue_value
from rrm.models.losses import row_losses
from rrm.noise import NoiseInTime, act_step_of
from rrm.perturb import PerturbConfig, perturb_latents
from rrm.rollout import Trajectories
from rrm.streams import torch_generator
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer
from rrm.winner import Race, entropy, winner_takes_all

CPU = torch.device("cpu")
B, K, M = 5, 4, 4
MODELS = {"trm": {}, "hrm": TINY_HRM, "srm": TINY_SRM}
WINNER = {"objective": "winner_perturbed_ce", "perturb": {"sigma": 1.0, "rollouts": 3}}


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


@pytest.fixture(params=MODELS)
def model(request):
    model = tiny_model(MODELS[request.param], halt_max_steps=M)
    torch.nn.init.normal_(model.q_head.weight, generator=torch_generator(0, "q_head"))
    return model.double()


def batch() -> Batch:
    tokens = torch.randint(1, 6, (2, B, 16), generator=torch_generator(0, "tokens"))
    return Batch(tokens[0], tokens[1], torch.zeros(B, dtype=torch.int64))


def noise(in_time):
    kind = {"clean_first": True, "seed": 0, "stream": "perturb", "step": 0, "rows": range(B), "device": CPU}
    sigma = torch.tensor([0.0, 1, 1, 1]).expand(1, B, K).double().numpy()
    return NoiseInTime(PerturbConfig(sigma=1.0, rollouts=K, when="update"), sigma, **kind) if in_time else None


def start_of(model, in_time, constant_weights=False):
    kind = {"where": ("z_H", "z_L"), "clean_first": True, "seed": 0, "stream": "perturb", "step": 0}
    z0 = perturb_latents(model.initial_latents(B), sigma=0.0 if in_time else 2.0, rollouts=K, rows=range(B), **kind)
    return Trajectories(batch(), z0, K, "stablemax", constant_weights=constant_weights, noise=noise(in_time))


def plain(model, in_time, carry):
    """Losses [M, B], who won [M, B], and the gradient of the sum of the losses."""
    start, everyone = start_of(model, in_time), batch().repeat(K)
    z, losses, winners, rows = start.latents, [], [], torch.arange(B)
    for t in range(M):
        z, output = act_step_of(model, start.noise, t)(z, everyone)
        lm = row_losses(output, everyone.labels, "stablemax").lm.view(B, K)
        won = torch.tensor([min(range(K), key=lambda k, b=b: lm[b, k].item()) for b in range(B)])
        if carry == "share_z_H":
            shared = z["z_H"].view(B, K, *z["z_H"].shape[1:])[rows, won]
            z = {"z_H": torch.stack([shared] * K, dim=1).flatten(0, 1), "z_L": z["z_L"]}
        target = None
        if model.learns_q_continue:
            with torch.no_grad():
                target = continue_value(act_step_of(model, start.noise, t + 1)(z, everyone)[1], is_last=t == M - 1)
        total = row_losses(output, everyone.labels, "stablemax", target).total.view(B, K)[rows, won]
        total.sum().backward()
        losses.append(total.detach())
        winners.append(won)
    return torch.stack(losses), torch.stack(winners), gradients(model)


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    found["puzzle_emb"], _ = model.puzzle_emb.take_gradients()
    model.zero_grad()
    return found


@pytest.mark.parametrize("in_time", [False, True])
@pytest.mark.parametrize("carry", ["own", "share_z_H"])
def test_the_winners_are_trained_as_in_the_plain_version(model, carry, in_time):
    expected, winners, expected_gradients = plain(model, in_time, carry)
    assert len(winners.unique()) > 1
    for constant_weights in (False, True):
        race, losses = Race(K), []
        for step in winner_takes_all(model, start_of(model, in_time, constant_weights), race, carry):
            step.total.sum().backward()
            losses.append(step.total.detach())
        torch.testing.assert_close(torch.stack(losses), expected, rtol=1e-7, atol=0)
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-6, atol=1e-7)
        found = race.take()
        changed = winners[1:] != winners[:-1]
        assert found["winner_changes"].tolist() == [changed.sum(), (~changed).sum()]
        assert found["winner_entropy"].tolist() == [(winners == k).sum() for k in range(K)]


def test_of_equals_the_first_wins():
    """No noise: all K trajectories say the same, and rollout 0 takes all."""
    model = build_model(
        tiny_config(model={"halt_max_steps": M}).model,
        seq_len=16, vocab_size=6, num_puzzles=1, generator=torch_generator(0, "init"),
    )  # fmt: skip
    race = Race(K)
    z0 = {name: z.repeat_interleave(K, dim=0) for name, z in model.initial_latents(B).items()}
    torch.nn.init.zeros_(model.lm_head.weight)
    list(winner_takes_all(model, Trajectories(batch(), z0, K, "softmax"), race, "own"))
    found = race.take()
    assert found["winner_changes"].tolist() == [0, B * (M - 1)]
    assert found["winner_entropy"].tolist() == [B * M, 0, 0, 0]
    assert entropy(found["winner_entropy"]) == 0
    assert entropy(torch.tensor([3.0, 3.0, 0.0, 3.0])) == pytest.approx(math.log(3))


@pytest.mark.parametrize("optimizer_step", ["rollout", "act"])
def test_training_says_who_won_and_alone_is_the_clean_run(optimizer_step):
    fields = {"train": {"optimizer_step": optimizer_step, "shards": 2}, "eval": {"n": 2, "sigmas": []}}
    clean, one, three = (
        Trainer(tiny_config(**fields, **kind), CPU)
        for kind in ({}, {**WINNER, "perturb": {"sigma": 1.0, "rollouts": 1}}, WINNER)
    )
    for trainer in (clean, one, three):
        trainer.train_until(4)
    others = clean.model.state_dict()
    assert all(torch.equal(x, others[name]) for name, x in one.model.state_dict().items())
    assert "winner_changes" not in one.history[-1]
    assert not torch.equal(three.model.state_dict()["lm_head.weight"], others["lm_head.weight"])
    assert three.act_steps == clean.act_steps
    last = three.history[-1]
    assert 0 < last["winner_changes"] < 1
    assert 0 < last["winner_entropy"] <= math.log(3)
    state = three.state_dict() | {"noise_since_evaluation": {"winner_changes": torch.tensor(0.5)}}
    with pytest.raises(CheckpointError, match=r"winner_changes is of shape \(\), an older version's"):
        three.load_state_dict(state)
    assert 0.5 < last["train_loss"] / clean.history[-1]["train_loss"] < 1.5


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rollout": "act_mask", "train": {"optimizer_step": "rollout"}}, "rollout: act_mask with winner_perturbed_ce"),
        ({"rollout": "serial_act"}, "rollout: serial_act with winner_perturbed_ce"),
        (
            {"model": {"single_z": True}, "perturb": {"where": ["z_L"], "winner_carry": "share_z_H"}},
            "perturb.winner_carry: share_z_H with a model that has z_L alone",
        ),
        (
            {"objective": "multi_perturbed_ce", "perturb": {"winner_carry": "share_z_H"}},
            "perturb.winner_carry: share_z_H with multi_perturbed_ce, where nobody wins",
        ),
    ],
)
def test_what_cannot_race_is_refused_by_name(changes, problem):
    changes = dict(changes)
    changes["perturb"] = WINNER["perturb"] | changes.get("perturb", {})
    with pytest.raises(ValueError, match=problem):
        tiny_config(**WINNER | changes)

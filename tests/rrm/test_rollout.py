"""What the invariants (test_invariants) leave open: where gradient stops, who leaves the batch, how slots reload."""

import pytest
import torch
from tiny import TINY_HRM, TINY_SRM, tiny_config

from rrm.models import build_model
from rrm.models.act import Batch, Latents, StepOutput
from rrm.perturb import perturb_latents
from rrm.rollout import ROLLOUTS, Trajectories, act_mask, parallel_fixed, serial_act
from rrm.streams import torch_generator
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

B, K = 3, 4
MODELS = {"trm": {}, "single z": {"single_z": True}, "hrm": TINY_HRM, "srm": TINY_SRM}


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


@pytest.fixture(params=MODELS)
def model(request):
    config = tiny_config(model=MODELS[request.param] | {"halt_max_steps": 4}).model
    model = build_model(config, seq_len=16, vocab_size=6, num_puzzles=1, generator=torch_generator(0, "init"))
    torch.nn.init.constant_(model.q_head.bias[:1], 5.0)  # wants to halt at once: exploration decides
    return model.double()


def batch(call: int = 0) -> Batch:
    tokens = torch.randint(1, 6, (2, B, 16), generator=torch_generator(0, "tokens", call))
    return Batch(tokens[0], tokens[1], torch.zeros(B, dtype=torch.int64))


def noisy(model, step: int = 0) -> Latents:
    kind = {"where": ("z_H", "z_L"), "clean_first": True, "seed": 0, "stream": "perturb", "step": step}
    return perturb_latents(model.initial_latents(B), sigma=1.0, rollouts=K, rows=range(B), **kind)


def test_no_gradient_crosses_an_act_step(model):
    latents = {name: z.clone().requires_grad_() for name, z in noisy(model).items()}
    first, *_ = parallel_fixed(model, Trajectories(batch(), latents, K, "stablemax"))
    moved, _ = model.act_step(latents, batch().repeat(K))
    assert first.total.requires_grad
    assert not any(z.requires_grad for z in moved.values())


def test_with_constant_weights_the_look_ahead_is_the_next_step(monkeypatch):
    """HRM takes M + 1 ACT steps then, not 2 M, to the same losses and gradients."""
    config = tiny_config(model=TINY_HRM | {"halt_max_steps": 4}).model
    model = build_model(config, seq_len=16, vocab_size=6, num_puzzles=1, generator=torch_generator(0, "init"))
    taken, act_step = [], model.act_step
    monkeypatch.setattr(model, "act_step", lambda *given: taken.append(0) or act_step(*given))
    found = []
    for constant_weights in (False, True):
        start = Trajectories(batch(), noisy(model), K, "stablemax", constant_weights=constant_weights)
        losses = []
        for step in parallel_fixed(model, start):
            step.total.sum().backward()
            losses.append(step.total.detach())
        found.append([*losses, *(p.grad.clone() for p in model.parameters())])
        model.zero_grad()
    assert len(taken) == 2 * 4 + 4 + 1
    for plain, shared in zip(*found, strict=True):
        torch.testing.assert_close(shared, plain, rtol=1e-5, atol=1e-7)


class Counting:
    """Row b wants to halt from step inputs[b, 0] on; it writes down how many rows each ACT step has."""

    latent_names, halt_max_steps, learns_q_continue = ("z_H",), 4, False

    def __init__(self):
        self.rows: list[int] = []

    def initial_latents(self, batch_size: int) -> Latents:
        return {"z_H": torch.zeros(batch_size, 1, 1)}

    def act_step(self, latents: Latents, batch: Batch) -> tuple[Latents, StepOutput]:
        self.rows.append(len(batch.inputs))
        steps = latents["z_H"] + 1
        wants = 2.0 * (steps.flatten() >= batch.inputs[:, 0]) - 1
        return {"z_H": steps}, StepOutput(torch.zeros(*batch.labels.shape, 6), wants, torch.zeros_like(wants))


def counted(halts_at: list[int], **changes) -> tuple[list[int], list[torch.Tensor]]:
    model, puzzles = Counting(), torch.tensor(halts_at)[:, None]
    start = Trajectories(Batch(puzzles, puzzles % 6, puzzles[:, 0]), model.initial_latents(3), 1, "softmax", **changes)
    return model.rows, [losses.total for losses in act_mask(model, start)]


def test_act_mask_computes_the_rows_that_still_go_and_no_others():
    rows, losses = counted([1, 3, 9])
    assert rows == [3, 2, 2, 1] == [len(loss) for loss in losses]
    assert counted([1, 2, 1])[0] == [3, 1]
    assert counted([1, 2, 1], min_steps=torch.tensor([[3], [0], [9]]))[0] == [3, 3, 2, 1]


def test_per_trajectory_counts_the_steps_first_and_weights_by_them():
    rows, losses = counted([1, 3, 9], normalise="per_trajectory")
    assert rows == 2 * [3, 2, 2, 1]
    plain = counted([1, 3, 9])[1]
    for step, taken in enumerate([[1, 3, 4], [3, 4], [3, 4], [4]]):
        torch.testing.assert_close(losses[step], plain[step] * 4 / torch.tensor(taken).double(), check_dtype=False)


def test_serial_act_keeps_each_rollout_in_a_bank_of_its_own(model):
    """Every bank is a run of B slots by itself, whatever the others do: K rollouts are never one batch that reloads."""
    min_steps = torch.arange(B * K).view(B, K) % 5  # exploration of its own for each bank
    together = Trajectories(batch(), noisy(model), K, "stablemax", min_steps)
    alone = [Trajectories(batch(), {}, 1, "stablemax", min_steps[:, [k]]) for k in range(K)]
    depths = set()
    for call in range(6):
        together.batch, together.latents = batch(call), noisy(model, call)
        losses = list(serial_act(model, together))
        assert len(losses) == K == len(together.slots)
        for k, bank in enumerate(alone):
            bank.batch = batch(call)
            bank.latents = {name: z.view(B, K, *z.shape[1:])[:, k] for name, z in together.latents.items()}
            (expected,) = serial_act(model, bank)
            assert torch.equal(losses[k].total, expected.total)
            assert len(expected.total) == B
        depths.add(tuple(tuple(slots.steps.tolist()) for slots in together.slots))
    assert any(len(set(banks)) > 1 for banks in depths)  # banks did halt at different steps


def test_a_halted_slot_starts_the_next_puzzle_afresh(model):
    """Whatever happened before, a slot that reloads computes what a new one does; the others go on."""
    start = Trajectories(batch(), model.initial_latents(B), 1, "stablemax", torch.full((B, 1), 99))
    list(serial_act(model, start))
    (slots,) = start.slots
    start.slots = [slots._replace(halted=torch.tensor([True, False, True]))]
    other = Batch(batch().inputs.flip(1), batch().labels.flip(1), batch().puzzle_identifiers)
    start.batch = other
    (mixed,) = serial_act(model, start)
    (fresh,) = serial_act(model, Trajectories(other, model.initial_latents(B), 1, "stablemax"))
    torch.testing.assert_close(mixed.total[[0, 2]], fresh.total[[0, 2]])
    assert start.slots[0].steps.tolist() == [1, 2, 1]
    assert torch.equal(start.slots[0].batch.inputs[1], batch().inputs[1])


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_without_a_step_to_continue_with_no_model_learns_to_continue(rollout):
    """As in the published code, whose Q target is computed where halt_max_steps is above 1 alone."""
    for steps, learns in ((1, False), (2, True)):
        model = TINY_HRM | {"halt_max_steps": steps}
        config = tiny_config(model=model, rollout=rollout, train={"optimizer_step": "rollout"})
        trainer = Trainer(config, torch.device("cpu"))
        before = trainer.model.q_head.weight[1].detach().clone()
        trainer.train_step()
        trainer.train_step()
        assert (trainer.model.q_head.weight[1] != before).any().item() is learns

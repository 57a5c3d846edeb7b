"""Operations by formula: those that torch counts, on tensors without data and in real steps."""

import pytest
import torch
from tiny import MULTI, TINY_HRM, TINY_SRM, preset_config, tiny_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rrm.config import TrialConfig
from rrm.flops import flops_of_evaluations, flops_of_training, flops_per_act_step
from rrm.memory import without_data
from rrm.models.losses import row_losses
from rrm.presets import PRESETS
from rrm.train import Trainer

CPU = torch.device("cpu")
SRM_CYCLES = {"H_cycles": 3, "L_cycles": 2, "L_layers": 2}


def counted_without_data(config: TrialConfig) -> tuple[int, int]:
    """Of a row more in an ACT step, with its backward and without."""
    counts = []
    for rows in (2, 4):
        model, latents, batch = without_data(
            config.model.model_dump_json(), rows, config.task.seq_len, config.task.vocab_size
        )
        with FlopCounterMode(display=False) as training:
            _, output = model.act_step(latents, batch)
            row_losses(output, batch.labels, "softmax").total.sum().backward()
        with FlopCounterMode(display=False) as forward, torch.no_grad():
            model.act_step(latents, batch)
        counts.append((training.get_total_flops(), forward.get_total_flops()))
    return (counts[1][0] - counts[0][0]) // 2, (counts[1][1] - counts[0][1]) // 2


CONFIGS = {name: preset_config(name) for name in PRESETS} | {
    "srm, the last of three cycles learns": tiny_config(model=TINY_SRM | SRM_CYCLES | {"grad_cycles": 1}),
    "srm, two of three": tiny_config(model=TINY_SRM | SRM_CYCLES | {"grad_cycles": 2, "learn_kappa": True}),
    "srm, more than there are": tiny_config(model=TINY_SRM | SRM_CYCLES | {"grad_cycles": 4}),
    "one latent, three layers": tiny_config(model={"single_z": True, "L_layers": 3, "L_cycles": 4}),
    "hrm, high and low of other depths": tiny_config(model=TINY_HRM | {"H_layers": 3, "L_layers": 2, "L_cycles": 3}),
    "no puzzle vector": tiny_config(model={"puzzle_emb_ndim": 0, "mlp_t": False, "expansion": 3.0}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_flops_are_those_of_tensors_without_data(name):
    config = CONFIGS[name]
    training, forward = counted_without_data(config)
    assert flops_per_act_step(config) == training + forward * config.model.learns_q_continue  # for its look ahead
    assert flops_of_evaluations(config) == forward * config.evaluation_act_steps


def counted(config, before: int = 1) -> int:
    """Operations of one real training step, after others. Of torch's attention for CPUs it would count none."""
    trainer = Trainer(config, CPU)
    for _ in range(before):
        trainer.train_step()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        trainer.train_step()
    return counter.get_total_flops()


@pytest.mark.parametrize("optimizer_step", ["act", "rollout"])
@pytest.mark.parametrize("model", [{}, {"mlp_t": False, "pos_encodings": "rope"}, TINY_HRM, TINY_SRM])
def test_flops_are_those_of_a_real_step(model, optimizer_step):
    """What a larger batch takes more on real tensors, K rollouts and every ACT step counted."""
    train = {"optimizer_step": optimizer_step}
    small, large = (tiny_config(model=model, train=train | {"batch_size": B}, **MULTI) for B in (4, 12))
    trajectory_steps = (12 - 4) * small.rollouts * small.act_steps_per_batch
    assert (counted(large) - counted(small)) / trajectory_steps == flops_per_act_step(small)


def test_flops_hold_the_pass_that_counts_the_steps():
    """Nothing halts here: act_mask takes every step, and with per_trajectory each once more."""
    train = {"optimizer_step": "rollout", "normalise": "per_trajectory"}
    small, large = (tiny_config(rollout="act_mask", train=train | {"batch_size": B}, **MULTI) for B in (4, 12))
    trajectory_steps = (12 - 4) * small.rollouts * small.act_steps_per_batch
    assert (counted(large) - counted(small)) / trajectory_steps == flops_per_act_step(small)


@pytest.mark.parametrize("optimizer_step", ["act", "rollout"])
def test_flops_hold_the_race(optimizer_step):
    """Of a winner's step those of all three that it raced with, and of HRM's look ahead what is not one of them."""
    winner = {"objective": "winner_perturbed_ce", "perturb": {"sigma": 0.5, "rollouts": 3}}
    kind = {"model": TINY_HRM, "rollout": "parallel_fixed", **winner}
    small, large = (tiny_config(train={"optimizer_step": optimizer_step, "batch_size": B}, **kind) for B in (4, 12))
    steps = large.rows_trained_at(0) - small.rows_trained_at(0)
    assert (counted(large) - counted(small)) / steps == flops_per_act_step(small)


@pytest.mark.parametrize("objective", ["multi_perturbed_ce", "winner_perturbed_ce"])
def test_flops_hold_a_warm_up(objective):
    """A batch of it trains one trajectory a puzzle, and there is no race; a later one is as without it."""
    kind = {"objective": objective, "perturb": {"sigma": 0.5, "rollouts": 3, "warmup_steps": 2}}
    small, large = (tiny_config(train={"optimizer_step": "rollout", "batch_size": B}, **kind) for B in (4, 12))

    def spent(config, steps: int) -> int:
        return flops_of_training(config, steps, sum(map(config.rows_trained_at, range(steps))))

    for step in (1, 2):
        more = [spent(config, step + 1) - spent(config, step) for config in (large, small)]
        assert counted(large, step) - counted(small, step) == more[0] - more[1]
    assert more[1] > 2.3 * spent(small, 1)

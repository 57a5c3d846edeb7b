"""Exact resume, sigma 0, and divergence: what every result of this project rests on."""

import json
import subprocess
import sys

import pytest
import torch
from tiny import MULTI, TINY_HRM, TINY_SRM, tiny_config

from rrm import checkpoint
from rrm.checkpoint import CheckpointError, serialise, write_atomically
from rrm.config import TrialConfig
from rrm.train import DivergedError, Trainer, set_up_torch

CPU = torch.device("cpu")
SINGLE = {"objective": "single_perturbed_ce", "perturb": {"sigma": 0.5}}
KINDS = {
    "clean": {},
    "single": SINGLE,
    "multi": MULTI,
    "one optimizer step a rollout": MULTI | {"train": {"optimizer_step": "rollout"}},
    "attention, cosine": {"model": {"mlp_t": False, "pos_encodings": "rope"}, "optim": {"min_lr_ratio": 0.1}} | SINGLE,
}
KINDS |= {
    "hrm": {"model": TINY_HRM} | MULTI,
    "srm": {"model": TINY_SRM | {"learn_kappa": True}} | SINGLE,
    "serial_act, exploring": {"rollout": "serial_act", "model": {"halt_max_steps": 5}} | MULTI,
    "hrm, serial_act, adamw": {"rollout": "serial_act", "model": TINY_HRM, "optim": {"optimizer": "adamw"}} | SINGLE,
}
FIRST, LAST = 5, 12  # between two evaluations, and the end

GO_ON = """
import json, sys, torch
from rrm import checkpoint
from rrm.config import TrialConfig
from rrm.train import Trainer, set_up_torch
set_up_torch(1)
for path, config in json.loads(sys.argv[1]).items():
    trainer = Trainer(TrialConfig.model_validate(config), torch.device("cpu"))
    trainer.load_state_dict(checkpoint.load(path))
    trainer.train_until(int(sys.argv[2]))
    open(path, "wb").write(checkpoint.serialise(trainer.state_dict()))
"""


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


def trained(config: TrialConfig, step: int) -> Trainer:
    trainer = Trainer(config, CPU)
    trainer.train_until(step)
    return trainer


def assert_same_bits(a, b, where="state") -> None:
    """Two states are equal in every tensor's bits and every value; time spent is not part of a result."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds"}:
            assert_same_bits(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same_bits(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def test_resumed_in_a_new_process_is_bit_identical_to_unbroken(tmp_path):
    configs = {str(tmp_path / f"{kind}.pt"): tiny_config(**changes) for kind, changes in KINDS.items()}
    unbroken = {path: trained(config, LAST) for path, config in configs.items()}
    for path, config in configs.items():
        trainer = Trainer(config, CPU)
        trainer.train_until(FIRST)
        with open(path, "wb") as file:
            file.write(serialise(trainer.state_dict()))
    arguments = json.dumps({path: config.model_dump(mode="json") for path, config in configs.items()})
    subprocess.run([sys.executable, "-c", GO_ON, arguments, str(LAST)], check=True, timeout=120)
    for path, trainer in unbroken.items():
        resumed = checkpoint.load(path)
        assert resumed["step"] == LAST
        assert [row["step"] for row in resumed["history"] if row["sigma"] == 0] == [0, 0, 4, 4, 8, 8, 12, 12]
        assert_same_bits(resumed, checkpoint.load(_saved(trainer, tmp_path)), path)


def _saved(trainer: Trainer, folder) -> str:
    path = folder / "unbroken.pt"
    write_atomically(path, serialise(trainer.state_dict()))
    return str(path)


def test_a_resumed_trainer_sees_the_same_next_batch():
    config = tiny_config(**MULTI)
    first = trained(config, FIRST)
    second = Trainer(config, CPU)
    second.load_state_dict(first.state_dict())
    batches = [t.data.train_batch(config.seed, t.step, config.train.batch_size) for t in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_stopping_between_steps_changes_nothing():
    config = tiny_config(**MULTI)
    trainer = Trainer(config, CPU)
    for step in range(LAST):
        assert trainer.step == step
        trainer.train_until(LAST, stop=lambda: True)
    assert_same_bits(trainer.state_dict(), trained(config, LAST).state_dict())


def test_sigma_zero_gives_the_clean_runs_bits():
    clean = trained(tiny_config(), LAST).state_dict()
    zero = trained(tiny_config(objective="single_perturbed_ce", perturb={"sigma": 0.0}), LAST).state_dict()
    assert clean.pop("trial_id") != zero.pop("trial_id")
    assert_same_bits(clean, zero)
    noisy = trained(tiny_config(**SINGLE), LAST).state_dict()
    assert not torch.equal(clean["model"]["lm_head.weight"], noisy["model"]["lm_head.weight"])


def test_seeds_differ_in_weights_and_order():
    a, b = (Trainer(tiny_config(seed=seed), CPU) for seed in (0, 1))
    assert not torch.equal(a.model.lm_head.weight, b.model.lm_head.weight)
    assert not torch.equal(a.data.train_batch(0, 0, 4).inputs, b.data.train_batch(1, 0, 4).inputs)
    assert torch.equal(a.eval_batches["test"].inputs, b.eval_batches["test"].inputs)


def test_more_steps_are_the_same_trial_unless_the_schedule_depends_on_them():
    longer = {"train": {"steps": 16}}
    assert tiny_config().trial_id() == tiny_config(**longer).trial_id()
    cosine = {"optim": {"min_lr_ratio": 0.1}}
    assert tiny_config(**cosine).trial_id() != tiny_config(**cosine, **longer).trial_id()


def test_history_says_what_was_trained_and_measured():
    config = tiny_config(**MULTI)
    trainer = trained(config, LAST)
    assert len(trainer.history) == 4 * 2 * 2  # steps 0, 4, 8, 12; two splits; clean and one sigma
    row = trainer.history[-1]
    assert (row["split"], row["sigma"], row["rollouts"], row["n"]) == ("test", 0.5, 2, 8)
    assert row["optimizer_steps"] == LAST * config.model.halt_max_steps
    assert row["act_steps"] == LAST * 4 * 2 * config.model.halt_max_steps
    assert row["all_exact_accuracy"] <= row["exact_accuracy"]
    assert len(row["correct"]) == 2  # 8 examples x 2 rollouts, in bits
    assert trainer.best is not None


def test_perturbed_evaluation_is_the_same_for_every_arm():
    """Only the weights may differ: the untrained clean and perturbed trials evaluate to the same bits."""
    clean, multi = trained(tiny_config(), 0), trained(tiny_config(**MULTI), 0)
    assert_same_bits(clean.history, multi.history)


def test_a_diverging_loss_is_named_with_its_step():
    trainer = trained(tiny_config(), 4)
    with torch.no_grad():
        trainer.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="the training loss is NaN at step 5"):
        trainer.train_until(LAST)


def test_a_state_of_another_trial_is_refused_and_changes_nothing():
    trainer, other = trained(tiny_config(), 3), trained(tiny_config(seed=1), 4)
    before = serialise(trainer.state_dict())
    with pytest.raises(CheckpointError, match=f"a state of trial {other.trial_id}, not of {trainer.trial_id}"):
        trainer.load_state_dict(other.state_dict())
    assert serialise(trainer.state_dict()) == before


def test_evaluation_uses_the_averaged_weights_and_leaves_the_others_alone():
    trainer = trained(tiny_config(), 4)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    averaged = trainer.weights()
    trainer.evaluate()
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())
    assert not torch.equal(averaged["lm_head.weight"], before["lm_head.weight"])
    assert torch.equal(averaged["lm_head.weight"], trainer.ema.shadow["lm_head.weight"])

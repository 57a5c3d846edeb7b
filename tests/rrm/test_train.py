"""Exact resume, and divergence: what every result of this project rests on."""

import json
import subprocess
import sys

import pytest
import torch
from tiny import MULTI, TINY_HRM, TINY_SRM, tiny_config

from results.schema import EVALS_SCHEMA
from results.storage import write_atomically
from rrm import checkpoint
from rrm.checkpoint import CheckpointError, serialise
from rrm.config import TrialConfig
from rrm.rollout import ROLLOUTS
from rrm.streams import normals, torch_generator
from rrm.torch_setup import set_up_torch
from rrm.train import DivergedError, Trainer

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
    "shards": MULTI | {"train": {"shards": 4}},
    "shards, serial_act": {"rollout": "serial_act", "model": {"halt_max_steps": 5}, "train": {"shards": 2}} | MULTI,
    "act_mask": {"rollout": "act_mask", "train": {"optimizer_step": "rollout"}} | SINGLE,
    "hrm, serial_act, adamw": {"rollout": "serial_act", "model": TINY_HRM, "optim": {"optimizer": "adamw"}} | SINGLE,
}
BFLOAT16, TENSORFLOAT32 = ({"train": {"forward_dtype": dtype}} for dtype in ("bfloat16", "tensorfloat32"))
KINDS |= {
    "bfloat16": MULTI | BFLOAT16,
    "bfloat16, hrm, serial_act": {"rollout": "serial_act", "model": TINY_HRM} | SINGLE | BFLOAT16,
    "bfloat16, srm": {"model": TINY_SRM} | SINGLE | BFLOAT16,
    "tensorfloat32": {"model": {"mlp_t": False, "pos_encodings": "rope"}} | MULTI | TENSORFLOAT32,
}
FIRST, LAST = 5, 12  # between two evaluations, and the end
ROLLOUT_STEP = {"optimizer_step": "rollout"}
SCHEDULES = {
    "ramp": {"sigma": 0.5, "ramp_steps": 8},
    "warm-up and ramp": {"sigma": 0.5, "warmup_steps": 2, "ramp_steps": 6},
    "log-uniform": {"sampling": "loguniform", "sigma": [0.1, 1.0], "ramp_steps": 8},
    "band": {"sampling": "band", "sigma": 0.5, "warmup_steps": 1, "ramp_steps": 9, "where": ["z_L"]},
    "mixture, pairs": {"sigma": 0.5, "p_clean": 0.4, "ramp_steps": 8, "antithetic": True},
    "rms, an example": {"sampling": "band", "sigma": 0.5, "scale": "rms", "sigma_per": "example", "ramp_steps": 8},
}

GO_ON = """
import json, sys, torch
from rrm import checkpoint
from rrm.config import TrialConfig
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer
set_up_torch(1)
for path, config in sorted(json.loads(sys.argv[1]).items(), key=lambda item: "adamw" in item[0]):
    trainer = Trainer(TrialConfig.model_validate(config), torch.device("cpu"))
    trainer.load_state_dict(checkpoint.load(path))
    trainer.train_until(int(sys.argv[2]))
    open(path, "wb").write(checkpoint.serialise(trainer.state_dict()))
    # torch's compiler, which nobody asked for, takes as long to import as all else; torch's own AdamW does import it.
    assert "adamw" in path or "torch._dynamo" not in sys.modules
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


def halting(trainer: Trainer) -> Trainer:
    """With a halting head that says yes half of the time, where an untrained one never does."""
    torch.nn.init.normal_(trainer.model.q_head.weight, generator=torch_generator(0, "q_head"))
    torch.nn.init.zeros_(trainer.model.q_head.bias)
    return trainer


@pytest.mark.parametrize(("schedule", "rollout"), list(zip(SCHEDULES, 2 * list(ROLLOUTS), strict=True)))
def test_a_resume_in_the_middle_of_a_ramp_is_bit_identical(schedule, rollout, tmp_path):
    perturb = SCHEDULES[schedule]
    if rollout == "serial_act":  # which refuses what trajectories would have to share
        perturb = {name: value for name, value in perturb.items() if name not in ("antithetic", "sigma_per")}
    config = tiny_config(
        objective="multi_perturbed_ce",
        perturb={"rollouts": 3} | perturb,
        rollout=rollout,
        model={"halt_max_steps": 4},
        train=ROLLOUT_STEP if rollout == "act_mask" else {},
    )
    assert 0 < config.perturb.ramp(FIRST) < 1
    unbroken, broken = (halting(Trainer(config, CPU)) for _ in range(2))
    broken.train_until(FIRST)
    _saved(broken, tmp_path)
    resumed = Trainer(config, CPU)
    resumed.load_state_dict(checkpoint.load(tmp_path / "unbroken.pt"))
    for trainer in (unbroken, resumed):
        trainer.train_until(LAST)
    assert_same_bits(resumed.state_dict(), unbroken.state_dict())
    columns = [unbroken.history[-1][name] for name in ("train_sigma", "noise_rms_z_L", "train_loss")]
    assert all(value > 0 for value in columns)
    if rollout == "act_mask":
        assert LAST * 4 * 3 < unbroken.act_steps < LAST * 4 * 3 * 4  # some did halt early
    if rollout == "serial_act":
        assert len({int(step) for slots in unbroken.state_dict()["slots"] for step in slots["steps"]}) > 1


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


NOISE_COLUMNS = ("train_sigma", "noise_rms_z_H", "noise_rms_z_L")


def test_history_says_which_noise_was_really_there():
    """From the evaluation before: the mean over steps and perturbed trajectories, of sigma and of each one's RMS."""
    perturb = {"sigma": 0.5, "rollouts": 3, "where": ["z_L"], "warmup_steps": 2, "ramp_steps": 4}
    config = tiny_config(objective="multi_perturbed_ce", perturb=perturb)
    trainer = trained(config, 8)
    first, middle, last = trainer.history[0], trainer.history[4], trainer.history[8]
    assert not set(NOISE_COLUMNS) & set(first)
    assert (middle["step"], last["step"]) == (4, 8)
    for row, shares in ((middle, [0, 0, 0.25, 0.5]), (last, [0.75, 1, 1, 1])):
        rms = [
            0.5 * share * normals(0, "perturb.z_L", step, range(4), k, (17, 8), CPU).square().mean((1, 2)).sqrt().mean()
            for step, share in enumerate(shares, row["step"] - 4)
            for k in (1, 2)
        ]
        assert row["train_sigma"] == pytest.approx(0.5 * sum(shares) / 4, rel=1e-12)
        assert row["noise_rms_z_L"] == pytest.approx(float(sum(rms)) / 8, rel=1e-5)
        assert row["noise_rms_z_H"] == 0
    assert all(set(row) <= set(EVALS_SCHEMA.names) for row in trainer.history)
    assert not set(NOISE_COLUMNS) & set(trained(tiny_config(), 4).history[-1])


def test_trials_keep_their_names():
    # Written down once: a new field must not give the trials of old sweeps another name.
    kinds = ("clean", "single", "multi", "hrm", "serial_act, exploring")
    ids = ["580072ca4764", "9eb865c56638", "7a66e8a512de", "0e6e55da3b67", "9e79c7c5538f"]
    assert [tiny_config(**KINDS[kind]).trial_id() for kind in kinds] == ids
    spelled_out = MULTI | {"perturb": MULTI["perturb"] | {"sampling": "fixed", "ramp_steps": 0, "p_clean": 0.0}}
    assert tiny_config(**spelled_out).trial_id() == ids[2]
    ramped = MULTI | {"perturb": MULTI["perturb"] | {"ramp_steps": 1}}
    assert tiny_config(**ramped).trial_id() != ids[2]


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


@pytest.mark.parametrize("before", ["an evaluation", "a save"])
def test_a_loss_that_is_read_late_stops_what_it_should_have_stopped(before):
    """As on a GPU: its step is named though others followed, and nothing is evaluated or saved after it."""
    trainer = trained(tiny_config(), 4)
    trainer.later = 4
    trainer.train_step()
    with torch.no_grad():
        trainer.model.lm_head.weight.fill_(float("nan"))
    evaluations = len(trainer.history)
    with pytest.raises(DivergedError, match="the training loss is NaN at step 6"):
        trainer.train_until(LAST) if before == "an evaluation" else (trainer.train_step(), trainer.state_dict())
    assert len(trainer.history) == evaluations


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

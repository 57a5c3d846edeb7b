"""What autograd keeps, counted without data, is held to what torch's allocator says; shards that fit are said."""

import pytest
import torch
from tiny import TINY_HRM, TINY_SRM, preset_config, tiny_config

from rrm.memory import FREE_SHARE, fits, kept_bytes, needed_bytes, shards_that_fit, too_large
from rrm.models.losses import row_losses
from rrm.presets import PRESETS
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

WIDE = {"hidden_size": 64, "expansion": 4.0, "L_layers": 2, "puzzle_emb_ndim": 64}
MODELS = {
    "mlp": WIDE,
    "attention": WIDE | {"mlp_t": False, "pos_encodings": "rope"},
    "hrm": WIDE | TINY_HRM,
    "srm": WIDE | TINY_SRM,
}
CASES = [(name, "float32") for name in MODELS] + [("mlp", "bfloat16"), ("srm", "bfloat16")]


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_kept_bytes_are_those_that_an_act_step_allocates(name, dtype):
    config = tiny_config(
        task={"box": 3, "generate": {"puzzles": 128, "blanks": 6}},
        model=MODELS[name],
        train={"batch_size": 64, "forward_dtype": dtype},
    )
    trainer = Trainer(config, torch.device("cpu"))
    batch, z0 = trainer.data.train_batch(0, 0, 64), trainer.model.initial_latents(64)
    trainer.model.act_step(z0, batch)  # what the first step alone allocates, does not count
    with torch.profiler.profile(profile_memory=True) as profile:
        latents, output = trainer.model.act_step(z0, batch)
        losses = row_losses(output, batch.labels, "stablemax")
    measured = sum(event.self_cpu_memory_usage for event in profile.key_averages())
    own = sum(x.untyped_storage().nbytes() for x in (*latents.values(), *output, losses.predicted))
    assert kept_bytes(config) == pytest.approx(measured - own, rel=0.2)


def test_shards_and_rollouts_scale_what_is_kept():
    def kept(rollouts=1, sigma=0.1, **train):
        multi = {"objective": "multi_perturbed_ce", "perturb": {"sigma": sigma, "rollouts": rollouts}}
        return kept_bytes(tiny_config(train={"batch_size": 64} | train, **(multi if rollouts > 1 else {})))

    assert kept() == kept(rollouts=4, sigma=0.0)  # one trajectory is trained
    assert kept() == 8 * kept(shards=8) == kept(rollouts=4, shards=4)
    steps = {"optimizer_step": "rollout"}
    assert kept_bytes(tiny_config(model=TINY_HRM, train=steps)) == 2 * kept_bytes(tiny_config(model=TINY_HRM))


def test_compiled_blocks_need_more():
    """Measured on an H100 with torch 2.11 (tests/benchmarks/gpu.py): eager, compiled, in GB."""
    measured = {
        "sudoku-extreme-trm-mlp": (13.5, 17.7),
        "sudoku-extreme-trm-att": (21.5, 25.4),
        "sudoku-extreme-hrm": (6.4, 7.3),
        "maze-hard-trm": (21.4, 24.6),
    }
    for name, gigabytes in measured.items():
        for compiled, found in zip((False, True), gigabytes, strict=True):
            config = preset_config(name, train={"compile": compiled})
            assert needed_bytes(config) / 1e9 == pytest.approx(found, rel=0.2), (name, compiled)


def test_what_does_not_fit_is_told_the_number_of_shards_that_does():
    config = tiny_config(train={"batch_size": 64})
    floor = needed_bytes(tiny_config(train={"batch_size": 64, "shards": 64}))
    memory = int(needed_bytes(tiny_config(train={"batch_size": 64, "shards": 4})) / (1 - FREE_SHARE)) + 1
    assert not fits(config, memory)
    assert shards_that_fit(config, memory) == 4
    text = (
        r"train.shards: 1 needs about [\d.e-]+ GB of a GPU's memory and this one has [\d.e-]+ GB; set train.shards: 4"
    )
    assert __import__("re").fullmatch(text, too_large(config, memory))
    assert shards_that_fit(config, floor // 2) is None
    assert too_large(config, floor // 2).endswith("take a smaller train.batch_size")
    assert "set train.shards: 2" in too_large(config, 10**12, tried=True)


def test_published_presets_fit_a_gpu_of_24_gb():
    for name in PRESETS:
        if name.startswith(("sudoku-extreme", "maze-hard")):
            config = preset_config(name)
            assert shards_that_fit(config, 24 * 10**9) == config.train.shards, name

"""Every preset is a valid trial; the small ones train; the published ones have the published sizes."""

import pytest
import torch
from tiny import preset_config

from rrm.models import build_model
from rrm.presets import PRESETS
from rrm.streams import torch_generator
from rrm.train import Trainer


@pytest.mark.parametrize("name", [name for name in PRESETS if "generate" in PRESETS[name]["task"]])
def test_small_presets_lower_the_loss(name):
    task = {"generate": {"puzzles": 8} | ({"blanks": 4} if "sudoku" in name else {})}
    small = {"batch_size": 8, "steps": 20}
    trainer = Trainer(preset_config(name, task=task, train=small, eval={"n": 4, "every": 20}), torch.device("cpu"))
    trainer.train_until(20)
    losses = trainer.history[-1]["train_loss"], trainer.history[0]["lm_loss"]
    assert losses[0] < losses[1]
    assert trainer.history[-1]["token_accuracy"] > 2 * trainer.history[0]["token_accuracy"]


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("sudoku-extreme-trm-mlp", 5.0),
        ("sudoku-extreme-trm-att", 6.8),
        ("sudoku-extreme-hrm", 27.3),
        ("maze-hard-trm", 6.8),
        ("maze-hard-hrm", 27.3),
    ],
)
def test_published_presets_have_the_published_sizes(name, millions):
    config = preset_config(name)
    task = config.task
    with torch.device("meta"):
        built = build_model(
            config.model,
            seq_len=task.seq_len,
            vocab_size=task.vocab_size,
            num_puzzles=1,
            generator=torch_generator(0, "init"),
        )
    assert sum(p.numel() for p in built.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_every_preset_is_a_valid_trial():
    assert len({preset_config(name).model_dump_json() for name in PRESETS}) == len(PRESETS)

"""The architectures: one file each, one line each in MODELS."""

import torch

from rrm.models.trm import TRM, TRMConfig

MODELS = {"trm": TRM}


def build_model(
    config: TRMConfig, *, seq_len: int, vocab_size: int, num_puzzles: int, generator: torch.Generator
) -> TRM:
    """A model on the CPU in float32, its weights drawn from `generator`."""
    return MODELS[config.arch](config, seq_len, vocab_size, num_puzzles, generator)

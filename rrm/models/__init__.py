"""The architectures: one file each, one line each in MODELS, and a place in ModelConfig."""

from typing import Annotated, Any

import torch
from pydantic import Discriminator, Tag, TypeAdapter

from rrm.models.base import BaseModel
from rrm.models.hrm import HRM, HRMConfig
from rrm.models.srm import SRM, SRMConfig
from rrm.models.trm import TRM, TRMConfig

MODELS: dict[str, type[BaseModel]] = {"trm": TRM, "hrm": HRM, "srm": SRM}


def _arch(value: Any) -> Any:
    return value.get("arch", "trm") if isinstance(value, dict) else getattr(value, "arch", None)


ModelConfig = Annotated[
    Annotated[TRMConfig, Tag("trm")] | Annotated[HRMConfig, Tag("hrm")] | Annotated[SRMConfig, Tag("srm")],
    Discriminator(_arch),
]
MODEL_CONFIG: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)


def build_model(
    config: ModelConfig, *, seq_len: int, vocab_size: int, num_puzzles: int, generator: torch.Generator
) -> BaseModel:
    """A model on the CPU in float32, its weights drawn from `generator`."""
    return MODELS[config.arch](config, seq_len, vocab_size, num_puzzles, generator)  # pyright: ignore[reportCallIssue]

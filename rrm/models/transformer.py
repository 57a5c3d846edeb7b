"""What HRM and TRM share beyond the base: latent updates by stacks of post-norm blocks, and rotary tables."""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rrm.models.base import BaseConfig, BaseModel
from rrm.models.layers import Block, ReasoningModule, rotary_tables


class TransformerConfig(BaseConfig):
    """Fields of the blocks, under their published names."""

    num_heads: int = Field(default=8, ge=1)
    expansion: float = Field(default=4.0, gt=0)
    pos_encodings: Literal["rope", "learned", "none"] = "rope"
    rope_theta: float = Field(default=10000.0, gt=0)
    rms_norm_eps: float = Field(default=1e-5, gt=0)

    @property
    def mixes_by_mlp(self) -> bool:
        """Whether tokens are mixed by a SwiGLU over positions in place of attention."""
        return False

    @model_validator(mode="after")
    def _heads_divide(self) -> "TransformerConfig":
        if not self.mixes_by_mlp and self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size: {self.hidden_size} does not divide into num_heads {self.num_heads} heads of even size; "
                f"use a multiple of {2 * self.num_heads}"
            )
        return self


class TransformerModel(BaseModel):
    """A model whose latent updates are stacks of blocks."""

    block = Block
    carries_tangents = True
    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(
        self, config: TransformerConfig, seq_len: int, vocab_size: int, num_puzzles: int, generator: torch.Generator
    ) -> None:
        super().__init__(
            config,
            seq_len=seq_len,
            vocab_size=vocab_size,
            num_puzzles=num_puzzles,
            learned_positions=config.pos_encodings == "learned",
            generator=generator,
        )
        self.has_rotary = config.pos_encodings == "rope" and not config.mixes_by_mlp
        if self.has_rotary:
            cos, sin = rotary_tables(self.positions, config.hidden_size // config.num_heads, config.rope_theta)
            self.register_buffer("rope_cos", cos, persistent=False)
            self.register_buffer("rope_sin", sin, persistent=False)

    @property
    def rotary(self) -> tuple[Tensor, Tensor] | None:
        """cos and sin for the attention of every block, None without rotary positions."""
        return (self.rope_cos, self.rope_sin) if self.has_rotary else None

    def stack(self, config: TransformerConfig, num_layers: int, generator: torch.Generator) -> ReasoningModule:
        """A new stack of `num_layers` blocks."""
        return ReasoningModule(
            [
                Block(
                    hidden_size=config.hidden_size,
                    num_heads=config.num_heads,
                    expansion=config.expansion,
                    positions=self.positions,
                    mlp_t=config.mixes_by_mlp,
                    eps=config.rms_norm_eps,
                    generator=generator,
                )
                for _ in range(num_layers)
            ]
        )

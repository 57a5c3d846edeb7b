"""HRM, the Hierarchical Reasoning Model (Wang et al., arXiv 2506.21734)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rrm.models.act import AfterUpdate, Latents, unchanged
from rrm.models.transformer import TransformerConfig, TransformerModel


class HRMConfig(TransformerConfig):
    """HRM's own fields: layers of the high and of the low module."""

    arch: Literal["hrm"]
    H_layers: int = Field(default=4, ge=1)
    L_layers: int = Field(default=4, ge=1)

    @property
    def learns_q_continue(self) -> bool:
        """Halting is learned by Q-learning over halt and continue, where there is a step to continue with."""
        return self.halt_max_steps > 1


class HRM(TransformerModel):
    """Separate modules for the high and the low latent.

    Only the last low update and the last high update of an ACT step carry gradient (the one-step approximation).
    """

    def __init__(
        self, config: HRMConfig, seq_len: int, vocab_size: int, num_puzzles: int, generator: torch.Generator
    ) -> None:
        super().__init__(config, seq_len, vocab_size, num_puzzles, generator)
        self.H_cycles, self.L_cycles = config.H_cycles, config.L_cycles
        self.H_level = self.stack(config, config.H_layers, generator)
        self.L_level = self.stack(config, config.L_layers, generator)

    def reason(self, latents: Latents, embedding_BND: Tensor, after_update: AfterUpdate = unchanged) -> Latents:
        """H_cycles cycles of L_cycles low updates and one high update; gradient through the last of each."""
        z_H, z_L = latents["z_H"], latents["z_L"]
        with torch.no_grad():
            for cycle in range(1, self.H_cycles + 1):
                is_last = cycle == self.H_cycles
                injection = z_H + embedding_BND
                for _ in range(self.L_cycles - is_last):
                    z_L = after_update("z_L", self.L_level(z_L, injection, self.rotary))
                if not is_last:
                    z_H = after_update("z_H", self.H_level(z_H, z_L, self.rotary))
        z_L = after_update("z_L", self.L_level(z_L, z_H + embedding_BND, self.rotary))
        return {"z_H": after_update("z_H", self.H_level(z_H, z_L, self.rotary)), "z_L": z_L}

"""TRM, the Tiny Recursive Model (Jolicoeur-Martineau, "Less is more", arXiv 2510.04871): attention, MLP, single-z."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rrm.models.act import AfterUpdate, Latents, unchanged
from rrm.models.transformer import TransformerConfig, TransformerModel


class TRMConfig(TransformerConfig):
    """TRM's own fields. `mlp_t` mixes tokens by a SwiGLU over positions in place of attention.

    `single_z` keeps one latent, z_L. `no_ACT_continue: false` adds the Q-learning target of HRM.
    """

    arch: Literal["trm"] = "trm"
    L_layers: int = Field(default=2, ge=1)
    mlp_t: bool = False
    single_z: bool = False
    no_ACT_continue: bool = True

    @property
    def mixes_by_mlp(self) -> bool:
        """As `mlp_t` says."""
        return self.mlp_t

    @property
    def latent_names(self) -> tuple[str, ...]:
        """One latent or two."""
        return ("z_L",) if self.single_z else ("z_H", "z_L")

    @property
    def learns_q_continue(self) -> bool:
        """Only if asked, and where there is a step to continue with."""
        return not self.no_ACT_continue and self.halt_max_steps > 1


class TRM(TransformerModel):
    """One shared module updates both latents: L_cycles low updates and one high update make an H cycle.

    Only the last H cycle of an ACT step carries gradient, the whole of it.
    """

    def __init__(
        self, config: TRMConfig, seq_len: int, vocab_size: int, num_puzzles: int, generator: torch.Generator
    ) -> None:
        super().__init__(config, seq_len, vocab_size, num_puzzles, generator)
        self.H_cycles, self.L_cycles, self.single_z = config.H_cycles, config.L_cycles, config.single_z
        self.L_level = self.stack(config, config.L_layers, generator)

    def reason(self, latents: Latents, embedding_BND: Tensor, after_update: AfterUpdate = unchanged) -> Latents:
        """H_cycles - 1 cycles without gradient, then one with."""
        with torch.no_grad():
            for _ in range(self.H_cycles - 1):
                latents = self._H_cycle(latents, embedding_BND, after_update)
        return self._H_cycle(latents, embedding_BND, after_update)

    def _H_cycle(self, latents: Latents, embedding: Tensor, after_update: AfterUpdate) -> Latents:
        z_L = latents["z_L"]
        if self.single_z:
            for _ in range(self.L_cycles):
                z_L = after_update("z_L", self.L_level(z_L, embedding, self.rotary))
            return {"z_L": after_update("z_L", self.L_level(z_L, None, self.rotary))}
        z_H = latents["z_H"]
        injection = z_H + embedding
        for _ in range(self.L_cycles):
            z_L = after_update("z_L", self.L_level(z_L, injection, self.rotary))
        return {"z_H": after_update("z_H", self.L_level(z_H, z_L, self.rotary)), "z_L": z_L}

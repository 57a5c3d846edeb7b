"""TRM, the Tiny Recursive Model (Jolicoeur-Martineau, "Less is more", arXiv 2510.04871): attention, MLP, single-z."""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from rrm.models.act import Batch, Latents, StepOutput
from rrm.models.layers import Block, Embedding, Linear, ReasoningModule, rotary_tables, truncated_normal
from rrm.models.losses import TokenLoss
from rrm.models.puzzle_embedding import PuzzleEmbedding
from rrm.settings import Settings

Q_HEAD_BIAS = -5.0


class TRMConfig(Settings):
    """The published names. `puzzle_emb_len` 0 takes as many prefix positions as `puzzle_emb_ndim` needs.

    `single_z` keeps one latent, z_L. `no_ACT_continue: false` adds the Q-learning target of HRM.
    """

    arch: Literal["trm"] = "trm"
    hidden_size: int = Field(ge=2)
    num_heads: int = Field(default=8, ge=1)
    expansion: float = Field(default=4.0, gt=0)
    H_cycles: int = Field(ge=1)
    L_cycles: int = Field(ge=1)
    L_layers: int = Field(default=2, ge=1)
    mlp_t: bool = False
    pos_encodings: Literal["rope", "learned", "none"] = "rope"
    rope_theta: float = Field(default=10000.0, gt=0)
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    puzzle_emb_ndim: int = Field(default=0, ge=0)
    puzzle_emb_len: int = Field(default=0, ge=0)
    single_z: bool = False
    no_ACT_continue: bool = True
    halt_max_steps: int = Field(default=16, ge=1)
    token_loss: TokenLoss = "stablemax"

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The locations that noise can be added to."""
        return ("z_L",) if self.single_z else ("z_H", "z_L")

    @property
    def prefix_positions(self) -> int:
        """Positions that the puzzle vector takes before the tokens."""
        return self.puzzle_emb_len or -(-self.puzzle_emb_ndim // self.hidden_size)

    @model_validator(mode="after")
    def _sizes_fit(self) -> "TRMConfig":
        if not self.mlp_t and self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size: {self.hidden_size} does not divide into num_heads {self.num_heads} heads of even size; "
                f"use a multiple of {2 * self.num_heads}"
            )
        if self.puzzle_emb_len and not 0 < self.puzzle_emb_ndim <= self.puzzle_emb_len * self.hidden_size:
            raise ValueError(
                f"puzzle_emb_ndim: {self.puzzle_emb_ndim} does not fill 1 to {self.puzzle_emb_len * self.hidden_size} "
                "places (puzzle_emb_len * hidden_size); change one of the three"
            )
        return self


class TRM(nn.Module):
    """One shared module updates both latents: L_cycles low updates and one high update make an H cycle.

    Only the last H cycle of an ACT step carries gradient.
    """

    H_init: Tensor
    L_init: Tensor
    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(
        self, config: TRMConfig, seq_len: int, vocab_size: int, num_puzzles: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config = config
        self.latent_names = config.latent_names
        self.halt_max_steps = config.halt_max_steps
        self.learns_q_continue = not config.no_ACT_continue
        D, P = config.hidden_size, config.prefix_positions
        N = P + seq_len
        self.embed_tokens = Embedding(vocab_size, D, generator)
        self.embed_pos = Embedding(N, D, generator) if config.pos_encodings == "learned" else None
        self.puzzle_emb = PuzzleEmbedding(num_puzzles, config.puzzle_emb_ndim) if config.puzzle_emb_ndim else None
        self.L_level = ReasoningModule(
            [
                Block(
                    hidden_size=D,
                    num_heads=config.num_heads,
                    expansion=config.expansion,
                    positions=N,
                    mlp_t=config.mlp_t,
                    eps=config.rms_norm_eps,
                    generator=generator,
                )
                for _ in range(config.L_layers)
            ]
        )
        self.lm_head = Linear(D, vocab_size, generator)
        self.q_head = nn.Linear(D, 2)
        nn.init.zeros_(self.q_head.weight)
        nn.init.constant_(self.q_head.bias, Q_HEAD_BIAS)
        for name in config.latent_names:
            self.register_buffer(f"{name[-1]}_init", truncated_normal((D,), 1.0, generator))
        self.rotary = config.pos_encodings == "rope" and not config.mlp_t
        if self.rotary:
            cos, sin = rotary_tables(N, D // config.num_heads, config.rope_theta)
            self.register_buffer("rope_cos", cos, persistent=False)
            self.register_buffer("rope_sin", sin, persistent=False)
        self.positions = N

    def initial_latents(self, batch_size: int) -> Latents:
        """H_init and L_init repeated over rows and positions: views [B, N, D]."""
        return {
            name: getattr(self, f"{name[-1]}_init").expand(batch_size, self.positions, -1) for name in self.latent_names
        }

    def _embed(self, batch: Batch) -> Tensor:
        D, P = self.config.hidden_size, self.config.prefix_positions
        embedding = self.embed_tokens(batch.inputs)
        if self.puzzle_emb is not None:
            puzzle = self.puzzle_emb(batch.puzzle_identifiers)
            puzzle = nn.functional.pad(puzzle, (0, P * D - puzzle.shape[-1])).view(-1, P, D)
            embedding = torch.cat((puzzle, embedding), dim=1)
        if self.embed_pos is not None:
            embedding = 0.707106781 * (embedding + self.embed_pos.embedding_weight)
        return embedding * D**0.5

    def _H_cycle(self, latents: Latents, embedding: Tensor) -> Latents:
        rotary = (self.rope_cos, self.rope_sin) if self.rotary else None
        z_L = latents["z_L"]
        if self.config.single_z:
            for _ in range(self.config.L_cycles):
                z_L = self.L_level(z_L, embedding, rotary)
            return {"z_L": self.L_level(z_L, None, rotary)}
        z_H = latents["z_H"]
        injection = z_H + embedding
        for _ in range(self.config.L_cycles):
            z_L = self.L_level(z_L, injection, rotary)
        return {"z_H": self.L_level(z_H, z_L, rotary), "z_L": z_L}

    def act_step(self, latents: Latents, batch: Batch) -> tuple[Latents, StepOutput]:
        """H_cycles cycles, the last with gradient. latents [B, N, D] each, batch of B rows."""
        embedding = self._embed(batch)
        with torch.no_grad():
            for _ in range(self.config.H_cycles - 1):
                latents = self._H_cycle(latents, embedding)
        latents = self._H_cycle(latents, embedding)
        answer = latents[self.latent_names[0]]
        q_logits = self.q_head(answer[:, 0]).float()
        output = StepOutput(self.lm_head(answer[:, self.config.prefix_positions :]), q_logits[:, 0], q_logits[:, 1])
        return {name: z.detach() for name, z in latents.items()}, output

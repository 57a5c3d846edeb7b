"""What HRM, TRM and SRM share: input embedding, initial latents, heads, and the shape of an ACT step."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar
from weakref import proxy

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rrm.models.act import AfterUpdate, Batch, Latents, StepOutput, unchanged
from rrm.models.cuda_graphs import GraphedRecursion
from rrm.models.layers import Embedding, Linear, truncated_normal
from rrm.models.losses import TokenLoss
from rrm.models.products import ForwardDtype, rounded, tensorfloat32_products
from rrm.models.puzzle_embedding import PuzzleEmbedding
from rrm.settings import Settings

Q_HEAD_BIAS = -5.0
Derived = TypeVar("Derived")


class BaseConfig(Settings):
    """Fields that every architecture has, under their published names.

    `puzzle_emb_len` 0 takes as many prefix positions as `puzzle_emb_ndim` needs.
    """

    hidden_size: int = Field(ge=2)
    H_cycles: int = Field(ge=1)
    L_cycles: int = Field(ge=1)
    puzzle_emb_ndim: int = Field(default=0, ge=0)
    puzzle_emb_len: int = Field(default=0, ge=0)
    halt_max_steps: int = Field(default=16, ge=1)
    token_loss: TokenLoss = "stablemax"

    @property
    def sub_updates(self) -> int:
        """Updates of a latent in one ACT step, low and high together."""
        return self.H_cycles * (self.L_cycles + 1)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The locations that noise can be added to."""
        return ("z_H", "z_L")

    @property
    def learns_q_continue(self) -> bool:
        """Whether the loss has a Q-learning target for continuing."""
        return False

    @property
    def prefix_positions(self) -> int:
        """Positions that the puzzle vector takes before the tokens."""
        return self.puzzle_emb_len or -(-self.puzzle_emb_ndim // self.hidden_size)

    @model_validator(mode="after")
    def _puzzle_vector_fits(self) -> "BaseConfig":
        if self.puzzle_emb_len and not 0 < self.puzzle_emb_ndim <= self.puzzle_emb_len * self.hidden_size:
            raise ValueError(
                f"puzzle_emb_ndim: {self.puzzle_emb_ndim} does not fill 1 to {self.puzzle_emb_len * self.hidden_size} "
                "places (puzzle_emb_len * hidden_size); change one of the three"
            )
        return self


class BaseModel(nn.Module, ABC):
    """A recursive reasoning model: embeds a puzzle, lets `reason` update the latents, reads the answer off the first.

    An architecture builds its recursion in `__init__`, after `super().__init__`, and implements `reason`.
    """

    H_init: Tensor
    L_init: Tensor
    forward_dtype: ForwardDtype = "float32"  # of an ACT step's products
    product_dtype: ForwardDtype = "float32"  # of those at this moment
    block: type[nn.Module]  # the module that the recursion repeats
    is_compiled = False  # whether the recursion's blocks are
    graphs: GraphedRecursion | None = None  # the recursion in training, where it is launched as CUDA graphs
    carries_tangents = False  # whether each nonlinear part of the recursion has its rule in rrm.models.tangents

    def __init__(
        self,
        config: BaseConfig,
        *,
        seq_len: int,
        vocab_size: int,
        num_puzzles: int,
        learned_positions: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._derived: dict[Hashable, Any] | None = None
        self._reached: list[tuple[Tensor, Tensor, Tensor]] = []
        self._hooks: list[RemovableHandle] = []
        self.latent_names = config.latent_names
        self.halt_max_steps = config.halt_max_steps
        self.sub_updates = config.sub_updates
        self.learns_q_continue = config.learns_q_continue
        self.hidden_size, self.prefix_positions = config.hidden_size, config.prefix_positions
        self.positions = self.prefix_positions + seq_len
        self.embed_tokens = Embedding(vocab_size, self.hidden_size, generator)
        self.embed_pos = Embedding(self.positions, self.hidden_size, generator) if learned_positions else None
        self.puzzle_emb = PuzzleEmbedding(num_puzzles, config.puzzle_emb_ndim) if config.puzzle_emb_ndim else None
        self.lm_head = Linear(self.hidden_size, vocab_size, generator)
        self.q_head = nn.Linear(self.hidden_size, 2)
        nn.init.zeros_(self.q_head.weight)
        nn.init.constant_(self.q_head.bias, Q_HEAD_BIAS)
        for name in self.latent_names:
            self.register_buffer(f"{name[-1]}_init", truncated_normal((self.hidden_size,), 1.0, generator))

    @abstractmethod
    def reason(self, latents: Latents, embedding_BND: Tensor, after_update: AfterUpdate = unchanged) -> Latents:
        """All H cycles of one ACT step, those without gradient first; `after_update` has each new value of a latent."""

    def initial_latents(self, batch_size: int) -> Latents:
        """H_init and L_init repeated over rows and positions: views [B, N, D]."""
        return {
            name: getattr(self, f"{name[-1]}_init").expand(batch_size, self.positions, -1) for name in self.latent_names
        }

    def act_step(
        self, latents: Latents, batch: Batch, after_update: AfterUpdate = unchanged
    ) -> tuple[Latents, StepOutput]:
        """Embed, reason, read: latents [B, N, D] each, batch of B rows. The latents returned are detached.

        The products inside `reason` are in `forward_dtype`; latents, noise, norms, sums between blocks, the input, the
        heads and the losses are in float32. Noise far below a rounded operand's own error is lost in the product.
        """
        embedding = self.embed(batch)
        graphs = self.graphs if self.training and after_update is unchanged else None
        if graphs is None or graphs.busy:
            latents = self._recursion(latents, embedding, after_update)
        else:
            latents = graphs(latents, embedding)
        answer = self.read(latents[self.latent_names[0]])
        q_logits = self.q_head(answer[:, 0]).float()
        output = StepOutput(self.lm_head(answer[:, self.prefix_positions :]), q_logits[:, 0], q_logits[:, 1])
        return {name: z.detach() for name, z in latents.items()}, output

    def _recursion(self, latents: Latents, embedding: Tensor, after_update: AfterUpdate = unchanged) -> Latents:
        with self._products_rounded(), self.tensorfloat32():
            return self.reason(latents, embedding, after_update)

    def graph_recursion(self) -> None:
        """Have the recursion of training be launched as CUDA graphs, which see the weights where they are now.

        What follows from weights is computed within a graph, each time.
        """
        model: Any = proxy(self)  # with a cycle the memory of graphs would outlive the model

        def recursion(latents: Latents, embedding: Tensor) -> Latents:
            derived, model._derived = model._derived, None
            try:
                return model._recursion(latents, embedding)
            finally:
                model._derived = derived

        self.graphs = GraphedRecursion(recursion, list(self.parameters()), lambda: model.tensorfloat32())

    @contextmanager
    def constant_weights(self) -> Iterator[None]:
        """Within this context no weight changes: what follows from weights alone is computed once, not each ACT step.

        A backward pass may then stop at a tensor that follows from weights; `collect_gradients` goes on from there.
        """
        self._derived = {}
        try:
            yield
        finally:
            self._derived, self._reached = None, []
            for hook in self._hooks:  # each holds its leaf and what that follows from, in a cycle
                hook.remove()
            self._hooks = []

    def once(self, name: Hashable, derive: Callable[[], Derived]) -> Derived:
        """What `derive` makes of the weights; within `constant_weights` it is asked once for each name."""
        if self._derived is None:
            return derive()
        if name not in self._derived:
            self._derived[name] = derive()
        return self._derived[name]

    def as_leaf(self, x: Tensor) -> Tensor:
        """x, which follows from weights; within `constant_weights` cut off, so that many backward passes end there."""
        if self._derived is None or not x.requires_grad:
            return x
        leaf = x.detach().requires_grad_()
        self._hooks.append(leaf.register_hook(lambda gradient: self._reached.append((x, leaf, gradient))))
        return leaf

    def collect_gradients(self) -> None:
        """Take the gradients that a backward pass left at leaves to the weights, and forget them there."""
        reached, self._reached = self._reached, []
        if reached:  # those that the hooks saw: leaf.grad has the strides of the leaf, and so would be summed otherwise
            torch.autograd.backward([x for x, *_ in reached], [gradient for *_, gradient in reached], retain_graph=True)
        for _, leaf, _ in reached:
            leaf.grad = None

    @contextmanager
    def _products_rounded(self) -> Iterator[None]:
        """Within this context the recursion's products are in `forward_dtype`; its weights are rounded here."""
        dtype = self.forward_dtype
        layers = [
            module
            for name, module in self.named_modules()
            if isinstance(module, Linear) and name != "lm_head" and dtype != "float32"
        ]
        self.product_dtype = dtype
        weights = self.once(("rounded", dtype), lambda: [rounded(layer.weight, dtype) for layer in layers])
        for layer, weight in zip(layers, weights, strict=True):
            layer.rounded = weight
        try:
            yield
        finally:
            self.product_dtype = "float32"
            for layer in layers:
                layer.rounded = None

    def tensorfloat32(self) -> AbstractContextManager[None]:
        """What a backward pass runs in, too: on a GPU it has the products of the heads' gradients in TF32 as well."""
        on_gpu = self.lm_head.weight.device.type == "cuda"
        return tensorfloat32_products(self.forward_dtype == "tensorfloat32") if on_gpu else nullcontext()

    def compile_blocks(self) -> None:
        """Have torch compile the block that the recursion repeats: once for each batch size, with and without gradient.

        Every size has its own code, so that a resumed run, which meets them in another order, computes the same bits.
        """
        self.is_compiled = True
        # What torch.use_deterministic_algorithms says to the compiler, too.
        deterministic = torch.are_deterministic_algorithms_enabled()
        torch._inductor.config.deterministic = deterministic  # pyright: ignore[reportAttributeAccessIssue]
        torch._inductor.config.compile_threads = 1  # pyright: ignore[reportAttributeAccessIssue]: no helper processes
        torch._dynamo.config.recompile_limit = 64  # pyright: ignore[reportAttributeAccessIssue]
        for module in self.modules():
            if isinstance(module, self.block):
                module.compile(fullgraph=True, dynamic=False)

    def eagerly(self) -> AbstractContextManager[None]:
        """A context in which no block is compiled, nor those that are run compiled."""
        # Asked only where there are some: it imports the compiler.
        return torch.compiler.set_stance("force_eager") if self.is_compiled else nullcontext()

    def decays(self, name: str) -> bool:
        """Whether weight decay applies to the parameter of this name."""
        return True

    def penalty(self) -> Tensor | None:
        """A term of the loss that depends on the weights alone, if the architecture has one."""
        return None

    def read(self, z_BND: Tensor) -> Tensor:
        """What the heads see of the first latent."""
        return z_BND

    def embed(self, batch: Batch) -> Tensor:
        """The puzzle as the recursion sees it, the same at every ACT step: [B, N, D]."""
        D, P = self.hidden_size, self.prefix_positions
        embedding = self.embed_tokens(batch.inputs)
        if self.puzzle_emb is not None:
            puzzle = self.puzzle_emb(batch.puzzle_identifiers)
            puzzle = nn.functional.pad(puzzle, (0, P * D - puzzle.shape[-1])).view(-1, P, D)
            embedding = torch.cat((puzzle, embedding), dim=1)
        if self.embed_pos is not None:
            embedding = 0.707106781 * (embedding + self.embed_pos.embedding_weight)
        return embedding * D**0.5

"""The recursion of an ACT step as CUDA graphs: its thousands of kernels are launched at once, not one by one.

A graph computes again what it saw, on the memory that it saw: for each shape of the latents there is one with gradient
and one without. The kernels and their order are those of the plain step, and so are the bits.

torch.cuda.make_graphed_callables hands out gradients that its next replay overwrites, and knows of no other precision
for a backward pass: several ACT steps add up to an optimizer step here, and a GPU may have its gradients in TF32.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from rrm.models.act import Latents

Recursion = Callable[[Latents, Tensor], Latents]
WARM_UP = 2  # runs before one is captured: libraries make their handles and workspaces in the first


class GraphedRecursion:
    """`recursion` of latents and embedding, [B, N, D] each, with a gradient for the embedding and the `parameters`.

    Of the latents returned the first alone carries gradient. `precision` is what a backward pass runs in. While one
    call awaits its backward the graphs are `busy`: another call would overwrite what that backward needs.
    """

    def __init__(
        self, recursion: Recursion, parameters: list[nn.Parameter], precision: Callable[[], AbstractContextManager]
    ):
        self.recursion, self.parameters, self.precision = recursion, parameters, precision
        self.replays = 0
        self._graphs: dict[tuple[torch.Size, bool], _Graph] = {}

    @property
    def busy(self) -> bool:
        """Whether the next call has to be a plain one."""
        return torch.is_grad_enabled() and any(graph.awaits_backward for graph in self._graphs.values())

    def __call__(self, latents: Latents, embedding: Tensor) -> Latents:
        learns = torch.is_grad_enabled()
        key = (embedding.shape, learns)
        if key not in self._graphs:
            self._graphs[key] = _Graph(self.recursion, self.parameters, self.precision, latents, embedding, learns)
        self.replays += 1
        values = _Replay.apply(self._graphs[key], embedding, *latents.values(), *self.parameters)
        return dict(zip(latents, (values[0], *(z.detach() for z in values[1:])), strict=True))


class _Graph:
    """The recursion on one shape, captured. What replays return is copied: the next replay overwrites it."""

    def __init__(
        self,
        recursion: Recursion,
        parameters: list[nn.Parameter],
        precision: Callable[[], AbstractContextManager],
        latents: Latents,
        embedding: Tensor,
        learns: bool,
    ):
        self.recursion, self.parameters, self.precision, self.learns = recursion, parameters, precision, learns
        self.awaits_backward = False
        self.embedding = embedding.detach().clone().requires_grad_(learns)
        self.latents = {name: z.detach().clone() for name, z in latents.items()}
        self.gradient = torch.zeros_like(self.embedding)
        self.gradients: tuple[Tensor | None, ...] = ()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._warm_up()
        torch.cuda.current_stream().wait_stream(aside)
        self.forwards, self.backwards = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.forwards):
            outputs = self._forward()
        if learns:
            with torch.cuda.graph(self.backwards, pool=self.forwards.pool()):
                self.gradients = self._backward(outputs[0])
        self.outputs = [z.detach() for z in outputs]

    def _warm_up(self) -> None:
        first = self._forward()[0]
        if self.learns:
            self._backward(first)

    def _forward(self) -> list[Tensor]:
        return list(self.recursion(self.latents, self.embedding).values())

    def _backward(self, first: Tensor) -> tuple[Tensor | None, ...]:
        with self.precision():
            return torch.autograd.grad(first, [self.embedding, *self.parameters], self.gradient, allow_unused=True)

    def replay(self, embedding: Tensor, latents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The latents after the recursion."""
        self.embedding.copy_(embedding)
        torch._foreach_copy_(list(self.latents.values()), list(latents))
        self.forwards.replay()
        self.awaits_backward = self.learns
        return tuple(z.clone() for z in self.outputs)

    def replay_backward(self, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the embedding and of each parameter, from that of the first latent after the last replay."""
        self.gradient.copy_(gradient)
        self.backwards.replay()
        self.awaits_backward = False
        return tuple(None if found is None else found.clone() for found in self.gradients)


class _Replay(Function):
    """A graph as a function of the embedding and the parameters."""

    @staticmethod
    def forward(ctx: Any, graph: _Graph, embedding: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        ctx.graph, ctx.latents = graph, len(graph.latents)
        return graph.replay(embedding, others[: ctx.latents])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        embedding, *parameters = ctx.graph.replay_backward(gradients[0])
        return None, embedding, *[None] * ctx.latents, *parameters

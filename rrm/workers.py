"""Workers: the processes that compute one trial together, each its shards and its evaluations, and what they exchange.

All hold the same weights: each adds up the same sums in the same order, so none is ever sent.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rrm.checkpoint import loads, serialise

Work = TypeVar("Work")
# A worker waits as long as the first one has nothing for it; that one is gone is noticed by its closed connections.
PATIENCE = timedelta(days=30)
UNREACHABLE = "another worker of this trial cannot be reached"


class WorkerLostError(RuntimeError):
    """Another worker of the trial is gone, or cannot be reached."""


class Workers:
    """This process among the `count` that compute a trial, as number `rank`; alone unless it is joined with others."""

    rank, count = 0, 1

    def all_gather(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """The tensors of every worker, in the order of the workers: all have the same names, types and shapes."""
        return [tensors]

    def gather(self, value: Any) -> list[Any]:
        """What every worker has, at worker 0; elsewhere nothing. Anything that a state file may hold."""
        return [value]

    def tell(self, value: Any) -> Any:
        """What worker 0 has, at every worker. Anything that a state file may hold."""
        return value

    def share_out(self, work: Sequence[Work], do: Callable[[Work], Any]) -> list[Any]:
        """What `do` returns for each piece of `work`, in order and at every worker; they do it in turns."""
        mine = [do(piece) for piece in work[self.rank :: self.count]]
        of_workers = self.tell(self.gather(mine))
        return [of_workers[i % self.count][i // self.count] for i in range(len(work))]

    def own(self, work: Sequence[Work]) -> Sequence[Work]:
        """This worker's run of `work`, which the workers have equal parts of, in their order."""
        size = len(work) // self.count
        return work[self.rank * size : (self.rank + 1) * size]


ALONE = Workers()


class JoinedWorkers(Workers):
    """Workers that have joined by torch.distributed: gloo between CPUs, NCCL between GPUs.

    The group is this process's own until `leave`. If another worker is gone, a call raises what `why_lost` says.
    """

    def __init__(
        self,
        store: dist.Store,
        rank: int,
        count: int,
        device: torch.device,
        why_lost: Callable[[], Exception] = lambda: WorkerLostError(UNREACHABLE),
    ):
        self.rank, self.count, self.why_lost = rank, count, why_lost
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)

    def leave(self) -> None:
        """Close the connections: what the others call then fails."""
        dist.destroy_process_group()

    def all_gather(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """By one exchange of all their bytes on each kind of device: what is on the CPU does not wait for the GPU."""
        of_workers: list[dict[str, Tensor]] = [{} for _ in range(self.count)]
        for kind in sorted({x.device.type for x in tensors.values()}):  # CPU first: who is gone is noticed there
            mine = {name: x for name, x in tensors.items() if x.device.type == kind}
            device = next(iter(mine.values())).device
            flat = torch.empty(sum(x.nbytes for x in mine.values()), dtype=torch.uint8, device=device)
            for name, view in _views(flat, mine).items():
                view.copy_(mine[name])
            parts = [torch.empty_like(flat) for _ in range(self.count)]
            self._or_lost(lambda parts=parts, flat=flat: dist.all_gather(parts, flat))
            for found, part in zip(of_workers, parts, strict=True):
                found |= _views(part, mine)
        return of_workers

    def gather(self, value: Any) -> list[Any]:
        """Worker by worker, so that worker 0 need not hold more than it asked for."""
        if self.rank:
            self._send(_packed(value), 0)
            return []
        return [value, *(self._receive(rank) for rank in range(1, self.count))]

    def tell(self, value: Any) -> Any:
        """To one worker after another."""
        if self.rank:
            return self._receive(0)
        content = _packed(value)
        for rank in range(1, self.count):
            self._send(content, rank)
        return value

    def _send(self, content: Tensor, to: int) -> None:
        self._or_lost(lambda: dist.send(torch.tensor(len(content)), to))
        self._or_lost(lambda: dist.send(content, to))

    def _receive(self, source: int) -> Any:
        size = torch.tensor(0)
        self._or_lost(lambda: dist.recv(size, source))
        content = torch.empty(int(size), dtype=torch.uint8)
        self._or_lost(lambda: dist.recv(content, source))
        return loads(content.numpy().tobytes(), f"what worker {source} says")[""]

    def _or_lost(self, exchange: Callable[[], Any]) -> None:
        try:
            exchange()
        except RuntimeError as error:
            raise self.why_lost() from error


def _packed(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(serialise({"": value})), dtype=torch.uint8)


def _views(flat: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Views of a buffer of bytes that are like `tensors`, those of the largest types first: each must be aligned."""
    by_size = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
    parts = flat.split([x.nbytes for x in by_size.values()])
    return {name: part.view(x.dtype).view(x.shape) for part, (name, x) in zip(parts, by_size.items(), strict=True)}

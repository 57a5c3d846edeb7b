"""Whether trials fit the GPU that is here, before one starts, and what is said when one turns out not to."""

from collections.abc import Iterable

import torch

from rrm.config import TrialConfig
from rrm.memory import fits, too_large

AGAIN = "the next run tries it again as it is"  # a GPU may have been shared


class TooLargeError(ValueError):
    """A trial that no GPU of this machine can hold; the text says how many shards it needs."""


def check_memory(configs: Iterable[TrialConfig], gpus: float) -> None:
    """Raise TooLargeError for trials on `gpus` GPUs each, or on a part of one, that need more than this machine's have.

    Without a GPU here nothing is known, and nothing raised.
    """
    memory = gpu_memory() if gpus else None
    if memory is None:
        return
    memory = int(memory * min(1.0, gpus))
    problems = dict.fromkeys(too_large(config, memory) for config in configs if not fits(config, memory))
    if problems:
        raise TooLargeError("\n".join(problems))


def gpu_memory() -> int | None:
    """Bytes of the smallest GPU of this machine that torch can use; None without one."""
    if not torch.cuda.is_available():
        return None
    return min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))


def memory_mend(config: TrialConfig) -> str:
    """What to change in a trial that turned out not to fit into memory."""
    memory = gpu_memory()
    if memory is not None:
        return f"{too_large(config, memory, tried=True)}; {AGAIN}"
    train, rollouts = config.train, f" x {config.rollouts} rollouts" if config.rollouts > 1 else ""
    return (
        f"raise train.shards ({train.shards}), or lower train.batch_size ({train.batch_size}{rollouts}), or "
        f"eval.batch_size ({config.eval.batch_size}) if it was at an evaluation; {AGAIN}"
    )

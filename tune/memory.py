"""Whether trials fit the GPUs that are there, before one starts, and what is said when one turns out not to."""

from collections.abc import Iterable
from typing import Any

import torch

from rrm.config import TrialConfig
from rrm.gpus import GPUS
from rrm.memory import fits, too_large

TYPE = "accelerator_type:"  # of the resource that Ray gives to a node with GPUs
AGAIN = "the next run tries it again as it is"  # a GPU may have been shared


class TooLargeError(ValueError):
    """A trial that a GPU of this machine or cluster cannot hold; the text says how many shards it needs."""


def check_memory(configs: Iterable[TrialConfig], gpus: float, memory: int | None) -> None:
    """Raise TooLargeError for trials on `gpus` GPUs each, or on a part of one, that need more than its `memory`.

    Nothing is raised where that is not known.
    """
    if not gpus or memory is None:
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


def cluster_memory(nodes: Iterable[dict[str, Any]], here: str) -> int | None:
    """Bytes of the smallest GPU of a cluster, of `ray.nodes()` and the id of this machine's; None if none is known.

    What others have is known by their GPU's name.
    """
    with_gpus = (node for node in nodes if node["Alive"] and node["Resources"].get("GPU"))
    known = ((gpu_memory() if node["NodeID"] == here else None) or _memory_by_name(node) for node in with_gpus)
    return min((memory for memory in known if memory is not None), default=None)


def _memory_by_name(node: dict[str, Any]) -> int | None:
    """Bytes of a node's GPU by the resource that says its name: accelerator_type:H100, accelerator_type:GeForce-..."""
    names = [name.removeprefix(TYPE) for name in node["Resources"] if name.startswith(TYPE)]
    ours = {name.lower().removeprefix("geforce-").replace("-", "") for name in names} & GPUS.keys()
    return min((int(GPUS[name].memory * 1e9) for name in ours), default=None)


def memory_mend(config: TrialConfig, device: torch.device) -> str:
    """What to change in a trial that turned out not to fit into the memory of the device that it trains on."""
    memory = gpu_memory() if device.type == "cuda" else None
    if memory is not None:
        return f"{too_large(config, memory, tried=True)}; {AGAIN}"
    train, rollouts = config.train, f" x {config.rollouts} rollouts" if config.rollouts > 1 else ""
    return (
        f"raise train.shards ({train.shards}), or lower train.batch_size ({train.batch_size}{rollouts}), or "
        f"eval.batch_size ({config.eval.batch_size}) if it was at an evaluation; {AGAIN}"
    )

"""Where trials go: what each asks of Ray, and how many of its workers the nodes that are up hold."""

import ray

from tune.connection import RunRefused
from tune.spec import Resources


def placement(asked: Resources | None) -> tuple[Resources, int]:
    """What a trial gets, a GPU if there are any by default, and how many trials fit at a time.

    Raises RunRefused if one fits no node: it would wait for ever.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if asked is None:
        asked = Resources(cpu=1, gpu=1 if any(node.get("GPU") for node in nodes) else 0)
    if not any(node.get("CPU", 0) >= asked.cpu and node.get("GPU", 0) >= asked.gpu for node in nodes):
        largest = max((node.get("CPU", 0), node.get("GPU", 0)) for node in nodes)
        raise RunRefused(
            f"resources: cpu {asked.cpu:g}, gpu {asked.gpu:g} fit no node (the largest that is up has cpu "
            f"{largest[0]:g}, gpu {largest[1]:g}); ask for less, or start such a node"
        )
    workers = sum(int(_workers(node, asked) + 1e-9) for node in nodes)  # 0.3 cores / 0.1 is a little less than 3
    if workers < asked.workers:
        raise RunRefused(
            f"resources.workers: {asked.workers} with cpu {asked.cpu:g}, gpu {asked.gpu:g} each, and the nodes that "
            f"are up hold {workers}; ask for fewer, or start more nodes"
        )
    return asked, workers // asked.workers


def _workers(node: dict[str, float], asked: Resources) -> float:
    """How many workers a node holds."""
    of_cpus = node.get("CPU", 0) / asked.cpu
    return min(of_cpus, node.get("GPU", 0) / asked.gpu) if asked.gpu else of_cpus

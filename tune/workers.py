"""A trial's workers on Ray: the Trainable's process is the first, actors in its placement group are the others."""

import os
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from tune.modules import reading_modules

with reading_modules():  # a worker of Ray begins here
    import ray
    import torch
    from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
    from torch.distributed import TCPStore

    from rrm.follow import follow
    from rrm.torch_setup import MemoryRanOutError
    from rrm.workers import UNREACHABLE, JoinedWorkers, WorkerLostError
    from tune.deaths import OUT_OF_MEMORY
    from tune.memory import memory_mend
    from tune.output import outlet
    from tune.secrets import set_secrets

LOOPBACK = "127.0.0.1"
LAST_WORDS_SECONDS = 5.0  # that an exchange with a dead worker has to fail by itself


class TrialWorker:
    """An actor that is a trial's second worker, or a later one: it does what the first one does."""

    def node(self) -> str:
        """The Ray node that it is on."""
        return ray.get_runtime_context().get_node_id()

    def follow(self, address: str, port: int, rank: int, count: int, device: str, secrets: str | None) -> None:
        """Join the workers whose store is at address:port, and follow the first until it says the end."""
        set_secrets(secrets)
        if device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # as worker 0 has it
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("Ray gave it a GPU that torch cannot use, and worker 0 has one; mend its node")
        _exchange_at(LOOPBACK if address == LOOPBACK else ray.util.get_node_ip_address())
        on = torch.device(device)
        workers = JoinedWorkers(TCPStore(address, port, count, is_master=False), rank, count, on)
        try:
            follow(workers, on, lambda config: memory_mend(config, on))
        finally:
            workers.leave()


class Crew:
    """This process and `count` - 1 actors in its placement group, joined as the `workers` of one trial after another.

    A worker that fails or dies ends this process's exchanges with WorkerLostError, which says how; one that ran out of
    memory with its MemoryRanOutError. If they do not end by themselves, it ends the process.
    """

    def __init__(self, count: int, cpu: float, gpu: float, device: torch.device, secrets: str | None):
        group = ray.util.get_current_placement_group()
        assert group is not None  # RecursiveTrial asks for one
        self._actors: list[Any] = [
            ray.remote(TrialWorker)
            .options(
                num_cpus=cpu,
                num_gpus=gpu,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
            )
            .remote()
            for rank in range(1, count)
        ]
        self._lost: Exception = WorkerLostError(UNREACHABLE)
        self._noticed, self._closed = threading.Event(), threading.Event()
        try:
            nodes = {ray.get_runtime_context().get_node_id(), *ray.get([actor.node.remote() for actor in self._actors])}
        except RayError as error:
            raise WorkerLostError(f"a worker of this trial did not start: {_reason(error)}") from error
        address = LOOPBACK if len(nodes) == 1 else ray.util.get_node_ip_address()
        _exchange_at(address)
        listening = socket.create_server((address, 0))  # the store by itself would listen on all interfaces
        port = listening.getsockname()[1]
        store = TCPStore(
            address, port, count, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
        )
        self._following = [
            actor.follow.remote(address, port, rank, count, device.type, secrets)
            for rank, actor in enumerate(self._actors, 1)
        ]
        threading.Thread(target=self._watch, daemon=True).start()
        self.workers = JoinedWorkers(store, 0, count, device, self._why_lost)

    def _why_lost(self) -> Exception:
        """Which worker is gone, and why."""
        self._noticed.wait(LAST_WORDS_SECONDS / 2)  # Ray may say it a moment after the connection did
        return self._lost

    def _watch(self) -> None:
        (ended, *_), _ = ray.wait(self._following)
        if self._closed.is_set():
            return
        which = f"worker {self._following.index(ended) + 1} of {len(self._actors) + 1}"
        try:
            ray.get(ended)
            self._lost = WorkerLostError(f"{which} is gone: it ended")
        except RayError as error:
            self._lost = lost(which, error)
        self._noticed.set()
        self._kill()  # their connections close, and this process's exchange with them ends
        time.sleep(LAST_WORDS_SECONDS)
        if not self._closed.is_set():
            print(f"{self._lost}; this process waits in vain and ends", file=outlet(sys.stdout), flush=True)
            os._exit(1)

    def close(self) -> None:
        """Let the others go."""
        self._closed.set()
        self._kill()

    def replace(self) -> None:
        """Let the others go, whatever they are at, so that this process can join new ones."""
        self.close()
        self.workers.leave()

    def _kill(self) -> None:
        for actor in self._actors:
            ray.kill(actor)


def lost(which: str, error: RayError) -> Exception:
    """What `error` of a worker means to the first one: more of its memory is wanted, or else another worker."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, MemoryRanOutError):
        return MemoryRanOutError(f"{which}: {error.cause}")
    return WorkerLostError(f"{which} is gone: {_reason(error)}")


def _reason(error: RayError) -> str:
    """What a worker raised, or how it died, in a line."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}".partition("\n")[0]
    if isinstance(error, OutOfMemoryError):
        return OUT_OF_MEMORY
    return "its process, or its node, has died"


def _exchange_at(address: str) -> None:
    """Have gloo use the interface with this address: by itself it takes what the host's name resolves to."""
    if sys.platform != "linux":
        return
    import fcntl  # which Windows lacks

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            with suppress(OSError):  # it has no such address
                found = fcntl.ioctl(probe, 0x8915, request)[20:24]  # SIOCGIFADDR
                if socket.inet_ntoa(found) == address:
                    os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
                    return

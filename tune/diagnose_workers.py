"""Workers of a Ray cluster that compute the parts of a diagnosis; who asked for them writes the parts down."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tune.modules import reading_modules

with reading_modules():  # a worker of Ray begins here
    import ray
    import torch
    from ray.exceptions import RayError, RayTaskError
    from ray.util import ActorPool

    from rrm.diagnose import DiagnosisConfig, find
    from rrm.dynamics import Found, Subject
    from rrm.torch_setup import set_up_torch
    from tune.connection import RunRefused, connected

RESTARTS = 3  # of a worker that dies, before the diagnosis ends; the same command then goes on
Compute = Callable[[str, Sequence[range], Found], Iterator[tuple[range, Found]]]


class WorkersError(ValueError):
    """The workers that were asked for cannot be had, or were lost; the text says why."""


class DiagnosisWorker:
    """An actor that holds the model and the puzzles, on a GPU if it is given one."""

    def __init__(self, subject: Subject, asked: DiagnosisConfig, threads: int, on_gpu: bool):
        if not on_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        set_up_torch(threads)
        device = torch.device("cuda" if on_gpu else "cpu")
        model: Any = subject.model
        self.subject = subject._replace(model=model.to(device).eval(), batch=subject.batch.to(device))
        self.asked = asked

    def find(self, kind: str, rows: range, examples: Found) -> tuple[range, Found]:
        """A part, with the rows that it is of."""
        return rows, find(self.subject, self.asked, kind, rows, examples)


@contextmanager
def on_workers(subject: Subject, asked: DiagnosisConfig, count: int, threads: int) -> Iterator[Compute]:
    """What computes parts on `count` workers of the cluster of RAY_ADDRESS, or of this machine: as they are done.

    Each has `threads` cores, and a GPU where the cluster has any. Raises WorkersError if there is no room for all, or
    no cluster; and what a part raises.
    """
    with _told(), connected():
        has = ray.cluster_resources()
        gpus = 1 if has.get("GPU") and torch.cuda.is_available() else 0
        cores, cards = has.get("CPU", 0), has.get("GPU", 0)
        if cores < threads:
            raise WorkersError(f"--threads {threads}: the cluster has {cores:g} cores; give fewer threads")
        fit = int(min(cores // threads, cards if gpus else count))  # a pool waits for ever for one without a place
        if fit < count:
            room = f"{cores:g} cores" + (f" and {cards:g} GPUs" if gpus else "")
            raise WorkersError(f"--workers {count} of {threads} threads: the cluster has {room}; give at most {fit}")
        model: Any = subject.model
        held = ray.put(subject._replace(model=model.cpu(), batch=subject.batch.to(torch.device("cpu"))))
        worker: Any = ray.remote(DiagnosisWorker).options(
            num_cpus=threads, num_gpus=gpus, max_restarts=RESTARTS, max_task_retries=RESTARTS
        )
        actors = [worker.remote(held, asked, threads, bool(gpus)) for _ in range(count)]
        pool = ActorPool(actors)

        def compute(kind: str, work: Sequence[range], examples: Found) -> Iterator[tuple[range, Found]]:
            known = {name: x for name, x in examples.items() if name == "solved"}  # all that a part asks of them
            done: Any = pool.map_unordered(lambda actor, rows: actor.find.remote(kind, rows, known), list(work))
            return done

        try:
            yield compute
        finally:
            for actor in actors:
                ray.kill(actor)


@contextmanager
def _told() -> Iterator[None]:
    """What Ray raises as what a user can be told."""
    try:
        yield
    except RunRefused as error:
        raise WorkersError(str(error)) from error
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        reason = str(error).partition("\n")[0]
        raise WorkersError(f"a worker was lost again and again ({reason}); the same command goes on") from error

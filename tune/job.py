"""What a worker is told of a trial. Made in one place, whoever trains it."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from results.schema import TRIALS

if TYPE_CHECKING:
    from tune.expand import Cell
    from tune.spec import Sweep


@dataclass(frozen=True)
class TrialJob:
    """What a worker is told: which trial, where its folder is, how many threads it has, what it saves and logs."""

    arm: str
    seed: int
    trial_id: str
    config: dict[str, Any]
    folder: str
    threads: int
    save_seconds: float
    keep_evaluations: bool = False
    sweep: str = ""
    name: str = ""
    wandb: dict[str, Any] | None = None
    tensorboard: bool = False
    secrets: str | None = None
    nonce: str | None = None  # what the driver wrote into the sweep's run.json

    @classmethod
    def of(cls, sweep: "Sweep", cell: "Cell", threads: int, nonce: str | None = None) -> "TrialJob":
        """The job of a sweep's trial, computed with so many threads. `nonce`: of the run that hands it out."""
        spec = sweep.spec
        return cls(
            arm=cell.arm,
            seed=cell.seed,
            trial_id=cell.trial_id,
            config=cell.config.model_dump(mode="json"),
            folder=str(sweep.folder / TRIALS / cell.trial_id),
            threads=threads,
            save_seconds=spec.save_seconds,
            keep_evaluations=spec.keep_evaluations,
            sweep=spec.name,
            name=cell.name,
            wandb=spec.wandb and spec.wandb.model_dump(),
            tensorboard=spec.tensorboard,
            secrets=spec.secrets,
            nonce=nonce,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they travel to a worker."""
        return dataclasses.asdict(self)

"""TrialConfig: everything that a trial's numbers depend on. Its hash is the trial's identity."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from rrm.evaluate import EvalConfig
from rrm.models import ModelConfig
from rrm.optim import OptimConfig
from rrm.perturb import Objective, PerturbConfig
from rrm.puzzles.dataset import SudokuTask
from rrm.settings import Settings

MAX_SEED = 2**31 - 1


class TrainConfig(Settings):
    """`steps` batches of `batch_size` puzzles.

    `optimizer_step`: `rollout` averages the loss over the whole unroll into one optimizer step; `act` takes one after
    every ACT step. `halt_exploration_prob` is serial_act's: the share of slots that may not halt before a random step.
    """

    steps: int = Field(ge=1, le=10**12)
    batch_size: int = Field(ge=1)
    optimizer_step: Literal["rollout", "act"] = "rollout"
    halt_exploration_prob: float = Field(default=0.1, ge=0, le=1)


class TrialConfig(Settings):
    """One trial: a pure function from here to weights and evaluations, on one kind of device and number of threads."""

    task: SudokuTask
    model: ModelConfig
    objective: Objective
    perturb: PerturbConfig | None = None
    rollout: Literal["parallel_fixed", "serial_act"] = "parallel_fixed"
    optim: OptimConfig
    train: TrainConfig
    eval: EvalConfig
    seed: int = Field(ge=0, le=MAX_SEED)

    @model_validator(mode="before")
    @classmethod
    def _clean_ignores_perturb(cls, data: Any) -> Any:
        # A sweep's base may hold the noise of its perturbed arms: a clean trial is the same trial whatever it says.
        if isinstance(data, dict) and data.get("objective") == "clean":
            return {key: value for key, value in data.items() if key != "perturb"}
        return data

    @model_validator(mode="after")
    def _parts_fit(self) -> "TrialConfig":
        problems = "\n".join(self._misfits())
        if problems:
            raise ValueError(problems)
        return self

    def _misfits(self) -> Iterator[str]:
        """What each part allows and the whole does not: one line a problem, which starts with the field's name."""
        rollouts = self.perturb.rollouts if self.perturb else 1
        latents = ", ".join(self.model.latent_names)
        if self.objective != "clean" and self.perturb is None:
            yield f"perturb: {self.objective} needs one; give perturb: {{sigma: ...}}"
        elif self.objective == "single_perturbed_ce" and rollouts != 1:
            yield (
                f"perturb.rollouts: {rollouts} with single_perturbed_ce, which trains one perturbed trajectory; "
                "use 1 or the objective multi_perturbed_ce"
            )
        elif self.objective == "multi_perturbed_ce" and rollouts < 2:
            yield f"perturb.rollouts: {rollouts} with multi_perturbed_ce, whose rollout 0 is clean; give 2 or more"
        unknown = sorted(set(self.perturb.where if self.perturb else ()) - set(self.model.latent_names))
        if unknown:
            yield f"perturb.where: {', '.join(unknown)} is no latent of this model; it has {latents}"
        if not set(self.eval.where) & set(self.model.latent_names):
            yield f"eval.where: {', '.join(self.eval.where)} is no latent of this model; it has {latents}"
        if self.train.steps % self.eval.every:
            lower = self.train.steps // self.eval.every * self.eval.every
            better = " or ".join(str(steps) for steps in (lower, lower + self.eval.every) if steps)
            yield (
                f"train.steps: {self.train.steps} is not a multiple of eval.every {self.eval.every}; use {better}, so "
                "that the last step is evaluated"
            )

    @property
    def rollouts(self) -> int:
        """Trajectories a puzzle in training, K."""
        return self.perturb.rollouts if self.perturb else 1

    @property
    def act_steps_per_batch(self) -> int:
        """ACT steps that each trajectory takes on a batch: the whole unroll, or serial_act's one."""
        return 1 if self.rollout == "serial_act" else self.model.halt_max_steps

    @property
    def optimizer_steps_per_batch(self) -> int:
        """Optimizer steps taken on each batch."""
        return self.act_steps_per_batch if self.train.optimizer_step == "act" else 1

    def identity(self) -> dict[str, Any]:
        """What the numbers depend on, as plain JSON values.

        Files stand as the digests of their contents. train.steps is left out unless the learning rate depends on it:
        a trial asked for more steps goes on, it is not another trial. Fields at their defaults are left out, so that a
        new field does not rename old trials. Raises DataError if a puzzle file is unreadable.
        """
        plain = self.model_dump(mode="json", exclude_defaults=True) | {"task": self.task.identity()}
        if not self.optim.depends_on_total:
            del plain["train"]["steps"]
        return plain

    def trial_id(self) -> str:
        """A stable hash of `identity`, 12 hexadecimal digits."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

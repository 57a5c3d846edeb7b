"""TrialConfig: everything that a trial's numbers depend on. Its hash is the trial's identity."""

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from rrm.diagnose import DiagnoseConfig
from rrm.evaluate import EvalConfig
from rrm.models import ModelConfig
from rrm.models.products import ForwardDtype
from rrm.models.published import InitFrom
from rrm.optim import OptimConfig
from rrm.perturb import Objective, PerturbConfig
from rrm.puzzles.formats import file_digest
from rrm.puzzles.tasks import TaskConfig
from rrm.rollout import Normalise
from rrm.settings import Settings

MAX_SEED = 2**31 - 1


class TrainConfig(Settings):
    """`steps` batches of `batch_size` puzzles.

    `shards` cuts each batch into as many runs of rows, a power of two: one is held in memory at a time, and their
    gradients are added in a fixed binary tree.
    `optimizer_step`: `rollout` averages the loss over the whole unroll into one optimizer step; `act` takes one after
    every ACT step. `halt_exploration_prob` is serial_act's and act_mask's: the share of trajectories that may not halt
    before a random step. `normalise` is act_mask's: the mean over the ACT steps taken (`valid_steps`), over those that
    could have been (`slots`), or over the trajectories' own means (`per_trajectory`, one more forward pass).
    `forward_dtype`: of the products inside the recursion; weights, latents, noise, heads and losses stay float32. A CPU
    rounds the operands of tensorfloat32 as a GPU does, and multiplies in float32: it is no faster there.
    `compile` has torch compile the recursion's block first, which takes a C++ compiler and some seconds.
    `cuda_graphs` launches the recursion's kernels on a GPU at once: faster where a batch is small, to the same bits.
    Those of each shape keep their memory, which a plan does not count.
    """

    steps: int = Field(ge=1, le=10**12)
    batch_size: int = Field(ge=1)
    shards: int = Field(default=1, ge=1)
    optimizer_step: Literal["rollout", "act"] = "rollout"
    halt_exploration_prob: float = Field(default=0.1, ge=0, le=1)
    normalise: Normalise = "valid_steps"
    forward_dtype: ForwardDtype = "float32"
    compile: bool = False
    cuda_graphs: bool = False


class TrialConfig(Settings):
    """One trial: a pure function from here to weights and evaluations, on one kind of device and number of threads."""

    task: TaskConfig
    model: ModelConfig
    objective: Objective
    perturb: PerturbConfig | None = None
    rollout: Literal["parallel_fixed", "act_mask", "serial_act"] = "parallel_fixed"
    optim: OptimConfig
    train: TrainConfig
    eval: EvalConfig
    diagnose: DiagnoseConfig | None = None
    seed: int = Field(ge=0, le=MAX_SEED)
    init_from: InitFrom | None = None

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
        elif self.objective == "winner_perturbed_ce" and self.rollout != "parallel_fixed":
            yield (
                f"rollout: {self.rollout} with winner_perturbed_ce, whose trajectories race on one puzzle for a whole "
                "unroll; use parallel_fixed"
            )
        elif self.objective == "multi_perturbed_ce" and rollouts < 2:
            yield f"perturb.rollouts: {rollouts} with multi_perturbed_ce, whose rollout 0 is clean; give 2 or more"
        if self.perturb and self.perturb.winner_carry != "own":
            if self.objective != "winner_perturbed_ce":
                yield (
                    f"perturb.winner_carry: {self.perturb.winner_carry} with {self.objective}, where nobody wins; "
                    "remove it, or choose the objective winner_perturbed_ce"
                )
            elif "z_H" not in self.model.latent_names:
                yield (
                    f"perturb.winner_carry: {self.perturb.winner_carry} with a model that has {latents} alone; use own"
                )
        if self.perturb and self.perturb.antithetic and (rollouts - self.clean_first) % 2:
            yield (
                f"perturb.antithetic: true with an odd number of perturbed trajectories a puzzle "
                f"({rollouts - self.clean_first}); make pairs: multi_perturbed_ce with an odd number of rollouts"
            )
        if self.perturb and self.rollout == "serial_act":
            why = "with rollout serial_act, whose trajectories are soon at different puzzles"
            if self.perturb.antithetic:
                yield f"perturb.antithetic: true {why}; remove it, or choose parallel_fixed or act_mask"
            if self.perturb.sigma_per == "example":
                yield f"perturb.sigma_per: example {why}; use trajectory, or choose parallel_fixed or act_mask"
        if self.perturb and self.perturb.warmup_steps >= self.train.steps:
            yield (
                f"perturb.warmup_steps: {self.perturb.warmup_steps} leaves none of train.steps {self.train.steps} to "
                "perturb; give fewer"
            )
        unknown = sorted(set(self.perturb.where if self.perturb else ()) - set(self.model.latent_names))
        if unknown:
            yield f"perturb.where: {', '.join(unknown)} is no latent of this model; it has {latents}"
        if not set(self.eval.where) & set(self.model.latent_names):
            yield f"eval.where: {', '.join(self.eval.where)} is no latent of this model; it has {latents}"
        for i, level in enumerate(self.eval.noise):
            if not set(level.where) & set(self.model.latent_names):
                yield f"eval.noise.{i}.where: {', '.join(level.where)} is no latent of this model; it has {latents}"
        shallow = [depth for depth in self.eval.depths if depth <= self.model.halt_max_steps]
        if shallow:
            yield (
                f"eval.depths: {shallow[0]} is not above model.halt_max_steps {self.model.halt_max_steps}, which is "
                "always evaluated; give deeper ones"
            )
        if self.diagnose is not None and self.diagnose.every % self.eval.every:
            yield (
                f"diagnose.every: {self.diagnose.every} is not a multiple of eval.every {self.eval.every}; a diagnosis "
                "goes with an evaluation"
            )
        if self.diagnose is not None and self.diagnose.n > self.eval.n:
            yield f"diagnose.n: {self.diagnose.n} is more than the {self.eval.n} test puzzles of eval.n; ask for fewer"
        if self.diagnose is not None and self.diagnose.deep and self.train.steps % self.diagnose.every:
            yield (
                f"diagnose.every: {self.diagnose.every} does not divide train.steps {self.train.steps}, and depth, "
                "restarts and robustness belong to the diagnosis after the last step; use one that does"
            )
        if self.diagnose is not None and (self.diagnose.depth or math.inf) <= self.model.halt_max_steps:
            yield (
                f"diagnose.depth: {self.diagnose.depth} is not above model.halt_max_steps {self.model.halt_max_steps}, "
                "which is always diagnosed; give a deeper one"
            )
        shards, batch_size = self.train.shards, self.train.batch_size
        most = batch_size & -batch_size  # the largest power of two that divides it
        if shards & (shards - 1) or most % shards:
            yield (
                f"train.shards: {shards} cuts no batch of {batch_size} into equal shards that a binary tree adds up; "
                f"give a power of two that divides it, {most} at most"
            )
        if self.rollout == "act_mask" and self.train.optimizer_step == "act":
            yield (
                "train.optimizer_step: act with rollout act_mask, whose mean is known after its last step only; "
                "use rollout"
            )
        if self.rollout != "act_mask" and self.train.normalise != "valid_steps":
            yield (
                f"train.normalise: {self.train.normalise} with rollout {self.rollout}, where every step counts alike; "
                "remove it or choose rollout: act_mask"
            )
        if self.rollout == "act_mask" and self.train.compile:
            yield (
                "train.compile: true with rollout act_mask, whose batch shrinks as trajectories halt, and each size "
                "would be compiled anew; use false"
            )
        if self.train.cuda_graphs:
            yield from self._not_graphed()
        if self.train.steps % self.eval.every:
            lower = self.train.steps // self.eval.every * self.eval.every
            better = " or ".join(str(steps) for steps in (lower, lower + self.eval.every) if steps)
            yield (
                f"train.steps: {self.train.steps} is not a multiple of eval.every {self.eval.every}; use {better}, so "
                "that the last step is evaluated"
            )

    def _not_graphed(self) -> Iterator[str]:
        """Why the recursion cannot be launched as a graph."""
        if self.model.arch == "srm":
            yield (
                "train.cuda_graphs: true with srm, whose factors are computed once for all ACT steps, not in each; "
                "use false"
            )
        if self.rollout == "act_mask":
            yield (
                "train.cuda_graphs: true with rollout act_mask, whose batch shrinks as trajectories halt, and each "
                "size would be a graph of its own; use false"
            )
        if self.train.compile:
            yield "train.cuda_graphs: true with train.compile, which launches code of its own; choose one of the two"
        if self.perturb is not None and self.perturb.when == "update":
            yield (
                "train.cuda_graphs: true with perturb.when: update, whose noise is drawn between the kernels; use false"
            )

    @property
    def long_warm_up(self) -> str | None:
        """What is allowed and probably not meant: a warm-up that outlasts the training."""
        updates = self.train.steps * self.optimizer_steps_per_batch
        if self.optim.warmup_steps <= updates:
            return None
        return (
            f"optim.warmup_steps {self.optim.warmup_steps} is more than the {updates} optimizer steps of the whole "
            "training: the learning rate never reaches optim.lr"
        )

    @property
    def rollouts(self) -> int:
        """Trajectories a puzzle in training, K."""
        return self.perturb.rollouts if self.perturb else 1

    @property
    def clean_first(self) -> bool:
        """Whether rollout 0 is exactly clean."""
        return self.objective in ("multi_perturbed_ce", "winner_perturbed_ce")

    @property
    def races(self) -> bool:
        """Whether one of several trajectories is trained at each ACT step."""
        return self.objective == "winner_perturbed_ce" and self.rollouts > 1

    @property
    def act_steps_per_batch(self) -> int:
        """ACT steps that each trajectory takes on a batch: the whole unroll (act_mask: at most), serial_act's one."""
        return 1 if self.rollout == "serial_act" else self.model.halt_max_steps

    @property
    def optimizer_steps_per_batch(self) -> int:
        """Optimizer steps taken on each batch."""
        return self.act_steps_per_batch if self.train.optimizer_step == "act" else 1

    @property
    def still_batches(self) -> int:
        """Batches at the start that nothing perturbs: K trajectories would be copies of one, which is trained alone."""
        moves = self.perturb is not None and self.perturb.trained_sigmas
        return self.perturb.warmup_steps if self.perturb and moves else self.train.steps

    def rollouts_at(self, step: int) -> int:
        """Trajectories a puzzle in the batch of a step (0-based)."""
        return 1 if step < self.still_batches else self.rollouts

    def rows_trained_at(self, step: int) -> int:
        """ACT steps that are trained on the batch of a step (act_mask: at most), over which its loss is a mean."""
        trajectories = 1 if self.races else self.rollouts_at(step)
        return self.train.batch_size * trajectories * self.act_steps_per_batch

    @property
    def rows_trained(self) -> int:
        """ACT steps that are trained on all batches."""
        still, last = self.still_batches, self.train.steps - 1
        return still * self.rows_trained_at(0) + (self.train.steps - still) * self.rows_trained_at(last)

    @property
    def evaluation_share(self) -> float:
        """ACT steps spent evaluating, of all that the trial takes if nothing halts; those of training cost more."""
        evaluating = self.evaluation_act_steps
        races = self.train.steps - self.still_batches if self.races else 0
        racing = races * self.train.batch_size * self.rollouts * self.act_steps_per_batch
        return evaluating / (evaluating + self.rows_trained + racing)

    @property
    def evaluation_act_steps(self) -> int:
        """ACT steps of all evaluations' trajectories, from step 0 to the last."""
        deepest = max((self.model.halt_max_steps, *self.eval.depths))
        trajectories = 1 + len(self.eval.levels) * self.eval.rollouts
        evaluations = self.train.steps // self.eval.every + 1
        return evaluations * 2 * self.eval.n * trajectories * deepest

    def identity(self) -> dict[str, Any]:
        """What the numbers depend on, as plain JSON values.

        Files stand as the digests of their contents. train.cuda_graphs, which changes no number, is left out, as
        train.steps is unless the learning rate depends on it: a trial asked for more steps goes on, it is not another
        trial. Fields at their defaults are left out, so that a new field does not rename old trials. Raises DataError
        if a file is unreadable.
        """
        plain = self.model_dump(mode="json", exclude_defaults=True) | {"task": self.task.identity()}
        if self.init_from is not None:
            plain["init_from"] = ":".join(filter(None, (file_digest(str(self.init_from.path)), self.init_from.key)))
        plain["train"].pop("cuda_graphs", None)
        if not self.optim.depends_on_total:
            del plain["train"]["steps"]
        return plain

    def trial_id(self) -> str:
        """A stable hash of `identity`, 12 hexadecimal digits."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

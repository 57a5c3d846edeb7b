"""Evaluation on fixed puzzles: one row for each split and noise level, with the correctness of every example kept."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from rrm.models.act import Batch, Latents, RecursiveModel, StepOutput
from rrm.models.losses import TokenLoss, row_losses
from rrm.noise import NoiseInTime, act_step_of
from rrm.perturb import Location, PerturbConfig, When, distinct_locations, perturb_latents
from rrm.puzzles.tasks import BaseTask
from rrm.readouts import Course, chosen_rollouts, of_those, pass_at_k
from rrm.settings import Settings
from rrm.workers import ALONE, Workers


class EvalNoise(Settings):
    """Noise of one size in an evaluation: when, how much, where (see rrm.perturb)."""

    when: When = "start"
    sigma: float = Field(gt=0)
    where: tuple[Location, ...] = Field(default=("z_H", "z_L"), strict=False)

    _where = field_validator("where")(distinct_locations)


class EvalConfig(Settings):
    """Every `every` training steps, on `n` fixed puzzles of validation and of test.

    Beside the clean run, `rollouts` trajectories for each of `noise`, the same for every arm and at every evaluation;
    `sigmas` is its short form for noise on the initial latents, at `where`. All are read after halt_max_steps ACT steps
    and after each of `depths`, deeper than in training. `batch_size` bounds the trajectories held in memory.
    """

    every: int = Field(ge=1)
    n: int = Field(ge=1)
    sigmas: tuple[float, ...] = Field(default=(0.1,), strict=False)
    rollouts: int = Field(default=4, ge=1)
    where: tuple[Location, ...] = Field(default=("z_H", "z_L"), strict=False)
    noise: tuple[EvalNoise, ...] = Field(default=(), strict=False)
    depths: tuple[int, ...] = Field(default=(), strict=False)
    batch_size: int = Field(default=256, ge=1)

    _where = field_validator("where")(distinct_locations)

    @field_validator("sigmas")
    @classmethod
    def _positive_and_distinct(cls, sigmas: tuple[float, ...]) -> tuple[float, ...]:
        if any(sigma <= 0 for sigma in sigmas) or len(set(sigmas)) != len(sigmas):
            raise ValueError(f"{list(sigmas)} must be above 0, each once; the clean evaluation is always made")
        return tuple(sorted(sigmas))

    @field_validator("depths")
    @classmethod
    def _rising(cls, depths: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(depths)) != len(depths):
            raise ValueError(f"{list(depths)} holds a depth more than once; give each once")
        return tuple(sorted(depths))

    @model_validator(mode="before")
    @classmethod
    def _noise_is_in_place_of_sigmas(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not data.get("noise"):
            return data
        if data.get("sigmas"):
            raise ValueError(f"sigmas: {list(data['sigmas'])} with noise, which they are a short form of; remove one")
        return data | {"sigmas": ()}

    @field_validator("noise")
    @classmethod
    def _each_once(cls, noise: tuple[EvalNoise, ...]) -> tuple[EvalNoise, ...]:
        order = get_args(When)
        for one, other in combinations(noise, 2):
            if (one.when, one.sigma) == (other.when, other.sigma):
                raise ValueError(f"sigma {one.sigma:g} with when {one.when} is there twice; give each once")
        return tuple(sorted(noise, key=lambda one: (order.index(one.when), one.sigma)))

    @property
    def levels(self) -> tuple[EvalNoise, ...]:
        """The noise that is evaluated, `sigmas` included."""
        return self.noise or tuple(EvalNoise(sigma=sigma, where=self.where) for sigma in self.sigmas)

    @property
    def start_sigmas(self) -> tuple[float, ...]:
        """Of those levels that are on the initial latents, the sigmas."""
        return tuple(level.sigma for level in self.levels if level.when == "start")


# Is shown the output of every ACT step, with its noise, the examples it is for, and its number (1-based).
Watch = Callable[[EvalNoise | None, range, int, StepOutput], None]


def pack_bits(correct: np.ndarray) -> bytes:
    """Booleans of any shape as bits, row-major, eight to a byte (numpy.unpackbits reads them)."""
    return np.packbits(correct.astype(bool)).tobytes()


class Answers(NamedTuple):
    """What K rollouts say of n examples after some ACT step, on the CPU.

    lm [n * K] token losses, token_accuracy [n * K], correct bool [n, K], cells int8 [n, K, side, side] (-1 where a
    token is no cell), q_halt [n, K], judged: what the task says of each answer, bool [n * K] by name; course: how they
    came to it, [n, K] by name (see rrm.readouts).
    """

    lm: Tensor
    token_accuracy: Tensor
    correct: Tensor
    cells: Tensor
    q_halt: Tensor
    judged: dict[str, Tensor]
    course: dict[str, Tensor]


class Chunk(NamedTuple):
    """A piece of an evaluation: noise, None for the clean run, and the examples it is for."""

    level: EvalNoise | None
    rows: range


@torch.no_grad()
def evaluate_split(
    model: RecursiveModel,
    batch: Batch,
    config: EvalConfig,
    task: BaseTask,
    *,
    token_loss: TokenLoss,
    seed: int,
    split: str,
    watch: Watch | None = None,
    workers: Workers = ALONE,
    fewer: tuple[int, ...] = (),
) -> Iterator[dict[str, Any]]:
    """Rows for the clean run (sigma 0, one rollout) and for each of `config.levels`, at halt_max_steps and each depth.

    exact_accuracy is the mean over examples and rollouts; all_ and any_exact_accuracy the share of examples that every
    rollout solves, and that some does; that of a chosen answer stands under the rule's name (best_q, majority,
    most_settled, first_to_halt), halting_ that of the answer at which each rollout wants to halt. correct holds the
    packed bits of bool [n, rollouts], <rule>_correct of bool [n]. What else the task says of answers is a share and
    bits under its own name (of a maze's: valid_accuracy, valid_correct, and so of shortest). `watch` sees every ACT
    step that this worker takes: `workers` hand out chunks of `config.batch_size` trajectories, and have all rows.
    `fewer` numbers of rollouts, the first of all, have rows of their own.
    """
    depths = (model.halt_max_steps, *config.depths)
    for level in (None, *config.levels):
        K = config.rollouts if level else 1
        size = max(1, config.batch_size // K)

        def answers_to(chunk: Chunk, K: int = K) -> dict[int, Any]:
            level, rows = chunk
            part = Batch(*(x[rows.start : rows.stop] for x in batch))
            latents, noise = starts(model, level, rows, K, seed=seed, stream=f"eval.{split}")
            show = None if watch is None else partial(watch, level, rows)
            unrolled = _unroll(model, part.repeat(K), latents, noise, K, depths, token_loss, task, show)
            return {depth: answers._asdict() for depth, answers in unrolled}

        n = len(batch.inputs)
        chunks = [Chunk(level, range(start, min(start + size, n))) for start in range(0, n, size)]
        parts = workers.share_out(chunks, answers_to)
        place = {"split": split, "when": level.when if level else "start", "sigma": level.sigma if level else 0.0}
        for depth in depths:
            answers = [Answers(**part[depth]) for part in parts]
            for rollouts in sorted({*(k for k in fewer if k < K), K}):
                yield place | {"depth": depth, "rollouts": rollouts, **_row(answers, rollouts)}


def starts(
    model: RecursiveModel, level: EvalNoise | None, rows: range, K: int, *, seed: int, stream: str
) -> tuple[Latents, NoiseInTime | None]:
    """Where K rollouts of each of `rows` start, [len(rows) * K, N, D] each, and what they meet on their way."""
    z0 = model.initial_latents(len(rows))
    if level is None:
        return {name: z.repeat_interleave(K, dim=0) for name, z in z0.items()}, None
    source = {"clean_first": False, "seed": seed, "stream": stream, "step": 0, "rows": rows}
    if level.when == "start":
        return perturb_latents(z0, sigma=level.sigma, where=level.where, rollouts=K, **source), None
    perturb = PerturbConfig(sigma=level.sigma, where=level.where, when=level.when, rollouts=K)
    device = next(iter(z0.values())).device
    noise = NoiseInTime(perturb, np.full((1, len(rows), K), level.sigma), **source, device=device)
    return {name: z.repeat_interleave(K, dim=0) for name, z in z0.items()}, noise


def _unroll(
    model: RecursiveModel,
    batch: Batch,
    latents: Latents,
    noise: NoiseInTime | None,
    K: int,
    depths: tuple[int, ...],
    token_loss: TokenLoss,
    task: BaseTask,
    show: Callable[[int, StepOutput], None] | None,
) -> Iterator[tuple[int, Answers]]:
    """The answers after each of `depths` ACT steps: no halting, no reset."""
    course = Course(model, batch)
    for step in range(1, max(depths) + 1):
        latents, output = act_step_of(model, noise, step - 1)(latents, batch)
        course.take(output)
        if show is not None:
            show(step, output)
        if step in depths:
            losses = row_losses(output, batch.labels, token_loss)
            cells = grids(losses.predicted, task)
            judged = task.judge(grids(batch.inputs, task), cells)
            yield (
                step,
                Answers(
                    losses.lm.double().cpu(),
                    losses.token_accuracy.double().cpu(),
                    losses.correct.view(-1, K).cpu(),
                    torch.from_numpy(cells.reshape(-1, K, *cells.shape[1:])),
                    output.q_halt_logits.view(-1, K).cpu(),
                    {name: torch.from_numpy(good) for name, good in judged.items()},
                    course.so_far(K),
                ),
            )


def _row(parts: list[Answers], rollouts: int) -> dict[str, Any]:
    """What the first `rollouts` of each example say."""

    def joined(found: Iterable[Tensor]) -> np.ndarray:
        """[n, rollouts, ...], of what is [b, K, ...] or [b * K] in each part."""
        by_rollout = (x.view(part.correct.shape) if x.dim() == 1 else x for x, part in zip(found, parts, strict=True))
        return torch.cat([x[:, :rollouts] for x in by_rollout]).numpy()

    lm, token_accuracy, correct, cells, q_halt = (joined(x) for x in list(zip(*parts, strict=True))[:5])
    judged = {name: joined(part.judged[name] for part in parts) for name in parts[0].judged}
    course = {name: joined(part.course[name] for part in parts) for name in parts[0].course}
    chosen = chosen_rollouts(cells, q_halt, course["change"], course["wants"])
    chosen_correct = {name: np.take_along_axis(correct, k[:, None], axis=1)[:, 0] for name, k in chosen.items()}
    steps = np.where(course["wants"] > 0, course["wants"], course["steps"])
    done = q_halt > 0
    return {
        "n": len(correct),
        "exact_accuracy": float(correct.mean()),
        "all_exact_accuracy": float(correct.all(axis=1).mean()),
        "any_exact_accuracy": float(correct.any(axis=1).mean()),
        "pass_at_k": pass_at_k(correct),
        **{f"{name}_exact_accuracy": float(right.mean()) for name, right in chosen_correct.items()},
        "halting_exact_accuracy": float(course["halted"].mean()),
        "halting_steps": float(steps.mean()),
        "done_share": float(done.mean()),
        "done_exact_accuracy": of_those(correct, done),
        "settled_share": float(course["settled"].mean()),
        "settled_exact_accuracy": of_those(correct, course["settled"]),
        "token_accuracy": float(token_accuracy.mean()),
        **{f"{name}_accuracy": float(good.mean()) for name, good in judged.items()},
        "lm_loss": float(lm.mean()),
        "correct": pack_bits(correct),
        **{f"{name}_correct": pack_bits(right) for name, right in (chosen_correct | judged).items()},
    }


def grids(tokens: torch.Tensor, task: BaseTask) -> np.ndarray:
    """Tokens [B, S] as cells int8 [B, side, side]; padding, which no cell is, becomes -1."""
    return (tokens.cpu().numpy() - 1).astype(np.int8).reshape(-1, task.grid_side, task.grid_side)

"""What can be found out about a model's dynamics on some puzzles: spectra and outcomes, far depths, restarts."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rrm.evaluate import grids
from rrm.lyapunov import diagnose, orthonormal_vectors, plain_rows
from rrm.models.act import Batch, Latents, RecursiveModel, StepOutput
from rrm.models.losses import TokenLoss, row_losses
from rrm.perturb import perturb_latents
from rrm.puzzles.tasks import BaseTask
from rrm.rollout import wants_to_halt

Found = dict[str, Tensor]  # a column each, on the CPU; a row an example
VARIATIONS = ("QR every 2 ACT steps", "vectors of seed 1", "vectors of seed 2", "twice as many vectors")


class Subject(NamedTuple):
    """What is diagnosed: a model, the puzzles on its device, and what their task and its loss say of answers."""

    model: RecursiveModel
    batch: Batch
    task: BaseTask
    token_loss: TokenLoss

    def part(self, rows: range) -> Batch:
        """Some of the puzzles."""
        return Batch(*(x[rows.start : rows.stop] for x in self.batch))

    def judged(self, output: StepOutput, batch: Batch) -> Found:
        """solved (exactly), and what else the task says of the answers (valid, shortest): bool [B] each."""
        losses = row_losses(output, batch.labels, self.token_loss)
        judged = self.task.judge(grids(batch.inputs, self.task), grids(losses.predicted, self.task))
        return {"solved": losses.correct.cpu()} | {name: torch.from_numpy(good) for name, good in judged.items()}


def _act_steps(
    model: RecursiveModel, batch: Batch, latents: Latents, steps: int
) -> Iterator[tuple[Latents, StepOutput]]:
    for _ in range(steps):
        latents, output = model.act_step(latents, batch)
        yield latents, output


def examine(subject: Subject, rows: range, k: int) -> Found:
    """The spectrum (rrm.lyapunov, in float32), and the outcome of the clean run in the model's forward_dtype.

    log_growth [B, T, k], drift and norm [B, T] float64; solved, on mazes valid and shortest, bool [B]; token_accuracy,
    q_halt [B] at the end; halt_step int64 [B]: the first ACT step after which it wants to halt, 0 if none.
    """
    model, batch = subject.model, subject.part(rows)
    spectra = diagnose(model, batch, k=k, batch_size=len(rows) * plain_rows(k))
    halt_step = torch.zeros(len(rows), dtype=torch.int64)
    output = None
    unrolled = _act_steps(model, batch, model.initial_latents(len(rows)), model.halt_max_steps)
    for step, (_, output) in enumerate(unrolled, 1):
        halt_step[(halt_step == 0) & wants_to_halt(model, output, step).cpu()] = step
    assert output is not None
    return subject.judged(output, batch) | {
        **{name: torch.from_numpy(getattr(spectra, name)) for name in ("log_growth", "drift", "norm")},
        "token_accuracy": row_losses(output, batch.labels, subject.token_loss).token_accuracy.double().cpu(),
        "q_halt": output.q_halt_logits.double().cpu(),
        "halt_step": halt_step,
    }


def deepen(subject: Subject, rows: range, depth: int) -> Found:
    """The clean run for `depth` ACT steps: drift and norm of the first latent [B, depth]; solved and so on [B, depth].

    drift is ||z_t - z_(t-1)||_F, z_0 the start. As the clean run of an evaluation: no halting, no reset.
    """
    model, batch = subject.model, subject.part(rows)
    name = model.latent_names[0]
    before = model.initial_latents(len(rows))
    z, answers, judged = before[name], batch.inputs.new_full(batch.inputs.shape, -1), {}
    steps: list[Found] = []
    for latents, output in _act_steps(model, batch, before, depth):
        after, predicted = latents[name], output.logits.argmax(-1)
        changed = (predicted != answers).any(dim=1).nonzero().squeeze(1)  # judging a maze's answer takes its time
        if len(changed):
            new = subject.judged(StepOutput(*(x[changed] for x in output)), Batch(*(x[changed] for x in batch)))
            for column, good in new.items():
                known = judged.get(column, torch.zeros(len(rows), dtype=torch.bool)).clone()
                known[changed.cpu()] = good
                judged[column] = known
        drift, norm = (after - z).flatten(1).norm(dim=1), after.flatten(1).norm(dim=1)
        steps.append(judged | {"drift": drift.double().cpu(), "norm": norm.double().cpu()})
        z, answers = after, predicted
    return {column: torch.stack([step[column] for step in steps], dim=1) for column in steps[0]}


def restart(
    subject: Subject, rows: range, failed: Tensor, restarts: int, sigmas: tuple[float, ...], batch_size: int
) -> Found:
    """The clean run again from z0 + sigma xi, for those puzzles of `rows` that failed, bool [B]: F of them.

    example [F], sigma [F, S]; of R restarts: solved and so on, q_halt [F, S, R]. xi is a function of (example,
    restart): the same for every sigma and model of that size, and R' < R restarts are the first of R.
    """
    model, batch = subject.model, subject.part(rows)
    chosen = failed.nonzero().squeeze(1)
    again = Batch(*(x[chosen.to(x.device)] for x in batch)).repeat(restarts)
    shape = (len(chosen), len(sigmas), restarts)
    columns = subject.task.judge(*(grids(batch.inputs[:0], subject.task),) * 2)
    found: Found = {name: torch.zeros(shape, dtype=torch.bool) for name in ("solved", *columns)}
    found |= {"example": chosen + rows.start, "q_halt": torch.zeros(shape, dtype=torch.float64)}
    found["sigma"] = torch.tensor(sigmas, dtype=torch.float64).expand(shape[:2])
    for s, sigma in enumerate(sigmas if len(chosen) else ()):
        starts = [
            perturb_latents(
                model.initial_latents(1),
                sigma=sigma,
                where=("z_H", "z_L"),
                rollouts=restarts,
                clean_first=False,
                seed=0,
                stream="diagnose.restart",
                step=0,
                rows=range(example, example + 1),
            )
            for example in found["example"].tolist()
        ]
        z0 = {name: torch.cat([start[name] for start in starts]) for name in model.latent_names}
        parts: list[Found] = []
        for first in range(0, len(again.inputs), batch_size):
            part = Batch(*(x[first : first + batch_size] for x in again))
            latents = {name: z[first : first + batch_size] for name, z in z0.items()}
            *_, (_, output) = _act_steps(model, part, latents, model.halt_max_steps)
            parts.append(subject.judged(output, part) | {"q_halt": output.q_halt_logits.double().cpu()})
        for name in parts[0]:
            found[name][:, s] = torch.cat([part[name] for part in parts]).view(len(chosen), restarts)
    return found


def vary(subject: Subject, rows: range, k: int) -> Found:
    """lambda_1, nats a sub-update, as `examine` estimates it, and by each of VARIATIONS: [B, 1 + V]."""
    model, batch = subject.model, subject.part(rows)
    size = sum(z[0].numel() for z in model.initial_latents(1).values())
    how = ({}, {"qr_every": 2}, {"seed": 1}, {"seed": 2}, {"k": min(2 * k, size)})
    orthonormal_vectors(size, k, 0)  # raises for a k that is too large
    spectra = [diagnose(model, batch, **({"k": k, "batch_size": len(rows) * plain_rows(2 * k)} | one)) for one in how]
    return {"lambda_1": torch.stack([torch.from_numpy(one.exponents[:, 0]) for one in spectra], dim=1)}

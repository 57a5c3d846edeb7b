"""Shards: a batch cut into runs of rows that are unrolled one by one and added up in a fixed binary tree.

The tree makes the sum independent of who computes which shard: any subtree of it is a sum of its own.
"""

from collections.abc import Generator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rrm.config import TrialConfig
from rrm.models.act import Latents, sent
from rrm.models.base import BaseModel
from rrm.models.losses import RowLosses
from rrm.noise import NoiseInTime
from rrm.perturb import PerturbConfig, draw_sigmas, noise_rms, perturb_latents
from rrm.puzzles.dataset import TaskData
from rrm.rollout import ROLLOUTS, Slots, Trajectories
from rrm.streams import uniforms
from rrm.winner import WINNER_CHANGES, WINNER_ENTROPY, Race, entropy, winner_takes_all

Terms = dict[str, Tensor]
PUZZLE_GRADIENT, PUZZLE_ROWS, LOSS, TRAINED = "puzzle table", "puzzle rows", "loss", "trained"


class TreeSum:
    """The sum of terms that come one by one: (0 + 1) + (2 + 3), and so on upwards; their number is a power of two.

    Of what came, one partial sum for each level of the tree is held. The terms are added in place.
    """

    def __init__(self) -> None:
        self._partial: list[tuple[int, Terms]] = []

    def add(self, terms: Terms) -> None:
        """Take up the next terms; each has the same names and shapes."""
        size = 1
        while self._partial and self._partial[-1][0] == size:
            _, before = self._partial.pop()
            torch._foreach_add_(list(before.values()), list(terms.values()))
            size, terms = 2 * size, before
        self._partial.append((size, terms))

    def total(self) -> Terms:
        """The sum of all that came."""
        ((_, terms),) = self._partial
        return terms


class Shard:
    """The rows `rows` of one training step's batch, in K trajectories a puzzle: in one, if nothing perturbs them.

    They are loaded and perturbed when they are first needed. `slots` are serial_act's for these rows, and are replaced.
    """

    def __init__(
        self,
        config: TrialConfig,
        model: BaseModel,
        data: TaskData,
        device: torch.device,
        step: int,
        rows: range,
        slots: list[Slots],
    ):
        self.config, self.model, self.data, self.device = config, model, data, device
        self.step, self.rows, self.slots = step, rows, slots
        self.rollouts = config.rollouts_at(step)
        self._noise: Terms = {}
        self._noise_in_time: NoiseInTime | None = None
        self._race = Race(self.rollouts) if config.races and self.rollouts > 1 else None
        self._losses = self._unroll()

    def backward(self, act_steps: int | None) -> Terms:
        """Train the next `act_steps` ACT steps, or all that are left, with one backward each; what is to be added up:

        the gradient of each parameter by its name, and of the puzzle table with how often its rows were gathered;
        the part of the batch's loss, and how many rows were trained; this shard's part of the mean of the noise: with
        the first steps, or with all where it comes again.
        """
        rows = self.config.rows_trained_at(self.step)
        scale = self.config.optimizer_steps_per_batch / rows
        loss, trained = torch.zeros((), dtype=torch.float64, device=self.device), 0
        for losses in islice(self._losses, act_steps):
            total = losses.total.sum()
            with self.model.tensorfloat32():
                (total * scale).backward()
            self.model.collect_gradients()
            loss += total.detach() / rows
            trained += len(losses.total)
        noise, self._noise = self._noise, {}
        if self._noise_in_time is not None:
            part = len(self.rows) / self.config.train.batch_size / self.config.optimizer_steps_per_batch
            found = self._noise_in_time.take_rms(self.model.latent_names, self.device)
            noise |= {f"noise_rms_{name}": rms * part for name, rms in found.items()}
        if self._race is not None:
            noise |= self._race.take()
        return self._take_gradients() | {LOSS: loss, TRAINED: torch.tensor(trained)} | noise

    def close(self) -> None:
        """Let go of what the unroll holds: a suspended generator and its shard hold each other."""
        self._losses.close()

    def _take_gradients(self) -> Terms:
        gradients: Terms = {}
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                gradients[name], parameter.grad = parameter.grad, None
        if self.model.puzzle_emb is not None:
            gradients[PUZZLE_GRADIENT], gradients[PUZZLE_ROWS] = self.model.puzzle_emb.take_gradients()
        return gradients

    def _unroll(self) -> Generator[RowLosses, None, None]:
        config = self.config
        latents = self.model.initial_latents(len(self.rows))
        perturb = config.perturb if config.rollouts > config.clean_first else None
        if perturb is not None and self.step < config.still_batches:
            columns = ("train_sigma", *(f"noise_rms_{name}" for name in latents))
            self._noise = {name: torch.zeros((), dtype=torch.float64, device=self.device) for name in columns}
        elif perturb is not None and perturb.when == "start":
            latents = self._perturbed(latents, perturb)
        elif perturb is not None:
            latents = {name: z.repeat_interleave(self.rollouts, dim=0) for name, z in latents.items()}
            self._noise_in_time = self._meets(perturb)
        start = Trajectories(
            self.data.train_batch(config.seed, self.step, config.train.batch_size, self.rows).to(self.device),
            latents,
            self.rollouts,
            config.model.token_loss,
            self._min_steps(),
            self.slots,
            config.train.normalise,
            constant_weights=config.optimizer_steps_per_batch == 1,
            noise=self._noise_in_time,
        )
        if self._race is not None and perturb is not None:
            yield from winner_takes_all(self.model, start, self._race, perturb.winner_carry)
        else:
            yield from ROLLOUTS[config.rollout](self.model, start)

    def _perturbed(self, z0: Latents, perturb: PerturbConfig) -> Latents:
        config = self.config
        sigmas = self._sigmas(perturb, self.step)
        latents = perturb_latents(
            z0,
            sigma=sigmas,
            where=perturb.where,
            rollouts=perturb.rollouts,
            clean_first=config.clean_first,
            seed=config.seed,
            stream="perturb",
            step=self.step,
            rows=self.rows,
            scale=perturb.scale,
            antithetic=perturb.antithetic,
        )
        self._note_sigmas(sigmas)
        for name, rms in noise_rms(z0, latents, config.clean_first).items():
            self._noise[f"noise_rms_{name}"] = rms * (len(self.rows) / config.train.batch_size)
        return latents

    def _meets(self, perturb: PerturbConfig) -> NoiseInTime:
        """What the trajectories meet on their way, those of serial_act from as many batches as they may last."""
        config = self.config
        batches = self.model.halt_max_steps if config.rollout == "serial_act" else 1
        sigmas = np.stack([self._sigmas(perturb, step) for step in range(self.step, self.step - batches, -1)])
        self._note_sigmas(sigmas[0])
        return NoiseInTime(
            perturb,
            sigmas,
            clean_first=config.clean_first,
            seed=config.seed,
            stream="perturb",
            step=self.step,
            rows=self.rows,
            device=self.device,
        )

    def _sigmas(self, perturb: PerturbConfig, step: int) -> np.ndarray:
        config = self.config
        return draw_sigmas(perturb, clean_first=config.clean_first, seed=config.seed, step=step, rows=self.rows)

    def _note_sigmas(self, sigmas: np.ndarray) -> None:
        mean = sigmas[:, int(self.config.clean_first) :].mean() * (len(self.rows) / self.config.train.batch_size)
        self._noise = {"train_sigma": torch.full((), mean, dtype=torch.float64, device=self.device)}

    def _min_steps(self) -> Tensor | None:
        """Exploration: some trajectories may not halt before a random step, from 2 to halt_max_steps."""
        config = self.config
        probability = config.train.halt_exploration_prob
        if config.rollout == "parallel_fixed" or not probability:
            return None
        u = np.stack([uniforms(config.seed, f"halt.{k}", self.step, self.rows, 4) for k in range(self.rollouts)], 1)
        steps = np.where(u[..., 0] < probability, 2 + np.floor(u[..., 1] * (self.model.halt_max_steps - 1)), 0)
        return sent(torch.from_numpy(steps.astype(np.int64)), self.device)


def noise_columns(total: Terms) -> Terms:
    """Of what shards added up, what noise there was, its mean over rows and perturbed trajectories, and who won."""
    return {name: value for name, value in total.items() if name.startswith(("train_sigma", "noise_rms_", "winner"))}


def noise_means(total: Terms, batches: int) -> dict[str, float]:
    """What an evaluation says of the noise of so many batches, which `noise_columns` added up."""
    means = {
        name: value.item() / batches for name, value in total.items() if name not in (WINNER_CHANGES, WINNER_ENTROPY)
    }
    if WINNER_CHANGES in total:
        changed, same = total[WINNER_CHANGES].tolist()
        means |= {WINNER_CHANGES: changed / max(1, changed + same), WINNER_ENTROPY: entropy(total[WINNER_ENTROPY])}
    return means


def shard_rows(batch_size: int, shards: int) -> list[range]:
    """The rows of each shard."""
    size = batch_size // shards
    return [range(start, start + size) for start in range(0, batch_size, size)]


def join_rows(parts: list[Any]) -> Any:
    """Lists and dicts of tensors, each for some rows, as one for all of them in order, on the CPU; of none, nothing."""
    if len(parts) < 2:
        return parts[0] if parts else []
    if isinstance(parts[0], dict):
        return {name: join_rows([part[name] for part in parts]) for name in parts[0]}
    if isinstance(parts[0], list):
        return [join_rows(list(items)) for items in zip(*parts, strict=True)]
    return torch.cat([part.cpu() for part in parts])  # those of other workers are there


def cut_rows(whole: Any, rows: range) -> Any:
    """Of a list or dict of tensors, those of some rows."""
    if isinstance(whole, dict):
        return {name: cut_rows(part, rows) for name, part in whole.items()}
    if isinstance(whole, list):
        return [cut_rows(part, rows) for part in whole]
    return whole[rows.start : rows.stop]

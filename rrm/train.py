"""Trainer: the one object that owns all state of a run and can give and take it whole."""

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from rrm.checkpoint import CheckpointError
from rrm.config import TrialConfig
from rrm.diagnose import DiagnoseConfig, asked_kinds, diagnose_parts, find
from rrm.diagnoses import Diagnoses
from rrm.dynamics import Subject
from rrm.evaluate import Watch, evaluate_split
from rrm.fidelity import fidelity_in_training
from rrm.flops import flops_of_training
from rrm.models import build_model
from rrm.models.act import Batch, on_its_way
from rrm.models.published import initial_state
from rrm.optim import EMA, OPTIMIZERS, schedule, sign_sgd
from rrm.puzzles.dataset import load_task
from rrm.rollout import Slots
from rrm.shards import (
    LOSS,
    PUZZLE_GRADIENT,
    PUZZLE_ROWS,
    TRAINED,
    Shard,
    Terms,
    TreeSum,
    cut_rows,
    join_rows,
    noise_columns,
    noise_means,
    shard_rows,
)
from rrm.streams import torch_generator
from rrm.torch_setup import check_compiler
from rrm.unroll import Unrolls
from rrm.winner import WINNER_CHANGES
from rrm.workers import ALONE, Workers

LATER = 4  # steps after which a GPU's loss is read: by then it is there


class DivergedError(ArithmeticError):
    """The training loss is not finite any more. The same config diverges again: a trial that did is not retried."""


class Trainer:
    """Trains and evaluates one TrialConfig on one device.

    `step` counts batches trained; `history` holds a row for each evaluation, split and noise level; `best` the step and
    accuracy of the best clean evaluation on validation, `last_accuracy` the accuracy of the last; `diagnoses` what each
    diagnosis found, `unrolls` a row for each example and sigma that the last evaluation was watched on (see
    rrm.unroll). Weights and their average start at `init_from` where it is given. Raises
    DataError if the puzzles cannot be had, CheckpointError if `init_from` cannot be used, CompilerError without a
    compiler for train.compile.
    """

    def __init__(self, config: TrialConfig, device: torch.device, workers: Workers = ALONE):
        self.config = config
        self.workers = workers
        self.device = device
        self.trial_id = config.trial_id()
        self.data = load_task(config.task, config.eval.n, config.train.batch_size)
        self.model = build_model(
            config.model,
            seq_len=config.task.seq_len,
            vocab_size=config.task.vocab_size,
            num_puzzles=self.data.num_puzzles,
            generator=torch_generator(config.seed, "init"),
        )
        if config.init_from is not None:
            start = config.init_from
            self.model.load_state_dict(initial_state(start.path, config.model, self.model.state_dict(), start.key))
        self.model.to(device)
        self.model.forward_dtype = config.train.forward_dtype
        if config.train.compile:
            check_compiler()
            self.model.compile_blocks()
        if config.train.cuda_graphs and device.type == "cuda":
            self.model.graph_recursion()
        optim = config.optim
        decayed = {True: [], False: []}
        for name, parameter in self.model.named_parameters():
            decayed[self.model.decays(name)].append(parameter)
        self.optimizer = OPTIMIZERS[optim.optimizer](
            [{"params": decayed[True]}, {"params": decayed[False], "weight_decay": 0.0}],
            lr=optim.lr,
            beta1=optim.beta1,
            beta2=optim.beta2,
            weight_decay=optim.weight_decay,
        )
        self.ema = EMA(self.model, optim.ema_rate)
        self.eval_batches = {
            split: self.data.eval_batch(split, config.eval.n).to(device) for split in ("validation", "test")
        }
        self.step = 0
        self.optimizer_steps = 0
        self.act_steps = 0
        self.shard_rows = workers.own(shard_rows(config.train.batch_size, config.train.shards))
        self.slots: list[list[Slots]] = [[] for _ in self.shard_rows]
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.last_accuracy: float | None = None
        self.diagnoses = Diagnoses(self.model.halt_max_steps, self.model.sub_updates)
        self.unrolls: list[dict[str, Any]] = []
        self.losses_since_evaluation: list[float] = []
        self.later = LATER if device.type == "cuda" else 0
        self._unread: deque[tuple[int, Callable[[], torch.Tensor]]] = deque()
        self.seconds = {"train": 0.0, "evaluate": 0.0, "last_evaluation": 0.0}
        self.noise_since_evaluation: dict[str, torch.Tensor] = {}

    def test_digest(self) -> str:
        """sha256 of the test puzzles that are evaluated: trials that agree in it were scored on the same ones."""
        tokens = self.eval_batches["test"]
        return hashlib.sha256(tokens.inputs.cpu().numpy().tobytes() + tokens.labels.cpu().numpy().tobytes()).hexdigest()

    def train_until(self, step: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Train up to `step`, evaluating at every multiple of eval.every on the way, step 0 included.

        `stop` is asked after each step, worker 0's alone, and ends the call early. Raises DivergedError.
        """
        self._evaluate_if_due()
        while self.step < step:
            started = time.perf_counter()
            self.train_step()
            self.seconds["train"] += time.perf_counter() - started
            self._evaluate_if_due()
            if self.workers.tell(stop()):
                break
        self._read_losses()

    def train_step(self) -> None:
        """One batch, shard by shard: its rollout, and each time that its ACT steps end in an optimizer step, that."""
        config = self.config
        shards = [
            Shard(config, self.model, self.data, self.device, self.step, rows, slots)
            for rows, slots in zip(self.shard_rows, self.slots, strict=True)
        ]
        loss, trained = torch.zeros((), dtype=torch.float64, device=self.device), 0
        rescale = 1.0
        self.model.train()
        for _ in range(config.optimizer_steps_per_batch):
            tree = TreeSum()
            with self.model.constant_weights():
                for shard in shards:
                    tree.add(shard.backward(act_steps=1 if config.optimizer_steps_per_batch > 1 else None))
            total = self._total(tree.total())
            loss += total[LOSS]
            trained += int(total[TRAINED])
            if config.rollout == "act_mask" and config.train.normalise == "valid_steps":
                rescale = config.rows_trained_at(self.step) / trained  # how many is known now
            for column, value in noise_columns(total).items():  # on the device: reading it would wait for it
                self.noise_since_evaluation[column] = self.noise_since_evaluation.get(column, 0) + value
            self._optimizer_step(total, rescale)
        for shard in shards:
            shard.close()
        self.step += 1
        self.act_steps += trained
        self._unread.append((self.step, on_its_way(loss * rescale)))
        self._read_losses(self.later)

    def _read_losses(self, later: int = 0) -> None:
        """Read the losses of all steps but the last `later`. Raises DivergedError for the first that is not finite.

        Nothing is evaluated or saved before all are read.
        """
        while len(self._unread) > later:
            step, loss = self._unread.popleft()
            value = loss().item()
            if not math.isfinite(value):
                raise DivergedError(f"the training loss is {'NaN' if math.isnan(value) else value} at step {step}")
            self.losses_since_evaluation.append(value)

    def _total(self, of_own_shards: Terms) -> Terms:
        """The sum over the shards of all workers, each of which goes up the last levels of the tree."""
        tree = TreeSum()
        for terms in self.workers.all_gather(of_own_shards):
            tree.add(terms)
        return tree.total()

    def _optimizer_step(self, gradients: Terms, rescale: float) -> None:
        """Update the weights with the gradients that the shards added up to, times `rescale`."""
        optim = self.config.optim
        self.optimizer_steps += 1

        def rate(base: float) -> float:
            return schedule(
                base,
                self.optimizer_steps,
                warmup_steps=optim.warmup_steps,
                total_steps=self.config.train.steps * self.config.optimizer_steps_per_batch,
                min_lr_ratio=optim.min_lr_ratio,
            )

        for name, parameter in self.model.named_parameters():
            parameter.grad = gradients.get(name)
        if rescale != 1:
            torch._foreach_mul_([p.grad for p in self.model.parameters() if p.grad is not None], rescale)
        penalty = self.model.penalty()
        if penalty is not None:
            penalty.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate(optim.lr)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.model.puzzle_emb is not None:
            sign_sgd(
                self.model.puzzle_emb.weights,
                gradients[PUZZLE_GRADIENT] * rescale,
                gradients[PUZZLE_ROWS] > 0,
                lr=rate(optim.puzzle_emb_lr),
                weight_decay=optim.puzzle_emb_weight_decay,
            )
        self.ema.update()

    def evaluate(self, watch: Watch | None = None) -> list[dict[str, Any]]:
        """Evaluate the averaged weights now: a row for each split and noise level (see rrm.evaluate).

        `watch` sees every ACT step that this worker takes on the test puzzles.
        """
        self.model.eval()
        with self.ema.applied(), self.model.constant_weights():
            return [
                row
                for split, batch in self.eval_batches.items()
                for row in evaluate_split(
                    self.model,
                    batch,
                    self.config.eval,
                    self.config.task,
                    token_loss=self.config.model.token_loss,
                    seed=self.config.seed,
                    split=split,
                    watch=watch if split == "test" else None,
                    workers=self.workers,
                )
            ]

    def diagnose(self, config: DiagnoseConfig) -> None:
        """Diagnose the averaged weights now (see rrm.diagnose); more than spectra after the last step only."""
        self.model.eval()
        task, loss = self.config.task, self.config.model.token_loss
        subject = Subject(self.model, Batch(*(x[: config.n] for x in self.eval_batches["test"])), task, loss)
        kinds = asked_kinds(config) if self.step == self.config.train.steps else ["examples"]
        with self.ema.applied():
            found = diagnose_parts(
                config,
                len(subject.batch.inputs),
                kinds,
                lambda kind, work, examples: self.workers.share_out(
                    work, lambda rows: find(subject, config, kind, rows, examples)
                ),
            )
        self.diagnoses.add(self.step, found)

    def _evaluate_if_due(self) -> None:
        evaluated = bool(self.history) and self.history[-1]["step"] == self.step
        if evaluated or self.step % self.config.eval.every:
            return
        self._read_losses()
        started, config = time.perf_counter(), self.config
        unrolls = Unrolls(config.eval, config.task, self.eval_batches["test"], self.model.halt_max_steps)
        rows = self.evaluate(unrolls.watch)
        watched = [row for rows in self.workers.gather(unrolls.rows()) for row in rows]
        watched.sort(key=lambda row: (row["example"], row["sigma"]))
        self.unrolls = [{"step": self.step} | row for row in watched]
        if config.diagnose is not None and self.step % config.diagnose.every == 0:
            self.diagnose(config.diagnose)
        losses, self.losses_since_evaluation = self.losses_since_evaluation, []
        noise, self.noise_since_evaluation = self.noise_since_evaluation, {}
        fidelity = self._noise_fidelity() if noise else {}
        so_far = {
            "step": self.step,
            "optimizer_steps": self.optimizer_steps,
            "act_steps": self.act_steps,
            "train_flops": float(flops_of_training(config, self.step, self.act_steps)),
            "train_loss": math.fsum(losses) / len(losses) if losses else None,
        } | noise_means(noise, len(losses))
        self.history += [so_far | fidelity | row for row in rows]
        # The first such row is that of training's own depth.
        clean = next(row["exact_accuracy"] for row in rows if row["split"] == "validation" and row["sigma"] == 0)
        self.last_accuracy = clean
        if self.best is None or clean > self.best["exact_accuracy"]:
            self.best = {"step": self.step, "exact_accuracy": clean}
        self.seconds["last_evaluation"] = time.perf_counter() - started
        self.seconds["evaluate"] += self.seconds["last_evaluation"]

    def _noise_fidelity(self) -> dict[str, float]:
        """What the precision leaves of the noise in training, by the averaged weights (see rrm.fidelity)."""
        if self.config.perturb is None:
            return {}
        with self.ema.applied(), self.model.constant_weights():
            return fidelity_in_training(self.model, self.eval_batches["test"], self.config.perturb)

    def weights(self) -> dict[str, torch.Tensor]:
        """The averaged weights, those that are evaluated, as a state dict of the model."""
        with self.ema.applied():
            return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on to the same bits, at worker 0. Elsewhere some of it is missing.

        Random streams are stateless: the step is their position. Raises DivergedError if a step's loss, read only now,
        is not finite.
        """
        self._read_losses()
        slots = [[bank._replace(batch=bank.batch._asdict())._asdict() for bank in shard] for shard in self.slots]
        return {
            "trial_id": self.trial_id,
            "step": self.step,
            "optimizer_steps": self.optimizer_steps,
            "act_steps": self.act_steps,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.shadow,
            "slots": join_rows(self.workers.gather(join_rows(slots))),
            "history": self.history,
            "diagnoses": self.diagnoses.state_dict(),
            "unrolls": self.unrolls,
            "best": self.best,
            "last_accuracy": self.last_accuracy,
            "losses_since_evaluation": self.losses_since_evaluation,
            "noise_since_evaluation": self.noise_since_evaluation,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state of the same trial. Raises CheckpointError, and changes nothing, if it is another's."""
        if state.get("trial_id") != self.trial_id:
            raise CheckpointError(f"a state of trial {state.get('trial_id')}, not of {self.trial_id}")
        changes = state["noise_since_evaluation"].get(WINNER_CHANGES)
        if changes is not None and changes.shape != (2,):  # it would be added up to wrong counts, silently
            raise CheckpointError(f"{WINNER_CHANGES} is of shape {tuple(changes.shape)}, an older version's")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, shadow in self.ema.shadow.items():
            shadow.copy_(state["ema"][name])
        self.slots = [[_slots_on(self.device, bank) for bank in cut_rows(state["slots"], r)] for r in self.shard_rows]
        self.step, self.optimizer_steps, self.act_steps = state["step"], state["optimizer_steps"], state["act_steps"]
        self.history, self.best = list(state["history"]), state["best"]
        self.last_accuracy = state["last_accuracy"]
        self.diagnoses.load_state_dict(state["diagnoses"])
        self.unrolls = list(state["unrolls"])
        self.losses_since_evaluation = list(state["losses_since_evaluation"])
        self._unread.clear()
        self.noise_since_evaluation = {name: x.to(self.device) for name, x in state["noise_since_evaluation"].items()}
        self.seconds = dict(state["seconds"])


def _slots_on(device: torch.device, state: dict[str, Any]) -> Slots:
    return Slots(
        latents={name: z.to(device) for name, z in state["latents"].items()},
        batch=Batch(**state["batch"]).to(device),
        steps=state["steps"].to(device),
        halted=state["halted"].to(device),
    )

"""Processes that are the workers of tiny trials, joined by gloo on loopback: `python joined.py FOLDER`."""

import itertools
import multiprocessing
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tiny import MULTI, TINY_HRM, TINY_SRM, tiny_config

from rrm import checkpoint
from rrm.checkpoint import serialise
from rrm.presets import merge
from rrm.streams import torch_generator
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer
from rrm.workers import ALONE, JoinedWorkers, Workers

CPU = torch.device("cpu")
MOST_WORKERS = 4
STAGES = {"one": 1, "two": 2, "four": MOST_WORKERS, "again": 1}
MIDDLE, LAST = 1, 2
MODELS: dict[str, dict[str, Any]] = {
    "trm-mlp": {},
    "trm-att": {"mlp_t": False, "pos_encodings": "rope"},
    "trm-singlez": {"single_z": True},
    "hrm": TINY_HRM,
    "srm": TINY_SRM | {"learn_kappa": True, "kappa": 0.8},
}
WINNER = {"objective": "winner_perturbed_ce", "perturb": {"sigma": 0.5, "rollouts": 3, "when": "act_step"}}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "clean": {},
    "single": {"objective": "single_perturbed_ce", "perturb": {"sigma": 0.5, "p_clean": 0.3, "when": "act_step"}},
    "multi": merge(MULTI, {"perturb": {"when": "update"}}),
    "winner": WINNER,
    "winner_share": merge(WINNER, {"perturb": {"winner_carry": "share_z_H"}}),
}
STEPS = [
    ("parallel_fixed", "rollout"),
    ("parallel_fixed", "act"),
    ("serial_act", "rollout"),
    ("serial_act", "act"),
    ("act_mask", "rollout"),
]
# How an evaluation or a diagnosis is shared out does not depend on how the weights were trained.
EVALUATED = {"n": 5, "batch_size": 2}
THINLY_EVALUATED = {"n": 2, "batch_size": 2, "sigmas": []}
DIAGNOSE = {
    "diagnose": {"every": LAST, "n": 5, "k": 2, "batch_size": 6, "depth": 4, "restarts": 2, "sigma": [0.5]},
}


def configs() -> dict[str, dict[str, Any]]:
    """Every model x objective x rollout x optimizer_step, four shards of a row each."""
    found = {}
    for (model, fields), objective, (rollout, step) in itertools.product(MODELS.items(), OBJECTIVES, STEPS):
        if objective.startswith("winner") and rollout != "parallel_fixed":
            continue
        if objective == "winner_share" and fields.get("single_z"):  # without a z_H to share
            continue
        train = {"steps": LAST, "shards": MOST_WORKERS, "optimizer_step": step, "halt_exploration_prob": 0.4}
        looked_at = (objective, rollout, step) == ("multi", "parallel_fixed", "act")
        normalise = {"clean": "slots", "single": "valid_steps"}.get(objective, "per_trajectory")
        found[f"{model} {objective} {rollout} {step}"] = {
            "model": fields | {"halt_max_steps": 2, "H_cycles": 1},
            "rollout": rollout,
            "train": train | ({"normalise": normalise} if rollout == "act_mask" else {}),
            "eval": {"every": LAST} | (EVALUATED if looked_at else THINLY_EVALUATED),
            **(DIAGNOSE if looked_at else {}),
            **_where(fields, OBJECTIVES[objective]),
        }
    return found


def _where(model: dict[str, Any], objective: dict[str, Any]) -> dict[str, Any]:
    """The objective, its noise on the latents that the model has."""
    return merge(objective, {"perturb": {"where": ["z_L"]}}) if model.get("single_z") and objective else objective


def from_the_start(name: str) -> bool:
    """Whether four workers train it from step 0, and one goes on from their middle; else they go on from a pair's."""
    return "multi" in name


def halting_trainer(changes: dict[str, Any], workers: Workers) -> Trainer:
    """With a halting head that says yes half of the time, where an untrained one never does."""
    trainer = Trainer(tiny_config(**changes), CPU, workers)
    torch.nn.init.normal_(trainer.model.q_head.weight, generator=torch_generator(0, "q_head"))
    torch.nn.init.zeros_(trainer.model.q_head.bias)
    return trainer


def join(folder: Path, name: str, rank: int, count: int) -> Workers:
    if count == 1:
        return ALONE
    return JoinedWorkers(dist.FileStore(str(folder / f"{name}.store"), count), rank, count, CPU)


def train_all(process: int, folder: Path, together: Barrier) -> None:
    """The life of one of four processes, each with its share of the configs: alone, in pairs, all four, alone again.

    Alone and in pairs from the start to the end; all four from there or from where the pairs had got in the middle;
    alone again from where four had got.
    """
    set_up_torch(1)
    for stage, count in STAGES.items():
        group, rank = divmod(process, count)
        workers = join(folder, f"{stage}.{group}", rank, count)
        for number, (name, changes) in enumerate(configs().items()):
            if number % (MOST_WORKERS // count) != group:
                continue
            if stage == "again" and not from_the_start(name):
                continue
            trainer = halting_trainer(changes, workers)
            middle, end = folder / f"{name}.middle.{count}.pt", folder / f"{name}.end.{stage}.pt"
            if stage == "again":
                trainer.load_state_dict(checkpoint.load(folder / f"{name}.middle.{MOST_WORKERS}.pt"))
            elif stage == "four" and not from_the_start(name):
                trainer.load_state_dict(checkpoint.load(folder / f"{name}.middle.2.pt"))
            else:
                trainer.train_until(MIDDLE)
                if count == (MOST_WORKERS if from_the_start(name) else 2):  # somebody goes on from it
                    state = trainer.state_dict()
                    if rank == 0:
                        middle.write_bytes(serialise(state))
            trainer.train_until(LAST)
            state = trainer.state_dict()
            if rank == 0:
                end.write_bytes(serialise(state))
            else:  # it has none of its own to save, and must have the same
                weights = {name: x.clone() for name, x in trainer.model.state_dict().items()}
                mine = {"weights": weights, "history": trainer.history, "diagnoses": trainer.diagnoses.state_dict()}
                (folder / f"{name}.end.{stage}.{rank}.pt").write_bytes(serialise(mine))
        if isinstance(workers, JoinedWorkers):
            dist.barrier()  # the pairs' states are whole
            workers.leave()
        together.wait()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    context = multiprocessing.get_context("fork")  # torch is read once
    together = context.Barrier(MOST_WORKERS)
    processes = [context.Process(target=train_all, args=(rank, folder, together)) for rank in range(MOST_WORKERS)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        if any(process.exitcode for process in processes):
            for process in processes:  # the others would wait for it
                process.kill()
        time.sleep(0.05)
    sys.exit(any(process.exitcode for process in processes))

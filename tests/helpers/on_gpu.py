"""Trials of a size at which a GPU takes its fast kernels, in seconds: hidden 128 on 9x9 Sudoku, 64 rows."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tiny import TINY_HRM, TINY_SRM, tiny_config

from rrm.checkpoint import serialise
from rrm.config import TrialConfig
from rrm.presets import merge
from rrm.streams import torch_generator
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer
from rrm.workers import ALONE, JoinedWorkers, Workers

DTYPES = ("float32", "tensorfloat32", "bfloat16")
_WIDTH: dict[str, Any] = {"hidden_size": 128, "puzzle_emb_ndim": 128, "L_layers": 2, "L_cycles": 2, "halt_max_steps": 3}
_HEADS: dict[str, Any] = _WIDTH | {"num_heads": 4, "expansion": 4.0}
MODELS: dict[str, dict[str, Any]] = {
    "trm-mlp": _HEADS,
    "trm-att": _HEADS | {"mlp_t": False, "pos_encodings": "rope"},
    "hrm": _HEADS | TINY_HRM,
    "srm": _WIDTH | TINY_SRM | {"learn_kappa": True, "kappa": 0.8},
}
ROLLOUTS: dict[str, dict[str, Any]] = {
    "parallel_fixed": {"train": {"optimizer_step": "act"}},
    "parallel_fixed, one optimizer step": {"train": {"optimizer_step": "rollout"}},
    "serial_act": {"rollout": "serial_act", "train": {"halt_exploration_prob": 0.4}},
    "act_mask": {"rollout": "act_mask", "train": {"optimizer_step": "rollout", "halt_exploration_prob": 0.4}},
    "noise at every update": {"rollout": "serial_act", "perturb": {"when": "update"}},
    "winner": {"objective": "winner_perturbed_ce", "perturb": {"winner_carry": "share_z_H"}},
}

GRAPHED: dict[str, dict[str, Any]] = {  # more that CUDA graphs are for
    "noise at every ACT step": {"rollout": "serial_act", "perturb": {"when": "act_step"}},
}


def gpu_config(model: str, rollout: str = "parallel_fixed", dtype: str = "float32", **train: Any) -> TrialConfig:
    """A trial of two rollouts a puzzle, one of them perturbed."""
    base = {
        "task": {"box": 3, "generate": {"puzzles": 256, "blanks": 30}},
        "model": MODELS[model],
        "objective": "multi_perturbed_ce",
        "perturb": {"sigma": 0.1, "rollouts": 2},
        "train": {"batch_size": 64, "steps": 8, "forward_dtype": dtype} | train,
        "eval": {"every": 2, "n": 16},
    }
    return tiny_config(**merge(base, (ROLLOUTS | GRAPHED)[rollout]))


def plain(value: Any) -> Any:
    """A state as one that can be compared: seconds are no result, tensors are bytes."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if key != "seconds"}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.cpu().numpy().tobytes() if isinstance(value, torch.Tensor) else value


def halting_trainer(config: TrialConfig, device: torch.device, workers: Workers = ALONE) -> Trainer:
    """With a halting head that says yes half of the time, where an untrained one never does."""
    trainer = Trainer(config, device, workers)
    torch.nn.init.normal_(trainer.model.q_head.weight, std=0.1, generator=torch_generator(0, "q", device=device))
    torch.nn.init.zeros_(trainer.model.q_head.bias)
    return trainer


def work(rank: int, folder: Path, names: list[tuple[str, str, str]], device: torch.device) -> None:
    """The life of one of two processes that share a GPU: they exchange by gloo, since NCCL takes one process a GPU."""
    set_up_torch(1)
    workers = JoinedWorkers(dist.FileStore(str(folder / "store"), 2), rank, 2, torch.device("cpu"))
    for number, name in enumerate(names):
        trainer = halting_trainer(gpu_config(*name, shards=4), device, workers)
        trainer.train_until(2)
        state = serialise(trainer.state_dict())
        if rank == 0:
            (folder / f"{number}.pt").write_bytes(state)
    workers.leave()

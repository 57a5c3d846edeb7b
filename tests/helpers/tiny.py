"""A tiny trial and a tiny sweep, as all test files use them."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from rrm.config import TrialConfig
from rrm.models import build_model
from rrm.models.base import BaseModel
from rrm.presets import PRESETS, merge
from rrm.streams import torch_generator
from rrm.torch_setup import CompilerError, check_compiler

# Milliseconds a step, and something of every kind: two latents, a puzzle table, an optimizer step an ACT step.
TINY: dict[str, Any] = {
    "task": {"box": 2, "generate": {"puzzles": 24, "blanks": 6}},
    "model": {
        "hidden_size": 8,
        "num_heads": 2,
        "expansion": 1.0,
        "H_cycles": 2,
        "L_cycles": 1,
        "L_layers": 1,
        "mlp_t": True,
        "pos_encodings": "none",
        "puzzle_emb_ndim": 8,
        "halt_max_steps": 2,
    },
    "objective": "clean",
    "optim": {"lr": 1e-3, "warmup_steps": 2, "ema_rate": 0.9},
    "train": {"steps": 12, "batch_size": 4, "optimizer_step": "act"},
    "eval": {"every": 4, "n": 8, "sigmas": [0.5], "rollouts": 2},
}
# Laid over TINY: None takes a field away.
TINY_HRM: dict[str, Any] = {"arch": "hrm", "H_layers": 1, "pos_encodings": "rope", "mlp_t": None}
TINY_SRM: dict[str, Any] = {"arch": "srm"} | dict.fromkeys(("mlp_t", "num_heads", "expansion", "pos_encodings"))
# Columns of the comparison that two runs of the same bits need not share.
TIMES = [f"{side}{column}" for side in ("", "baseline_") for column in ("minutes", "device_hours")]
MULTI = {"objective": "multi_perturbed_ce", "perturb": {"sigma": 0.5, "rollouts": 2}}


def tiny_config(**changes: Any) -> TrialConfig:
    """A trial that trains in a fraction of a second."""
    some = {name: value for name, value in changes.items() if value != {}}  # an empty mapping would replace
    config = merge(merge(TINY, {"seed": 0}), some)
    config["model"] = {name: value for name, value in config["model"].items() if value is not None}
    return TrialConfig.model_validate(config)


def preset_config(name: str, **changes: Any) -> TrialConfig:
    """A preset; one of published puzzles names files of them that need not be there."""
    files = {} if "generate" in PRESETS[name]["task"] else {"task": {"train": "train.csv", "test": "test.csv"}}
    return TrialConfig.model_validate(merge(merge(PRESETS[name], {"seed": 0} | files), changes))


def tiny_model(fields: dict[str, Any], *, halt_max_steps: int, num_puzzles: int = 1) -> BaseModel:
    """An untrained model of the tiny trial with other fields, for 4x4 Sudoku."""
    config = tiny_config(model=fields | {"halt_max_steps": halt_max_steps}).model
    return build_model(config, seq_len=16, vocab_size=6, num_puzzles=num_puzzles, generator=torch_generator(0, "init"))


def tiny_sweep(**changes: Any) -> dict[str, Any]:
    """A sweep of two arms and two seeds of the tiny trial, as a sweep file holds it."""
    sweep = {
        "name": "tiny",
        "base": TINY,
        "arms": {"baseline": {"objective": "clean"}, "multi2": MULTI},
        "baseline": "baseline",
        "seeds": [0, 1],
    }
    return merge(sweep, changes)


def write_spec(folder: Path, spec: Any, name: str = "sweep.yaml") -> str:
    """Write a sweep file and return its path."""
    with open(folder / name, "w") as file:
        YAML().dump(spec, file)
    return str(folder / name)


def has_compiler() -> bool:
    """Whether torch.compile works here."""
    try:
        check_compiler()
    except CompilerError:
        return False
    return True

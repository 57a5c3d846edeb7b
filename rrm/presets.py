"""Named starting points for a TrialConfig, smallest first; a sweep names one and says what differs."""

from copy import deepcopy
from typing import Any

_LAPTOP_TRAINING: dict[str, Any] = {
    "objective": "clean",
    "train": {"steps": 300, "batch_size": 32, "optimizer_step": "act"},
    "optim": {"lr": 3e-3, "weight_decay": 0.1, "warmup_steps": 20, "ema_rate": 0.98},
    "eval": {"every": 50, "n": 256, "batch_size": 64},
}
_SUDOKU_4X4 = {"task": {"box": 2, "generate": {"puzzles": 1000, "blanks": 9}}}
_SMALL_TRM = {"hidden_size": 32, "num_heads": 4, "H_cycles": 2, "L_cycles": 2, "L_layers": 1, "halt_max_steps": 4}

PRESETS: dict[str, dict[str, Any]] = {
    "sudoku-4x4-trm-mlp": _LAPTOP_TRAINING
    | _SUDOKU_4X4
    | {"model": _SMALL_TRM | {"mlp_t": True, "pos_encodings": "none"}},
    "sudoku-4x4-trm-att": _LAPTOP_TRAINING
    | _SUDOKU_4X4
    | {
        "model": _SMALL_TRM | {"hidden_size": 64, "L_layers": 2, "pos_encodings": "learned"},
        "optim": _LAPTOP_TRAINING["optim"] | {"lr": 1e-3},
    },
    "sudoku-9x9-trm-mlp": _LAPTOP_TRAINING
    | {"task": {"box": 3}, "model": _SMALL_TRM | {"mlp_t": True, "pos_encodings": "none"}},
}


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping; anything else is replaced whole. Changes neither."""
    merged = deepcopy(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = deepcopy(value)
    return merged

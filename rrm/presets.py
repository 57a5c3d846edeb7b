"""Named starting points for a TrialConfig, smallest first; a sweep names one and says what differs."""

from copy import copy
from typing import Any


class Replacement(dict[str, Any]):
    """A mapping that replaces the one it is laid over."""


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping; anything else is replaced whole. Changes neither.

    An empty mapping and a Replacement replace, too. None stands for a field that is removed: it stays None, so that
    what is laid over something else still removes it there. Parts are shared: nobody writes into a configuration.
    """
    merged = copy(base)
    for key, value in changes.items():
        under = merged.get(key)
        if isinstance(value, dict) and value and not isinstance(value, Replacement) and isinstance(under, dict):
            merged[key] = merge(under, value)
        elif isinstance(value, dict) and key in merged:
            merged[key] = Replacement(value)
        else:
            merged[key] = value
    return merged


# Small models that learn 4x4 Sudoku in half a minute on one core; tests/benchmarks/presets.py measures them.
_LAPTOP: dict[str, Any] = {
    "objective": "clean",
    "train": {"steps": 100, "batch_size": 16, "optimizer_step": "act"},
    "optim": {"lr": 3e-3, "weight_decay": 0.1, "warmup_steps": 20, "ema_rate": 0.98},
    "eval": {"every": 50, "n": 128, "batch_size": 64},
}
_SUDOKU_4X4: dict[str, Any] = _LAPTOP | {"task": {"box": 2, "generate": {"puzzles": 1000, "blanks": 9}}}
_ATTENTION_LEARNS_LATER: dict[str, Any] = {"train": {"steps": 500}, "eval": {"every": 100}}
_LONGER: dict[str, Any] = {"train": {"steps": 600, "batch_size": 32}, "eval": {"every": 100, "n": 256}}
_MAZE_5X5 = {"name": "maze", "side": 5, "augment": False, "generate": {"puzzles": 8000, "min_path": 4}}
_RECURSION = {"H_cycles": 2, "L_cycles": 2, "halt_max_steps": 4, "hidden_size": 32}
_TRM_MLP = _RECURSION | {"arch": "trm", "L_layers": 1, "mlp_t": True, "pos_encodings": "none"}
_TRM_ATT = _RECURSION | {"arch": "trm", "L_layers": 1, "num_heads": 4, "pos_encodings": "learned"}
_HRM = _RECURSION | {"arch": "hrm", "hidden_size": 64, "H_layers": 1, "L_layers": 1, "num_heads": 4}
_SRM = _RECURSION | {"arch": "srm", "hidden_size": 64, "L_layers": 2}

# The published recipes: hidden 512, batch 768, 1000 original puzzles, epochs * 1000 / batch steps, rounded to a
# multiple of the evaluation interval. Sources: README and config/cfg_pretrain.yaml of the two repositories. TRM
# (SamsungSAILMontreal/TinyRecursiveModels): 50000 epochs, L_cycles 6 on Sudoku and 4 on mazes, EMA. HRM
# (sapientinc/HRM): 20000 epochs; Sudoku on one GPU with batch 384 and lr 7e-5, mazes with 768 and 1e-4. Both compute in
# bfloat16, in which noise of sigma 1e-3 is lost within an ACT step (rrm/fidelity.py). Shards make them fit 24 GB.
_PUBLISHED: dict[str, Any] = {
    "objective": "clean",
    "rollout": "serial_act",
    "train": {"batch_size": 768, "optimizer_step": "act", "halt_exploration_prob": 0.1, "forward_dtype": "bfloat16"},
    "optim": {
        "lr": 1e-4,
        "weight_decay": 1.0,
        "puzzle_emb_lr": 1e-4,
        "puzzle_emb_weight_decay": 1.0,
        "warmup_steps": 2000,
        "ema_rate": 0.999,
    },
    "eval": {"every": 2500, "n": 500},
}
_EXTREME: dict[str, Any] = {"task": {"box": 3}, "eval": {"n": 1024}}
# Turned mazes have other labels than the rule of Maze-Hard gives, and the published script makes none by default.
_MAZE_HARD: dict[str, Any] = {"task": {"name": "maze", "side": 30, "augment": False}}
_WIDTH = {"hidden_size": 512, "puzzle_emb_ndim": 512, "halt_max_steps": 16}
_TRM_CYCLES = _WIDTH | {"H_cycles": 3, "L_cycles": 6, "L_layers": 2, "puzzle_emb_len": 16}
_PUBLISHED_TRM: dict[str, Any] = merge(
    _PUBLISHED, {"train": {"steps": 65000}, "model": _TRM_CYCLES | {"arch": "trm", "num_heads": 8}}
)
_PUBLISHED_HRM: dict[str, Any] = merge(
    _PUBLISHED,
    {
        "train": {"steps": 25000},
        "optim": {"ema_rate": 0.0},
        "model": _WIDTH | {"arch": "hrm", "num_heads": 8, "H_cycles": 2, "L_cycles": 2, "H_layers": 4, "L_layers": 4},
    },
)
_SRM_SIBLING: dict[str, Any] = merge(  # its bound holds to the rounding of its products
    _PUBLISHED,
    {"train": {"steps": 65000, "forward_dtype": "tensorfloat32"}, "model": _TRM_CYCLES | {"arch": "srm"}},
)

PRESETS: dict[str, dict[str, Any]] = {
    "sudoku-4x4-trm-mlp": _SUDOKU_4X4 | {"model": _TRM_MLP},
    "sudoku-4x4-trm-singlez": _SUDOKU_4X4 | {"model": _TRM_MLP | {"single_z": True}},
    "sudoku-4x4-trm-att": merge(_SUDOKU_4X4 | {"model": _TRM_ATT}, _ATTENTION_LEARNS_LATER),
    "sudoku-4x4-hrm": merge(
        _SUDOKU_4X4 | {"model": _HRM | {"pos_encodings": "learned"}}, _ATTENTION_LEARNS_LATER | {"optim": {"lr": 1e-3}}
    ),
    "sudoku-4x4-srm": _SUDOKU_4X4 | {"model": _SRM},
    "sudoku-9x9-trm-mlp": merge(_LAPTOP | {"task": {"box": 3}, "model": _TRM_MLP}, _LONGER),
    "maze-5x5-trm-mlp": merge(_LAPTOP | {"task": _MAZE_5X5, "model": _TRM_MLP}, _LONGER),
    "sudoku-extreme-trm-mlp": merge(
        merge(_PUBLISHED_TRM, _EXTREME),
        {"train": {"shards": 2}, "model": {"mlp_t": True, "pos_encodings": "none"}},
    ),
    "sudoku-extreme-trm-att": merge(_PUBLISHED_TRM, _EXTREME),
    "sudoku-extreme-hrm": merge(
        merge(_PUBLISHED_HRM, _EXTREME),
        {"train": {"steps": 52500, "batch_size": 384}, "optim": {"lr": 7e-5, "puzzle_emb_lr": 7e-5}},
    ),
    "sudoku-extreme-srm": merge(merge(_SRM_SIBLING, _EXTREME), {"train": {"shards": 2}}),
    "maze-hard-trm": merge(merge(_PUBLISHED_TRM, _MAZE_HARD), {"train": {"shards": 8}, "model": {"L_cycles": 4}}),
    "maze-hard-hrm": merge(merge(_PUBLISHED_HRM, _MAZE_HARD), {"train": {"shards": 8}}),
    "maze-hard-srm": merge(merge(_SRM_SIBLING, _MAZE_HARD), {"train": {"shards": 16}, "model": {"L_cycles": 4}}),
}

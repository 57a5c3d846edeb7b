"""Checkpoints as the published code writes them: torch.save of a state dict, and all_config.yaml beside it."""

from pathlib import Path
from typing import Any

import torch
from reference import Reference
from ruamel.yaml import YAML

CLASSES = {
    "HRM": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1",
    "TRM": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
    "TRM single latent": "recursive_reasoning.trm_singlez@TinyRecursiveReasoningModel_ACTV1",
}
OF_ARCH = (
    *("H_cycles", "L_cycles", "H_layers", "L_layers", "hidden_size", "num_heads", "expansion", "pos_encodings"),
    *("puzzle_emb_ndim", "puzzle_emb_len", "halt_max_steps", "halt_exploration_prob", "mlp_t", "no_ACT_continue"),
)


def publish(
    folder: Path, state: dict[str, Any], *, name: str = "step_50000", prefix: str = "_orig_mod.model.inner."
) -> Path:
    """Write a state dict whose names start with the ACT wrapper's `inner.`, or with none, under another prefix."""
    path = folder / name
    torch.save({prefix + key.removeprefix("inner."): value for key, value in state.items()}, path)
    return path


def all_config(reference: Reference, **arch: Any) -> dict[str, Any]:
    """The published configuration of a reference model; `arch` says what stands there instead."""
    held = {name: reference.config[name] for name in OF_ARCH if name in reference.config}
    loss = {"loss_type": "stablemax_cross_entropy", "name": "losses@ACTLossHead"}
    published = {"name": CLASSES[reference.entry["model"]], "forward_dtype": "bfloat16", "loss": loss}
    return {"arch": published | held | arch, "global_batch_size": 768, "lr": 1e-4, "epochs": 50000, "data_paths": ["x"]}


def write_all_config(folder: Path, content: Any) -> None:
    """Write it beside the checkpoints of a folder."""
    with open(folder / "all_config.yaml", "w") as file:
        YAML().dump(content, file)

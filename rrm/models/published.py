"""Initial weights from a checkpoint file: a published one as it is, or a best.pt or final.pt of ours.

The published code (pretrain.py of sapientinc/HRM and of SamsungSAILMontreal/TinyRecursiveModels) saves the state dict
of the compiled loss head around the ACT wrapper around the model, `_orig_mod.model.inner.<name>`, as `step_<n>`, and
the run's configuration beside it as all_config.yaml. Inside the wrappers its names are ours.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from torch import Tensor

from rrm.checkpoint import CheckpointError
from rrm.models import ModelConfig, build_model
from rrm.puzzles.remote import S3
from rrm.settings import Settings
from rrm.streams import torch_generator
from rrm.weights import MODEL, checkpoint_here, read_weights

_PUZZLE_TABLE = "puzzle_emb.weights"
# The file of a published class, from `arch.name: <folder>.<file>@<class>`, to the defaults that stand in its code.
_BOTH = {"puzzle_emb_ndim": 0, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
_HRM = _BOTH | {"arch": "hrm", "puzzle_emb_len": 0}
_TRM = _BOTH | {"arch": "trm", "puzzle_emb_len": 16, "mlp_t": False, "no_ACT_continue": True}
_PUBLISHED: dict[str, dict[str, Any]] = {
    "hrm_act_v1": _HRM,
    "hrm": _HRM,
    "trm": _TRM | {"single_z": False},
    "trm_singlez": _TRM | {"single_z": True},
}
# Where the configuration stands in the files that may stand beside a checkpoint.
_ORIGINALS = {"all_config.yaml": ("arch",), "trial.json": ("config", "model")}
_FREE = {"token_loss", "forward_dtype"}  # how weights are trained or rounded, not what they compute


class InitFrom(Settings):
    """Start from the weights in a checkpoint file: `name` in the folder `root`, or an absolute `name` alone.

    Both may be in a bucket. `key` says where in the file the weights stand, if they stand in several places.
    """

    root: str | None = None
    name: str = Field(min_length=1)
    key: str | None = None

    @model_validator(mode="after")
    def _is_somewhere(self) -> "InitFrom":
        if self.root is None and not (Path(self.name).is_absolute() or self.name.startswith(S3)):
            raise ValueError(f"root: missing for the name {self.name!r}; give its folder, or an absolute name")
        return self

    @property
    def place(self) -> str:
        """The file's path or URL."""
        if self.name.startswith(S3):
            return self.name
        root = self.root or ""
        return f"{root.rstrip('/')}/{self.name}" if root.startswith(S3) else str(Path(root, self.name))

    @property
    def path(self) -> Path:
        """The file, or its copy on this node. Raises DataError if it cannot be had."""
        return checkpoint_here(self.place)


def initial_state(
    path: Path, config: ModelConfig, shapes: dict[str, Tensor], key: str | None = None
) -> dict[str, Tensor]:
    """The state dict that a model of `config` starts with, in float32 on the CPU.

    `shapes` is the model's own state dict; its values are not read. A puzzle table of another number of rows gives its
    mean row to every row, as in the published loader. Raises CheckpointError with all that does not fit: the file
    itself, names, shapes, values, and each field in which the configuration beside the file, or in it, differs from
    `config`.
    """
    held, twice, metadata = read_weights(path, key, shapes.keys())
    missing = [name for name in shapes if name not in held]
    unexpected = [name for name in held if name not in shapes] + twice
    kinds = (("missing", missing), ("unexpected", unexpected))
    problems = [f"{kind}: {', '.join(names)}" for kind, names in kinds if names]
    ready: dict[str, Tensor] = {}
    for name, like in shapes.items():
        try:
            if name in held:
                ready[name] = _fitted(name, held[name], tuple(like.shape))
        except ValueError as error:
            problems.append(str(error))
    problems += _differences(path, config, metadata)
    if problems:
        raise CheckpointError("\n  ".join([f"{path}: does not fit the model", *problems]))
    return ready


def check_fit(path: Path, config: ModelConfig, *, seq_len: int, vocab_size: int, key: str | None = None) -> None:
    """Raise CheckpointError, as `initial_state` does, if a model of this shape cannot start from the file."""
    with torch.device("meta"):  # shapes without memory
        model = build_model(
            config, seq_len=seq_len, vocab_size=vocab_size, num_puzzles=1, generator=torch_generator(0, "init")
        )
    initial_state(path, config, model.state_dict(), key)


def _fitted(name: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """A held value as a float32 tensor of `shape`. Raises ValueError."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"not a weight: {name} is {kind}")
    tensor = value.float()
    if not tensor.isfinite().all():
        raise ValueError(f"not finite: {name} holds NaN or infinite values")
    if name == _PUZZLE_TABLE and tensor.ndim == 2 and len(tensor) and tensor.shape[1] == shape[1]:
        return tensor if len(tensor) == shape[0] else tensor.mean(dim=0, keepdim=True).expand(shape)
    if tensor.shape != shape:
        raise ValueError(f"shape: {name} has {tuple(tensor.shape)}, the model needs {shape}")
    return tensor


def _differences(path: Path, config: ModelConfig, metadata: dict[str, str]) -> Iterator[str]:
    """A line for each field in which a configuration in the checkpoint or its folder differs from the trial's model.

    Shapes do not show these: a wrong H_cycles would load, and give wrong numbers.
    """
    ours = config.model_dump() | {"puzzle_emb_len": config.prefix_positions}
    beside = {file: path.with_name(file) for file in _ORIGINALS if path.with_name(file).exists()}
    for file in [path.name] if MODEL in metadata else beside:
        try:
            text = beside[file].read_text(encoding="utf-8") if file in beside else metadata[MODEL]
            original = _architecture(text, _ORIGINALS.get(file, ()))
        except (YAMLError, ValueError, OSError, RecursionError) as error:
            reason = str(getattr(error, "problem", None) or error).partition("\n")[0]
            yield f"{file}: cannot be read ({reason}); mend it, or move it away"
            continue
        if original.get("puzzle_emb_len") == 0:  # as many as the puzzle vector needs
            original["puzzle_emb_len"] = -(-config.puzzle_emb_ndim // config.hidden_size)
        differing = [
            f"model.{field}: {ours[field]}, but {theirs} in {file}; set model.{field} to {theirs}"
            for field, theirs in original.items()
            if field in ours and field not in _FREE and theirs != ours[field]
        ]
        if differing:
            yield from differing
            way = f"put the checkpoint in a folder without {file}" if file in beside else "export it without trial.json"
            yield f"(to change the model on purpose, {way})"


def _architecture(text: str, place: tuple[str, ...]) -> dict[str, Any]:
    """The fields of the model that a checkpoint was trained as, under our names. Raises ValueError."""
    value = YAML(typ="safe", pure=True).load(text)  # JSON is YAML
    for key in place:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        raise ValueError(f"it has no {'.'.join(place)}")
    if "name" not in value:
        return value
    file = str(value["name"]).partition("@")[0].rpartition(".")[2]
    return _PUBLISHED.get(file, {"arch": value["name"]}) | value

"""How much memory a worker needs to train, counted on tensors without data, and how many shards make it fit."""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from rrm.config import TrialConfig
from rrm.models import MODEL_CONFIG, build_model
from rrm.models.act import Batch, Latents
from rrm.models.base import BaseModel
from rrm.models.losses import row_losses
from rrm.models.products import ForwardDtype
from rrm.streams import torch_generator

FREE_SHARE = 0.15  # of a GPU's memory, for what is not counted: temporary tensors, the libraries' own
COMPILED = 1.4  # times as much is kept by compiled blocks, of which torch decides: at most, as an H100 showed
FLOATS_PER_PARAMETER = 5  # itself, its average, two moments of the optimizer and a gradient


class _FusedAttention(TorchFunctionMode):
    """Attention keeps what a GPU's fused kernel keeps; on the meta device torch would take the one that keeps all."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_efficient_attention(*args, None, True)[0]
        return func(*args, **kwargs or {})


def parameters(config: TrialConfig) -> int:
    """Trained numbers of the model, without the puzzle table."""
    return _counted(config)[0]


def kept_bytes(config: TrialConfig) -> int:
    """What autograd keeps of one shard until it runs backward: the whole of an ACT step, for all rollouts at once.

    serial_act's rollouts are trained one by one, and of a race the winner alone. Where weights stay constant over the
    unroll and the model learns to continue, the look ahead is the next step, and two are held.
    """
    _, row, fixed = _counted(config)
    at_once = 1 if config.rollout == "serial_act" or config.races else _rollouts(config)
    rows = config.train.batch_size * at_once // config.train.shards
    fixed_weights = config.rollout == "parallel_fixed" and config.optimizer_steps_per_batch == 1
    looks_ahead_once = fixed_weights and not config.races
    return (1 + (config.model.learns_q_continue and looks_ahead_once)) * (row * rows + fixed)


def needed_bytes(config: TrialConfig) -> int:
    """Kept bytes, weights with all that belongs to them, partial sums of the shards' gradients, and all latents."""
    levels = config.train.shards.bit_length() - 1
    weights = 4 * (FLOATS_PER_PARAMETER + levels) * parameters(config)
    positions = config.model.prefix_positions + config.task.seq_len
    latent = 4 * config.train.batch_size * _rollouts(config) * positions * config.model.hidden_size
    kept = int(kept_bytes(config) * (COMPILED if config.train.compile else 1))
    return kept + weights + latent * len(config.model.latent_names)


def fits(config: TrialConfig, memory: int) -> bool:
    """Whether a GPU with so many bytes can train it."""
    return needed_bytes(config) <= (1 - FREE_SHARE) * memory


def shards_that_fit(config: TrialConfig, memory: int) -> int | None:
    """The smallest number of shards that does, from the present one on; None if no number does."""
    shards = config.train.shards
    while config.train.batch_size % shards == 0:
        train = config.train.model_copy(update={"shards": shards})
        if fits(config.model_copy(update={"train": train}), memory):
            return shards
        shards *= 2
    return None


def too_large(config: TrialConfig, memory: int, tried: bool = False) -> str:
    """Why a trial does not fit a GPU with so many bytes, and what to change; `tried` if it was found out by trying."""
    shards = shards_that_fit(config, memory)
    twice = 2 * config.train.shards
    if tried and shards == config.train.shards:
        shards = twice if config.train.batch_size % twice == 0 else None
    mend = "take a smaller train.batch_size" if shards is None else f"set train.shards: {shards}"
    return (
        f"train.shards: {config.train.shards} needs about {needed_bytes(config) / 1e9:.3g} GB of a GPU's memory and "
        f"this one has {memory / 1e9:.3g} GB; {mend}"
    )


def _rollouts(config: TrialConfig) -> int:
    """Trajectories a puzzle, at most: one where nothing perturbs them."""
    return config.rollouts_at(config.train.steps - 1)


def _counted(config: TrialConfig) -> tuple[int, int, int]:
    return _of_an_act_step(
        config.model.model_dump_json(), config.task.seq_len, config.task.vocab_size, config.train.forward_dtype
    )


@lru_cache
def _of_an_act_step(config_json: str, seq_len: int, vocab_size: int, dtype: ForwardDtype) -> tuple[int, int, int]:
    """Parameters; bytes kept for each row, and whatever their number."""
    parameters, sizes = 0, []
    for rows in (2, 4):
        model, latents, batch = without_data(config_json, rows, seq_len, vocab_size)
        model.forward_dtype = dtype
        parameters = sum(parameter.numel() for parameter in model.parameters())
        own = {x.untyped_storage()._cdata for x in (*model.parameters(), *model.buffers())}
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: Tensor, kept: dict[int, torch.UntypedStorage] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor), _FusedAttention():
            _, output = model.act_step(latents, batch)
            row_losses(output, batch.labels, "stablemax")
        sizes.append(sum(storage.nbytes() for name, storage in kept.items() if name not in own))
    row = (sizes[1] - sizes[0]) // 2
    return parameters, row, sizes[0] - 2 * row


def without_data(config_json: str, rows: int, seq_len: int, vocab_size: int) -> tuple[BaseModel, Latents, Batch]:
    """A model on torch's meta device, its initial latents and a batch: shapes alone."""
    config = MODEL_CONFIG.validate_json(config_json)
    with torch.device("meta"):
        model = build_model(
            config, seq_len=seq_len, vocab_size=vocab_size, num_puzzles=1, generator=torch_generator(0, "init")
        )
        tokens = torch.ones(rows, seq_len, dtype=torch.int64)
        return model, model.initial_latents(rows), Batch(tokens, tokens, torch.zeros(rows, dtype=torch.int64))

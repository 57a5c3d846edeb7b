"""Diagnosis of a checkpoint: its dynamics on test puzzles, as a table by example."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pydantic import ValidationError

from results.schema import DIAGNOSTICS_SCHEMA, TRIAL
from results.trial_files import DamagedFileError, read_json
from rrm.config import TrialConfig
from rrm.diagnose import diagnose_examples
from rrm.models import build_model
from rrm.models.published import initial_state
from rrm.puzzles.dataset import load_task
from rrm.streams import torch_generator
from rrm.torch_setup import set_up_torch


def config_beside(checkpoint: Path) -> TrialConfig | None:
    """The config of the trial whose folder a checkpoint stands in; None if it stands in no trial's folder.

    Raises DamagedFileError.
    """
    record = read_json(checkpoint.parent / TRIAL)
    try:
        return TrialConfig.model_validate_json(json.dumps(record["config"])) if record else None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, ("config", *first["loc"])))
        raise DamagedFileError(
            f"{checkpoint.parent / TRIAL}: {field}: {first['msg']}; give a sweep file with --spec"
        ) from error


def diagnose_checkpoint(
    checkpoint: Path, config: TrialConfig, *, n: int, k: int, batch_size: int, threads: int
) -> pa.Table:
    """The dynamics on the first n test puzzles (results.schema.DIAGNOSTICS_SCHEMA); on a GPU where there is one.

    Raises CheckpointError if the file does not fit the config's model, DataError for its puzzles, ValueError if k is
    more than the size of the state.
    """
    set_up_torch(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = config.task
    model = build_model(
        config.model,
        seq_len=task.seq_len,
        vocab_size=task.vocab_size,
        num_puzzles=1,
        generator=torch_generator(config.seed, "init"),
    )
    model.load_state_dict(initial_state(checkpoint, config.model, model.state_dict()))
    batch = load_task(task, n).eval_batch("test", n).to(device)
    rows = diagnose_examples(
        model.to(device).eval(), batch, k=k, batch_size=batch_size, token_loss=config.model.token_loss
    )
    common: dict[str, Any] = {"trial_id": config.trial_id(), "step": None}
    return pa.Table.from_pylist([common | row for row in rows], schema=DIAGNOSTICS_SCHEMA)

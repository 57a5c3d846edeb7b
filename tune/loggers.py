"""A trial's evaluations as a W&B run and as TensorBoard files, on request.

What is logged is the history in the trial's saved state, so a step is never logged twice and none is missed, however
often the trial was killed: files are written anew from it at each attempt, a run on a W&B server is taken up where it
ended.
"""

import os
import shutil
import sys
from contextlib import suppress
from glob import escape
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field, ValidationError, field_validator, model_validator

from results.schema import EVALS_SCHEMA
from rrm.settings import Settings

_OF_TRAINING = (
    *("optimizer_steps", "act_steps", "train_flops", "train_loss", "train_sigma", "noise_rms_z_H", "noise_rms_z_L"),
    *("noise_fidelity", "noise_fidelity_unroll", "noise_norm_ratio", "noise_fidelity_largest"),
    *("noise_fidelity_unroll_largest", "noise_norm_ratio_largest"),
    *("winner_changes", "winner_entropy"),
)
_OF_A_ROW = [
    field.name
    for field in EVALS_SCHEMA
    if pa.types.is_floating(field.type) and field.name not in (*_OF_TRAINING, "sigma")
]


_MODES = ("online", "offline", "disabled")
_NOT_IN_NAMES = "/\\#?%:"  # what W&B takes in no name of a project


class WandbConfig(Settings):
    """Where a sweep's W&B runs go, one a trial. Offline runs need no key; `wandb sync` sends them.

    `entity` is a user or a team, by default the one that W&B has for the key. `mode` is WANDB_MODE by default, and
    online without one.
    """

    project: str = Field(min_length=1, max_length=128)
    entity: str | None = Field(default=None, min_length=1)
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default_factory=list)
    mode: Literal["online", "offline", "disabled"] = "online"

    @model_validator(mode="before")
    @classmethod
    def _mode_of_the_environment(cls, values: Any) -> Any:
        given = os.environ.get("WANDB_MODE")
        if not given or not isinstance(values, dict) or "mode" in values:
            return values
        mode = {"dryrun": "offline", "run": "online"}.get(given, given)  # W&B's earlier names
        if mode not in _MODES:
            raise ValueError(
                f"mode: WANDB_MODE is {given!r}, which is not one of {', '.join(_MODES)}; mend or unset it"
            )
        return values | {"mode": mode}

    @field_validator("project", "entity")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if bad := sorted(set(value or "") & set(_NOT_IN_NAMES)):
            raise ValueError(f"{value!r} holds {' '.join(bad)}, and W&B's names none of {' '.join(_NOT_IN_NAMES)}")
        return value


def scalars(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The numbers of one evaluation (rows of results.schema.EVALS_SCHEMA) by name: `test/sigma_0.3/exact_accuracy`."""
    values = {name: rows[0].get(name) for name in _OF_TRAINING}
    for row in rows:
        when = row.get("when", "start")  # a history may have begun before there was another
        noise = f"{'sigma' if when == 'start' else when}_{row['sigma']:g}" if row["sigma"] else ""
        deeper = f"depth_{row['depth']}" if row["depth"] != rows[0]["depth"] else ""
        place = "/".join(filter(None, (row["split"], noise, deeper)))
        values |= {f"{place}/{name}": row.get(name) for name in _OF_A_ROW}
    return {name: value for name, value in values.items() if value is not None}


class TrialLog:
    """Somewhere that a trial's evaluations go."""

    next_step = 0  # the first one that is not there yet

    def write(self, history: list[dict[str, Any]]) -> None:
        """Log the evaluations of a history that are not logged yet."""
        for step, rows in groupby(history, key=lambda row: row["step"]):
            if step >= self.next_step:
                self._log(step, scalars(list(rows)))
                self.next_step = step + 1

    def _log(self, step: int, values: dict[str, float]) -> None:
        raise NotImplementedError

    def close(self, finished: bool) -> None:
        """Let go of it; `finished` says whether the trial trained to its end."""
        raise NotImplementedError


class WandbLog(TrialLog):
    """A W&B run in `folder`, with an id of its own. Raises wandb.Error if the server cannot be reached."""

    def __init__(
        self, folder: Path, to: WandbConfig, *, run_id: str, sweep: str, arm: str, name: str, config: dict[str, Any]
    ):
        import wandb

        if to.mode == "offline":
            for earlier in (folder / "wandb").glob(f"offline-run-*-{escape(run_id)}"):
                shutil.rmtree(earlier)
        self.run = wandb.init(
            entity=to.entity,
            project=to.project,
            tags=to.tags,
            id=run_id,
            group=sweep,
            job_type=arm,
            name=name,
            config=config,
            mode=to.mode,
            resume="allow",
            reinit="create_new",  # a run that an earlier trial left open in this process is not ours
            dir=folder,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.next_step = self.run.starting_step

    def _log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step, commit=True)  # without commit, a step waits for the next one

    def close(self, finished: bool) -> None:
        """End the run, which a later attempt may take up again."""
        self.run.finish(exit_code=0 if finished else 1)


def await_wandb() -> None:
    """Wait until W&B's own process has written what it was told: it ends with this one, which Ray ends at once."""
    if "wandb" in sys.modules:
        import wandb

        with suppress(OSError):  # that process is gone
            wandb.teardown()


class TensorBoardLog(TrialLog):
    """One event file in `folder`/tensorboard."""

    def __init__(self, folder: Path):
        from tensorboardX import SummaryWriter

        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def _log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self, finished: bool) -> None:
        """Close the file."""
        self.writer.close()


def logger_problems(wandb_config: WandbConfig | None, tensorboard: bool) -> list[str]:
    """Why the logs that are asked for cannot be written here: field, value, mend."""
    problems = []
    if tensorboard and find_spec("tensorboardX") is None:
        problems.append("tensorboard: true needs tensorboardX; pip install 'rrm[tensorboard]', or set it to false")
    if wandb_config is not None and wandb_config.mode != "disabled":
        problems += _wandb_problems(wandb_config)
    return problems


def _wandb_problems(to: WandbConfig) -> list[str]:
    import wandb

    try:
        wandb.setup()
    except ValidationError as error:  # of W&B's own settings
        return [f"wandb: WANDB_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}; mend it" for e in error.errors()]
    if to.mode == "offline":
        return []
    try:
        reason = None if wandb.login(prompt=False) else "there is no API key"
    except wandb.Error as error:
        reason = str(error).partition("\n")[0]
    mend = "set WANDB_API_KEY, or give mode: offline (or WANDB_MODE=offline)"
    return [f"wandb.mode: online, but {reason}; {mend}"] if reason else []

"""A checkpoint as the argument of a command: the config that it is of, and where what is found of it goes."""

import argparse
from pathlib import Path

from launch.paths import input_path
from results.storage import Location, back_from
from rrm.checkpoint import CheckpointError
from rrm.config import TrialConfig
from tune.diagnose import config_beside
from tune.spec import load_sweep


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the arguments CHECKPOINT and --key."""
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=input_path, help="best.pt, final.pt, or a published file"
    )
    parser.add_argument("--key", help="where in CHECKPOINT the weights stand, such as ema, if in several places")


def config_for(arguments: argparse.Namespace, checkpoint: Path) -> TrialConfig:
    """The config that a checkpoint is of: of the trial's folder it is in, or what --spec and --arm say."""
    if arguments.spec is None:
        config = config_beside(checkpoint)
        if config is None:
            raise CheckpointError(
                f"{arguments.checkpoint}: no trial.json beside it; say with --spec which model and puzzles it is for"
            )
        return config
    sweep = load_sweep(arguments.spec)
    arm = arguments.arm or sweep.spec.baseline
    cells = [cell for cell in sweep.cells if cell.arm == arm]
    if not cells:
        raise CheckpointError(f"--arm {arm}: no such arm; arms: {', '.join(sweep.spec.arms)}")
    return cells[0].config


def key_for(arguments: argparse.Namespace, config: TrialConfig, checkpoint: Path) -> str | None:
    """Where in a checkpoint the weights stand: --key, or init_from.key of a --spec that starts from this file."""
    start = config.init_from if arguments.spec is not None else None
    return arguments.key or (start.key if start is not None and start.path.samefile(checkpoint) else None)


def folder_of(arguments: argparse.Namespace, suffix: str) -> Location:
    """The folder of --output, or else beside the checkpoint: its name and a suffix."""
    folder = arguments.output or back_from(f"{arguments.checkpoint}{suffix}")
    if isinstance(folder, Path) and folder.exists() and not folder.is_dir():
        raise CheckpointError(f"--output {folder}: a file; give a folder")
    return folder

"""`rrm export`: the weights of a checkpoint, under our names, as a file for elsewhere."""

import argparse
from pathlib import Path

from torch import Tensor

from launch.checkpoints import add_checkpoint
from launch.paths import output_file
from results.schema import TRIAL
from results.storage import write_atomically
from results.trial_files import read_json
from rrm.checkpoint import CheckpointError
from rrm.weights import checkpoint_here, read_weights, write_weights

SUFFIXES = (".safetensors", ".pt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `rrm export` to its parser."""
    add_checkpoint(parser)
    parser.add_argument("file", metavar="FILE", type=output_file, help=f"to be written: {' or '.join(SUFFIXES)}")
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> int:
    suffix = Path(arguments.file.name).suffix
    if suffix not in SUFFIXES:
        raise CheckpointError(f"{arguments.file}: no name for weights; end it in {' or '.join(SUFFIXES)}")
    source = checkpoint_here(arguments.checkpoint)
    weights = read_weights(source, arguments.key)
    bad = [name for name, value in weights.state.items() if not isinstance(value, Tensor)]
    if bad or weights.twice:
        raise CheckpointError(f"{arguments.checkpoint}: no tensor, or there twice: {', '.join([*bad, *weights.twice])}")
    trial = read_json(source.parent / TRIAL)
    content = write_weights(weights.state, suffix, trial and trial["config"]["model"])
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.file, content)
    count = sum(tensor.numel() for tensor in weights.state.values())
    print(f"{arguments.file}: {len(weights.state)} tensors, {count} numbers")
    return 0

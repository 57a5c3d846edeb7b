"""`rrm diagnose`: the dynamics of a checkpoint, by example: does it wander, or settle wrong, and what frees it?"""

import argparse
import os

import torch
from pydantic import ValidationError

from launch.checkpoints import add_checkpoint, config_for, folder_of, key_for
from launch.paths import folder_path
from launch.progress import progress_bar
from results.diagnosis_text import told
from results.types import frame
from rrm.checkpoint import CheckpointError
from rrm.diagnose import DiagnosisConfig
from rrm.torch_setup import out_of_memory_is
from rrm.weights import checkpoint_here
from tune.diagnose import diagnose_checkpoint
from tune.output import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `rrm diagnose` to its parser."""
    add_checkpoint(parser)
    parser.add_argument("--spec", help="a sweep file whose model and puzzles to take; needed outside a trial's folder")
    parser.add_argument("--arm", help="of the sweep file (default: its baseline)")
    parser.add_argument("-n", type=int, default=64, help="test puzzles (default 64)")
    parser.add_argument(
        "-k", type=int, default=8, help="exponents (default 8); lambda_1 by window of the unroll is always there, too"
    )
    parser.add_argument(
        "--depth", type=int, help="unroll for so many ACT steps, too, such as 256: do the failed escape?"
    )
    parser.add_argument("--restarts", type=int, default=0, metavar="R", help="start each failed puzzle R times anew")
    parser.add_argument("--sigma", type=float, nargs="+", help="noise of the restarts' starts (default .01 .1 1)")
    parser.add_argument("--robustness", action="store_true", help="estimate lambda_1 in other ways, too")
    parser.add_argument("--batch-size", type=int, default=256, help="memory, in rows of a plain evaluation (256)")
    parser.add_argument(
        "--workers", type=int, default=0, help="of a Ray cluster (RAY_ADDRESS, else one of this machine)"
    )
    parser.add_argument("--threads", type=int, help="of each worker (default: every core, shared among them)")
    parser.add_argument(
        "--output", metavar="FOLDER", type=folder_path, help="of the tables (default: CHECKPOINT.diagnosis)"
    )
    parser.set_defaults(command=_diagnose)


def _diagnose(arguments: argparse.Namespace) -> int:
    for name, least in (("workers", 0), ("threads", 1)):
        given = getattr(arguments, name)
        if given is not None and given < least:
            raise CheckpointError(f"{name}: {given} is below {least}; give {least} or more")
    threads = arguments.threads or max(1, (os.cpu_count() or 1) // max(1, arguments.workers))
    asked = _asked(arguments)
    folder = folder_of(arguments, ".diagnosis")
    checkpoint = checkpoint_here(arguments.checkpoint)
    config = config_for(arguments, checkpoint)
    if asked.depth is not None and asked.depth <= config.model.halt_max_steps:
        raise CheckpointError(
            f"depth: {asked.depth} is not above model.halt_max_steps {config.model.halt_max_steps}, which is always "
            "diagnosed; give a deeper one"
        )
    try:
        with (
            out_of_memory_is(lambda: f"lower --batch-size ({asked.batch_size}) or -k ({asked.k})"),
            progress_bar() as progress,
        ):
            tables = diagnose_checkpoint(
                checkpoint,
                config,
                asked,
                folder,
                key=key_for(arguments, config, checkpoint),
                threads=threads,
                workers=arguments.workers,
                progress=progress,
            )
    except (ValueError, torch.OutOfMemoryError) as error:
        raise CheckpointError(str(error).replace(str(checkpoint), arguments.checkpoint)) from error
    out = console()
    out.print(told({name: frame(table) for name, table in tables.items()}, out.width))
    written = ", ".join(f"{name}.parquet" for name in tables)
    out.print(f"\nWritten: {folder}: {written}", soft_wrap=True)
    return 0


def _asked(arguments: argparse.Namespace) -> DiagnosisConfig:
    fields = {name: getattr(arguments, name) for name in DiagnosisConfig.model_fields if name != "sigma"}
    if arguments.sigma is not None:
        if not arguments.restarts:
            raise CheckpointError("sigma: given without restarts; say how many with --restarts")
        fields["sigma"] = tuple(arguments.sigma)
    try:
        return DiagnosisConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name, value = first["loc"][0], first["input"]
        least = first.get("ctx", {}).get("ge")
        what = f"{value} is below {least}; give {least} or more" if least is not None else first["msg"]
        raise CheckpointError(f"{name}: {what.removeprefix('Value error, ')}") from error

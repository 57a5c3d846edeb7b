"""`rrm diagnose`: the Lyapunov spectrum of a checkpoint, by example."""

import argparse
import math
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.table import Table

from launch.paths import input_path, output_file
from results.diagnostics import summary
from results.storage import back_from, write_atomically
from rrm.checkpoint import CheckpointError
from rrm.config import TrialConfig
from rrm.torch_setup import out_of_memory_is
from rrm.weights import checkpoint_here
from tune.diagnose import config_beside, diagnose_checkpoint
from tune.output import console
from tune.spec import load_sweep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `rrm diagnose` to its parser."""
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=input_path, help="best.pt, final.pt, or a published file"
    )
    parser.add_argument("--spec", help="a sweep file whose model and puzzles to take; needed outside a trial's folder")
    parser.add_argument("--arm", help="of the sweep file (default: its baseline)")
    parser.add_argument("-n", type=int, default=64, help="test puzzles (default 64)")
    parser.add_argument("-k", type=int, default=8, help="exponents (default 8)")
    parser.add_argument("--batch-size", type=int, default=256, help="memory, in rows of a plain evaluation (256)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: every core")
    parser.add_argument(
        "--output", metavar="FILE", type=output_file, help="parquet file (default: CHECKPOINT.diagnostics.parquet)"
    )
    parser.set_defaults(command=_diagnose)


def _diagnose(arguments: argparse.Namespace) -> int:
    for name in ("n", "k", "batch_size", "threads"):
        if getattr(arguments, name) < 1:
            raise CheckpointError(f"{name}: {getattr(arguments, name)} is below 1; give 1 or more")
    output = arguments.output or back_from(f"{arguments.checkpoint}.diagnostics.parquet")
    checkpoint = checkpoint_here(arguments.checkpoint)
    try:
        with out_of_memory_is(lambda: f"lower --batch-size ({arguments.batch_size}) or -k ({arguments.k})"):
            table = diagnose_checkpoint(
                checkpoint,
                _config(arguments, checkpoint),
                n=arguments.n,
                k=arguments.k,
                batch_size=arguments.batch_size,
                threads=arguments.threads,
            )
    except (ValueError, torch.OutOfMemoryError) as error:
        raise CheckpointError(str(error).replace(str(checkpoint), arguments.checkpoint)) from error
    content = pa.BufferOutputStream()
    pq.write_table(table, content)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, content.getvalue().to_pybytes())
    frame = table.to_pandas()
    found = summary(frame)
    shown = Table(box=None, pad_edge=False, header_style="bold", show_header=False)
    for what, value in (
        ("test puzzles", f"{len(frame)}, {found.solved} solved"),
        ("lambda_1, median", f"{found.lambda_1:+.4f} nats a sub-update"),
        ("  of the solved", _or_none(found.lambda_1_solved, "+.4f")),
        ("  of the failed", _or_none(found.lambda_1_failed, "+.4f")),
        ("positive modes, mean", f"{found.n_pos:.2f} of {arguments.k}"),
        ("settled", f"{found.settled:.0%}"),
        ("AUC of -lambda_1 for solved", _or_none(found.lambda_1_auc, ".3f")),
        ("AUC of -late drift for solved", _or_none(found.late_drift_auc, ".3f")),
    ):
        shown.add_row(what, value)
    out = console()
    out.print(shown)
    out.print(f"Written: {output}", soft_wrap=True)
    return 0


def _or_none(value: float, how: str) -> str:
    return "none" if math.isnan(value) else format(value, how)


def _config(arguments: argparse.Namespace, checkpoint: Path) -> TrialConfig:
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

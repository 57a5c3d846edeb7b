"""`rrm evaluate`: what a checkpoint solves, clean and under noise, at several depths and numbers of rollouts."""

import argparse
import os
from typing import Any

import torch
from pydantic import ValidationError

from launch.checkpoints import add_checkpoint, config_for, folder_of, key_for
from launch.evaluation_tables import CONTROL_LEGEND, LEGEND, against_clean, all_rows
from launch.paths import folder_path
from launch.progress import progress_bar
from results.schema import EVALS
from rrm.checkpoint import CheckpointError
from rrm.config import EvalConfig, TrialConfig
from rrm.torch_setup import out_of_memory_is
from rrm.weights import checkpoint_here
from tune.evaluate import evaluate_checkpoint
from tune.output import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `rrm evaluate` to its parser."""
    add_checkpoint(parser)
    parser.add_argument(
        "--spec", help="a sweep file whose model, puzzles and eval to take; needed outside a trial's folder"
    )
    parser.add_argument("--arm", help="of the sweep file (default: its baseline)")
    parser.add_argument(
        "--sigma", type=float, nargs="+", help="noise, in place of the config's eval.sigmas or eval.noise"
    )
    parser.add_argument("--when", nargs="+", help="start, act_step, update: when that noise comes (default start)")
    parser.add_argument("--where", nargs="+", help="z_H, z_L: where (default both)")
    parser.add_argument(
        "--rollouts", type=int, nargs="+", metavar="K", help="a row for each number, the first of the most"
    )
    parser.add_argument("--depths", type=int, nargs="+", help="ACT steps beyond those of the training")
    parser.add_argument("-n", type=int, help="test puzzles")
    parser.add_argument("--batch-size", type=int, help="trajectories at a time")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: every core")
    parser.add_argument("--output", metavar="FOLDER", type=folder_path, help="default: CHECKPOINT.evaluation")
    parser.set_defaults(command=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.threads < 1:
        raise CheckpointError(f"threads: {arguments.threads} is below 1; give 1 or more")
    folder = folder_of(arguments, ".evaluation")
    checkpoint = checkpoint_here(arguments.checkpoint)
    trained = config_for(arguments, checkpoint)
    config = _asked(arguments, trained)
    try:
        with (
            out_of_memory_is(lambda: f"lower --batch-size ({config.eval.batch_size})"),
            progress_bar() as progress,
        ):
            table = evaluate_checkpoint(
                checkpoint,
                config,
                folder,
                key=key_for(arguments, trained, checkpoint),
                threads=arguments.threads,
                trial_id=trained.trial_id(),
                fewer=tuple(arguments.rollouts or ()),
                progress=progress,
            )
    except (ValueError, torch.OutOfMemoryError) as error:
        raise CheckpointError(str(error).replace(str(checkpoint), arguments.checkpoint)) from error
    out = console()
    rows = table.to_pylist()
    out.print(all_rows(rows))
    out.print(LEGEND, soft_wrap=True, highlight=False)
    if config.eval.levels:
        out.print()
        out.print(against_clean(rows))
        out.print(CONTROL_LEGEND, soft_wrap=True, highlight=False)
    out.print(f"Written: {folder / EVALS}", soft_wrap=True)
    return 0


def _asked(arguments: argparse.Namespace, config: TrialConfig) -> TrialConfig:
    """The config with what the flags say of its evaluation."""
    fields: dict[str, Any] = {}
    if arguments.sigma is None and (arguments.when or arguments.where):
        raise CheckpointError("--when and --where say of --sigma when and where it comes; give --sigma, too")
    if arguments.sigma is not None:
        where = {"where": arguments.where} if arguments.where else {}
        levels = [{"when": when, "sigma": x} | where for when in arguments.when or ("start",) for x in arguments.sigma]
        fields |= {"noise": levels, "sigmas": []}
    if arguments.rollouts:
        fields["rollouts"] = max(arguments.rollouts)
        if min(arguments.rollouts) < 1:
            raise CheckpointError(f"--rollouts {min(arguments.rollouts)}: give 1 or more")
    for name in ("depths", "n", "batch_size"):
        if (value := getattr(arguments, name)) is not None:
            fields[name] = value
    try:
        evaluation = EvalConfig.model_validate(config.eval.model_dump() | fields)
        plain = config.model_dump() | {"eval": evaluation.model_dump(), "diagnose": None}
        return TrialConfig.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        text = first["msg"].removeprefix("Value error, ")
        raise CheckpointError(f"{place}: {text}" if place else text) from error

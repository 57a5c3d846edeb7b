"""Sweeps over recursive reasoning models: train, compare, diagnose."""

import argparse
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rich.table import Table

from launch import jobs, results_commands
from launch.local import JobError
from results.schema import REPORT
from results.trial_files import DamagedFileError
from tune.environment import settle
from tune.modules import reading_modules
from tune.output import console, outlets
from tune.plan import ALL_DONE, BAD_INPUT, SOME_FAILED, STOPPED, PlannedTrial, manifest, note_manifest, plan, planned
from tune.signals import ENDING, GOES_ON, handled

# torch and Ray take seconds to import: commands that train import them, on use.
if TYPE_CHECKING:
    from tune.expand import Cell
    from tune.spec import Sweep

MANY_TRIALS = 1000  # which take seconds to check, and their folders to look at
_EXIT_CODES = "exit code: 0 all done, 2 bad input (nothing was started), 3 some trials failed, 4 stopped before the end"


class UsageError(ValueError):
    """A command that cannot be carried out as given; the text says what to give instead."""


class _Command(argparse.ArgumentParser):
    """A command of `rrm`. One with a `module` imports it, which adds its arguments, once the command is used."""

    module = ""

    def parse_known_args(self, *arguments: Any, **named: Any) -> Any:
        """As ArgumentParser's."""
        if self.module:
            with reading_modules():
                module = import_module(self.module)
            module.add_arguments(self)
        return super().parse_known_args(*arguments, **named)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code. Bad input is one message on stderr and exit code 2.

    What cannot be printed is lost. If nobody reads it, nobody misses it; else (a full disk) one line on stderr says so,
    and a command that only prints has failed.
    """
    settle()
    with outlets() as (out, _):
        only_prints = True
        try:
            arguments = _parser().parse_args(argv)
            only_prints = getattr(arguments, "only_prints", False)
            code = _carried_out(arguments, argv)
        except SystemExit as end:  # argparse's: --help, or a command that is none
            code = int(end.code or ALL_DONE)
        out.flush()
        if out.failure is None or out.unread:
            return code
        reason = out.failure.strerror or out.failure
        print(f"standard output: {reason}; make room, and the same command prints what is lost again", file=sys.stderr)
        return code or (BAD_INPUT if only_prints else ALL_DONE)


def _carried_out(arguments: argparse.Namespace, argv: list[str] | None) -> int:
    try:
        return arguments.command(arguments)
    except (UsageError, JobError, DamagedFileError) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or ' '.join(argv or sys.argv[1:])}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(GOES_ON, file=sys.stderr)
        return STOPPED
    except _bad_input() as error:
        print(error, file=sys.stderr)
    return BAD_INPUT


def _bad_input() -> tuple[type[Exception], ...]:
    """The errors that say themselves what is wrong, of modules that are imported once something is."""
    from rrm.checkpoint import CheckpointError
    from rrm.puzzles.formats import DataError
    from tune.held_folder import BusyError
    from tune.memory import TooLargeError
    from tune.spec import SpecError

    return BusyError, CheckpointError, DataError, SpecError, TooLargeError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rrm", description=__doc__, epilog=_EXIT_CODES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Command)

    def command(name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help, epilog=_EXIT_CODES)
        sub.add_argument("spec", metavar="SPEC", help="a sweep file")
        results_commands.add_variations(sub)
        sub.set_defaults(command=run)
        return sub

    run = command("run", _run, "train what is left of a sweep on Ray Tune, then print the comparison")
    run.add_argument("--retry-failed", action="store_true", help="train diverged trials again too")
    train = command("train", _train, "train one trial of a sweep in this process, without Ray")
    train.add_argument("--arm", required=True)
    train.add_argument("--seed", required=True, type=int)
    train.add_argument("--point", help="the grid point, as `rrm plan` shows it, if the sweep has a grid")
    planned = command("plan", _plan, "show what a run would train, what is done, and what it costs")
    planned.add_argument("--gpu", default="h100", help="a GPU by name, for the hours at its full rate; h100 by default")
    planned.set_defaults(only_prints=True)
    results_commands.add_commands(commands)
    submit = command("submit", jobs.submit, "send a sweep to a Ray cluster as a job")
    jobs.add_commands(commands, submit)
    for name, help in (
        ("data", "build, generate, show and check puzzle files"),
        ("export", "the weights of a checkpoint as a safetensors file"),
        ("diagnose", "the Lyapunov spectrum of a checkpoint on test puzzles, as a table by example"),
        (
            "evaluate",
            "what a checkpoint solves: clean and under noise, by depth and number of rollouts; without training",
        ),
        ("watch", "serve a page of a storage's sweeps that goes on by itself; read-only, on this machine alone"),
        ("schema", "what a field of a sweep file holds; without FIELD the JSON schema, for editors"),
    ):
        commands.add_parser(name, help=help, description=help).module = f"launch.{name}"
    return parser


def _sweep(arguments: argparse.Namespace) -> "Sweep":
    with reading_modules():
        from tune.spec import load_sweep

    def told(trials: int) -> None:
        if trials > MANY_TRIALS:
            text = f"{arguments.spec}: {trials} trials at most; checking them and looking at their folders"
            print(text, file=sys.stderr, flush=True)

    return load_sweep(arguments.spec, arguments.overrides, arguments.preset, told)


def _run(arguments: argparse.Namespace) -> int:
    sweep = _sweep(arguments)
    with reading_modules():  # Ray takes seconds; bad input should not
        from tune.experiment import RunBroken, RunRefused, run_sweep

    try:
        with handled(ENDING, signal.default_int_handler):  # until trials run: then the run has its own
            code = run_sweep(sweep, arguments.retry_failed)
    except RunRefused as error:
        raise UsageError(str(error)) from error
    except RunBroken as error:
        print(error, file=sys.stderr)
        return SOME_FAILED
    if code == STOPPED and len(sweep.trials) > MANY_TRIALS:  # whoever stops it does not want to wait
        print(f"Stopped before the end; the same command goes on from here. So far: rrm results show {sweep.folder}")
        return code
    try:
        from results.gather import gather

        tables = gather(sweep.folder, manifest(sweep))
        results_commands.print_tables(tables)
        results_commands.print_report(tables, sweep.folder / REPORT)
    except Exception as error:  # noqa: BLE001 - the trials are what they are, whatever becomes of their tables and page
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, OSError) and error.filename:
            what = f"{error.filename}: {error.strerror}"
        mend = f"mend it and run `rrm results report {sweep.folder}`"
        print(f"the run is over, but its comparison could not be made: {what}; {mend}", file=sys.stderr)
    if code == STOPPED:
        print("Stopped before the end; the same command goes on from here.")
    return code


def _train(arguments: argparse.Namespace) -> int:
    sweep = _sweep(arguments)
    cell = _cell(sweep, arguments)
    sweep.check_data()
    trial = planned(sweep, cell)
    if trial.end.status == "done":
        note_manifest(sweep)
        print(f"{cell.name}: already done, {trial.folder}")
        return ALL_DONE
    if trial.end.status == "unreadable":
        raise DamagedFileError(trial.end.reason)
    sweep.check_logs()
    if cell.config.long_warm_up:
        print(f"{cell.arm}: {cell.config.long_warm_up}")
    asked_to_stop: list[int] = []
    with handled((signal.SIGINT, *ENDING), lambda number, _: asked_to_stop.append(number)):
        return _train_here(sweep, trial, asked_to_stop)


def _cell(sweep: "Sweep", arguments: argparse.Namespace) -> "Cell":
    cells = [cell for cell in sweep.cells if cell.arm == arguments.arm]
    if not cells:
        raise UsageError(f"--arm {arguments.arm}: no such arm; arms: {', '.join(sweep.spec.arms)}")
    cells = [cell for cell in cells if cell.seed == arguments.seed]
    if not cells:
        raise UsageError(f"--seed {arguments.seed}: not in seeds {sweep.spec.seeds}; give one of them")
    points = [cell.point_name for cell in cells]
    chosen = [cell for cell in cells if arguments.point in (None, cell.point_name)]
    if not chosen or len({cell.trial_id for cell in chosen}) > 1:
        given = "missing" if arguments.point is None else f"{arguments.point!r} is no point of the grid"
        raise UsageError(f"--point: {given}; give one of {points}")
    return chosen[0]


def _train_here(sweep: "Sweep", trial: PlannedTrial, asked_to_stop: list[int]) -> int:
    import torch

    from tune.job import TrialJob
    from tune.memory import check_memory, gpu_memory
    from tune.spec import Resources
    from tune.trial import TrialRun

    cell, resources = trial.cell, sweep.spec.resources
    job = TrialJob.of(sweep, cell, (resources or Resources()).threads)
    wants_gpu = resources is None or resources.gpu > 0
    device = torch.device("cuda" if wants_gpu and torch.cuda.is_available() else "cpu")
    check_memory([cell.config], 1.0 if device.type == "cuda" else 0.0, gpu_memory())
    try:
        with closing(TrialRun(job, device)) as run:
            note_manifest(sweep)
            while True:
                progress = run.advance(seconds=2.0)
                for message in progress.messages:
                    print(message, file=sys.stderr)
                accuracy = ""
                if progress.exact_accuracy is not None:
                    accuracy = (
                        f"  accuracy {progress.exact_accuracy:.3f} (evaluated in {progress.evaluation_seconds:.1f} s)"
                    )
                print(f"{cell.name}: step {progress.step}/{cell.config.train.steps}{accuracy}", flush=True)
                if progress.failed:
                    print(f"{cell.name}: failed: {progress.failed}", file=sys.stderr)
                    return SOME_FAILED
                if progress.finished:
                    print(f"{cell.name}: done, {trial.folder}")
                    return ALL_DONE
                if asked_to_stop:
                    print(f"{cell.name}: stopped and saved at step {progress.step}; the same command goes on from here")
                    return STOPPED
    except torch.OutOfMemoryError as error:
        print(f"{cell.name}: failed: {error}", file=sys.stderr)
        return SOME_FAILED
    except OSError as error:
        print(f"{cell.name}: failed: {error}; mend it, and the same command goes on from here", file=sys.stderr)
        return SOME_FAILED


def _plan(arguments: argparse.Namespace) -> int:
    from rrm.gpus import GPUS

    if arguments.gpu not in GPUS:
        raise UsageError(f"--gpu {arguments.gpu}: no such GPU here; give one of {', '.join(GPUS)}")
    sweep = _sweep(arguments)
    from launch.costs import print_costs

    trials = plan(sweep)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("arm", "point", "seed", "trial", "status", "step", "run"):
        table.add_column(heading, justify="right" if heading in ("seed", "step") else "left")
    points: dict[str, list[str]] = {}
    for cell in sweep.cells:
        points.setdefault(cell.trial_id, []).append(cell.point_name)
    for trial in trials:
        cell = trial.cell
        point = ", ".join(points[cell.trial_id])
        left = "would train" if trial.is_left(retry_failed=False) else ""
        step = f"{trial.step}/{cell.config.train.steps}"
        table.add_row(cell.arm, point, str(cell.seed), cell.trial_id, trial.end.status, step, left)
    left = sum(trial.is_left(retry_failed=False) for trial in trials)
    out = console()
    out.print(table)
    for trial in trials:
        if trial.end.status == "unreadable":
            out.print(f"{trial.cell.name}: {trial.end.reason}", soft_wrap=True)
    text = f"\n{sweep.spec.name}: {len(trials)} trials, {left} would be trained; {sweep.folder}"
    out.print(text, soft_wrap=True)
    out.print(_asked(sweep), soft_wrap=True)
    shares = {f"{trial.cell.config.evaluation_share:.0%}": None for trial in trials}
    out.print(f"evaluation takes {', '.join(shares)} of a trial's ACT steps\n", soft_wrap=True)
    print_costs(sweep.cells, arguments.gpu)
    return ALL_DONE


def _asked(sweep: "Sweep") -> str:
    """What the sweep is to answer, before its first seed is done."""
    from results.planning import seeds_needed
    from results.signals import NAMES

    by_place: dict[tuple[str, str], dict[int, str]] = {}
    for cell in sweep.cells:
        by_place.setdefault((cell.arm, cell.point_name), {})[cell.seed] = cell.trial_id
    baseline = sweep.spec.baseline
    pairs = {
        tuple((by_place[baseline, point][seed], trial_id) for seed, trial_id in mine.items())
        for (arm, point), mine in by_place.items()
        if arm != baseline
    }
    primary = sweep.spec.primary
    at = f" at sigma {primary.sigma:g}" if primary.sigma else ""
    needed, seeds = seeds_needed(max(len(pairs), 1)), len(sweep.spec.seeds)
    enough = f"{seeds} seeds, and a verdict on {len(pairs)} arms and points needs {needed}"
    return f"primary: {NAMES[primary.metric]}{at}; margin: {100 * sweep.spec.margin:g} points; {enough}"


if __name__ == "__main__":
    sys.exit(main())

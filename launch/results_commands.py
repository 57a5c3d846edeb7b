"""`rrm results`: gather sweeps into one data set, show one in the terminal, report it on a page.

A sweep is named by its folder or by its file. The folder's own manifest says what belongs to it, so that results can be
read where there is no sweep file, and without torch.
"""

import argparse
import sys
import time
from typing import TYPE_CHECKING

from launch.local import JobError
from launch.paths import input_path, output_file
from results.names import sweep_name_problem
from results.schema import MANIFEST, REPORT, TABLES
from results.storage import Location, back_from, location
from results.trial_files import DamagedFileError
from tune.modules import reading_modules
from tune.output import console
from tune.plan import ALL_DONE, BAD_INPUT, manifest

if TYPE_CHECKING:
    from results.gather import SweepTables

_SWEEP = "a sweep's folder, such as runs/quickstart or s3://bucket/prefix/quickstart, or a sweep file (.yaml)"


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add `results` and its commands to the parser of `rrm`."""
    help = "gather sweeps into one data set, show one, write its report; also while they run"
    results = commands.add_parser("results", help=help, description=help)
    kinds = results.add_subparsers(required=True, metavar="COMMAND")

    gather = kinds.add_parser("gather", help="gather sweeps into the tables of their storage, a line each")
    gather.add_argument("sweeps", metavar="SWEEP", nargs="+", type=input_path, help=_SWEEP)
    gather.set_defaults(command=_gather, overrides=None, preset=None)

    show = kinds.add_parser("show", help="gather a sweep, print its trials and its comparison")
    report = kinds.add_parser("report", help="gather a sweep and write its report, one HTML page")
    for kind, run in ((show, _show), (report, _report)):
        kind.add_argument("sweep", metavar="SWEEP", type=input_path, help=_SWEEP)
        add_variations(kind)
        kind.set_defaults(command=run, only_prints=kind is show)
    show.add_argument("--all", action="store_true", dest="everything", help="every metric, and every trial")
    formats = {"choices": ("csv", "json", "markdown", "latex"), "dest": "how"}
    show.add_argument("--format", **formats, help="print the comparison alone: its answer, or with --all all of it")
    report.add_argument("--output", metavar="FILE", type=output_file, help="default: report.html in the sweep's folder")


def add_variations(parser: argparse.ArgumentParser) -> None:
    """Add the options that lay values over a sweep file."""
    parser.add_argument(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        dest="overrides",
        help="lay a value over the sweep file, such as base.train.steps=100 or seeds=[0,1]; may be repeated",
    )
    parser.add_argument("--preset", metavar="NAME", help="a variant of the sweep that its file holds under `presets`")


def print_tables(tables: "SweepTables", everything: bool = False) -> None:
    """Print a sweep's comparison and its trials."""
    from results.text import show

    print(show(tables, console().width, everything))


def print_report(tables: "SweepTables", page: Location) -> None:
    """Write a sweep's page and print where it is."""
    with reading_modules():
        from results.report import write_report  # Altair takes a second to import

    print(f"  {write_report(tables, page)}")


def _gather(arguments: argparse.Namespace) -> int:
    code, written = ALL_DONE, {}
    # Of `runs/*`, the tables are what was gathered before.
    sweeps = [sweep for sweep in arguments.sweeps if location(sweep).name != TABLES]
    if not sweeps:
        raise JobError(
            f"{', '.join(arguments.sweeps)}: the tables of all sweeps there, and no sweep; give a sweep's folder"
        )
    for sweep in sweeps:
        started = time.monotonic()
        try:
            folder, tables = _gathered(sweep, arguments)
        except Exception as error:  # noqa: BLE001 - whatever odd files made of it: the other sweeps are gathered
            if isinstance(error, OSError):
                problem = f"{error.filename or sweep}: {error.strerror or error}"
            elif isinstance(error, JobError | DamagedFileError):
                problem = str(error)
            else:
                problem = f"{sweep}: cannot be gathered ({type(error).__name__}: {error})"
            print(problem, file=sys.stderr)
            code = BAD_INPUT
            continue
        print(f"{_line(tables)}; {time.monotonic() - started:.1f} s", flush=True)
        for problem in tables.problems:
            print(f"  left out: {problem}")
        if tables.unwritten:
            print(f"{sweep}: not written: {tables.unwritten}", file=sys.stderr)
            code = BAD_INPUT
            continue
        written[folder.parent / TABLES] = None
    for folder in written:
        print(f"Written: {folder}")
    return code


def _line(tables: "SweepTables") -> str:
    from results.rows import counted

    names = ("evals", "diagnostics", "comparison")
    rows = ", ".join(f"{len(getattr(tables, name))} {name}" for name in names)
    return f"{tables.sweep}: {len(tables.trials)} trials, {counted(tables.trials.status)}; rows: {rows}"


def _show(arguments: argparse.Namespace) -> int:
    tables = _gathered(arguments.sweep, arguments)[1]
    if arguments.how is None:
        print_tables(tables, arguments.everything)
        return ALL_DONE
    from results.text import export

    print(export(tables, arguments.how, arguments.everything))
    for problem in tables.problems:
        print(f"left out: {problem}", file=sys.stderr)
    if tables.unwritten:
        print(f"not written: {tables.unwritten}", file=sys.stderr)
    return ALL_DONE


def _report(arguments: argparse.Namespace) -> int:
    folder, tables = _gathered(arguments.sweep, arguments)
    try:
        print_report(tables, arguments.output or folder / REPORT)
    except OSError as error:
        if arguments.output is None and error.filename:
            raise JobError(f"{error.filename}: {error.strerror}; give --output FILE") from error
        raise
    return ALL_DONE


def _gathered(sweep: str, arguments: argparse.Namespace) -> tuple[Location, "SweepTables"]:
    """A sweep's folder and its tables. Raises JobError if there is no such sweep, or its file is wrong."""
    with reading_modules():
        from results.gather import gather

    if sweep.endswith((".yaml", ".yml")):
        with reading_modules():
            from tune.spec import SpecError, load_sweep  # torch takes seconds to import

        try:
            loaded = load_sweep(sweep, arguments.overrides, arguments.preset)
        except SpecError as error:
            raise JobError(str(error)) from error
        return loaded.folder, gather(loaded.folder, manifest(loaded))
    if arguments.overrides or arguments.preset:
        option = "--set" if arguments.overrides else "--preset"
        raise JobError(f"{option}: lays over a sweep file, and {sweep} is none; give the file, or leave it out")
    folder = back_from(sweep)
    if problem := sweep_name_problem(folder.name):
        raise JobError(f"{folder}: {problem}")
    try:
        return folder, gather(folder)
    except FileNotFoundError as error:
        raise JobError(f"{folder}: no sweep, for it holds no {MANIFEST}; give a sweep's folder or its file") from error

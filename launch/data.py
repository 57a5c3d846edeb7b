"""`rrm data`: build, generate, show and check puzzle files."""

import argparse
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from launch.paths import folder_for, folder_path, input_path
from rrm.puzzles import maze
from rrm.puzzles.build import build_processed, write_split_csv
from rrm.puzzles.check import CheckedSplit, check_disjoint, check_split
from rrm.puzzles.dataset import make_puzzles
from rrm.puzzles.formats import METADATA, DataError
from rrm.puzzles.puzzle import SPLITS
from rrm.puzzles.sources import is_hub_name, on_this_node, splits_in
from rrm.puzzles.tasks import BaseTask, MazeTask, SudokuTask, task_of
from tune.fields import explain
from tune.output import console

DONE, BAD_INPUT = 0, 2


def add_arguments(data: argparse.ArgumentParser) -> None:
    """Add the commands of `rrm data` to its parser."""
    kinds = data.add_subparsers(required=True, metavar="COMMAND")
    source = "a folder with train.csv and test.csv, or with processed train/ and test/, or a Hugging Face name"

    build = kinds.add_parser("build", help="write a data set in the published layout, or as CSV")
    build.add_argument("source", metavar="SOURCE", type=input_path, help=source)
    build.add_argument("output", metavar="OUTPUT", type=folder_path, help="the folder to write to")
    build.add_argument("--csv", action="store_true", help="write CSV files instead of processed arrays")
    build.add_argument("--subsample-size", type=_count, metavar="N", help="draw N originals of the train split")
    build.add_argument("--min-difficulty", type=int, metavar="N", help="Sudoku: keep rows whose rating is N or more")
    build.add_argument("--num-aug", type=_count, default=0, metavar="N", help="Sudoku: augmentations of each original")
    build.add_argument("--aug", action="store_true", help="mazes: all eight images of each original")
    build.add_argument("--seed", type=int, default=0, help="of numpy's legacy generator (default 0)")
    build.set_defaults(command=_build)

    generate = kinds.add_parser("generate", help="make puzzles and write them as CSV files, a split each")
    generate.add_argument("output", metavar="OUTPUT", type=folder_path, help="the folder to write to")
    kind = generate.add_mutually_exclusive_group(required=True)
    kind.add_argument("--sudoku", type=int, metavar="BOX", help="Sudoku with BOX x BOX boxes: 2, 3 or 4")
    kind.add_argument("--maze", type=int, metavar="SIDE", help="mazes of SIDE x SIDE cells")
    generate.add_argument("--blanks", type=int, default=9, help="Sudoku: at most so many blank cells (default 9)")
    generate.add_argument("--min-path", type=int, default=10, help="mazes: cells on a shortest path, at least (10)")
    generate.add_argument(
        "--kind", choices=("random", "perfect"), default="random", help="mazes: random walls (default)"
    )
    generate.add_argument("--unique", action="store_true", help="mazes: with one shortest path only")
    for split, count in (("train", 1000), ("validation", 0), ("test", 1000)):
        generate.add_argument(f"--{split}", type=_count, default=count, metavar="N", help=f"puzzles (default {count})")
    generate.add_argument("--seed", type=int, default=0)
    generate.set_defaults(command=_generate)

    show = kinds.add_parser("show", help="print a puzzle and its answer")
    show.add_argument("path", metavar="PATH", type=input_path, help="a CSV file, or a folder of processed arrays")
    show.add_argument("--row", type=int, help="which one: from 1 in a CSV, from 0 in arrays (default: the first)")
    show.set_defaults(command=_show, only_prints=True)

    check = kinds.add_parser("check", help="verify puzzle files: answers right, unique or shortest, splits disjoint")
    check.add_argument(
        "paths", metavar="PATH", nargs="+", type=input_path, help=f"CSV files, processed splits, or {source}"
    )
    check.set_defaults(command=_check, only_prints=True)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no count; give a whole number, 0 or more")
    return int(text)


def _build(arguments: argparse.Namespace) -> int:
    files = splits_in(arguments.source)
    task = task_of(files)
    unused = [
        option
        for option, given, fits in (
            (
                "--min-difficulty",
                arguments.min_difficulty is not None,
                isinstance(task, SudokuTask) and not arguments.csv,
            ),
            ("--num-aug", arguments.num_aug, isinstance(task, SudokuTask) and not arguments.csv),
            ("--aug", arguments.aug, isinstance(task, MazeTask) and not arguments.csv),
            ("--subsample-size", arguments.subsample_size, not arguments.csv),
        )
        if given and not fits
    ]
    if unused:
        raise DataError(f"{', '.join(unused)}: not for {'CSV files' if arguments.csv else f'{task.name} puzzles'}")
    with folder_for(arguments.output) as output:
        if arguments.csv:
            for split, file in files.items():
                puzzles = task.read(file)
                write_split_csv(task, puzzles, output / f"{split}.csv", source=Path(arguments.source).name)
                print(f"{arguments.output / f'{split}.csv'}: {len(puzzles)} puzzles")
            return DONE
        for folder, groups, examples in build_processed(
            task,
            output,
            subsample_size=arguments.subsample_size,
            min_difficulty=arguments.min_difficulty,
            num_aug=arguments.num_aug,
            aug=arguments.aug,
            seed=arguments.seed,
        ):
            print(f"{arguments.output / folder.name}: {groups} puzzles, {examples} with their augmentations")
    return DONE


def _generate(arguments: argparse.Namespace) -> int:
    kind: type[MazeTask | SudokuTask] = SudokuTask if arguments.maze is None else MazeTask
    options = {"puzzles": max(1, arguments.train), "seed": arguments.seed}
    if kind is MazeTask:
        options |= {"min_path": arguments.min_path, "kind": arguments.kind, "unique": arguments.unique}
        config = {"name": "maze", "side": arguments.maze, "generate": options}
    else:
        config = {"box": arguments.sudoku, "generate": options | {"blanks": arguments.blanks}}
    try:
        task = kind.model_validate(config)
    except ValidationError as error:
        raise DataError("\n".join(explain(problem, kind, "") for problem in error.errors())) from error
    source = f"rrm data generate --seed {arguments.seed}"
    with folder_for(arguments.output) as output:
        for split in SPLITS:
            if n := getattr(arguments, split):
                write_split_csv(task, make_puzzles(task, split, n), output / f"{split}.csv", source=source)
                print(f"{arguments.output / f'{split}.csv'}: {n} puzzles", flush=True)
    return DONE


def _show(arguments: argparse.Namespace) -> int:
    split = on_this_node(arguments.path)
    task = task_of({"train": split})
    puzzles = task.read(split)
    first = 0 if Path(split).is_dir() else 1
    row = first if arguments.row is None else arguments.row
    if not first <= row < len(puzzles) + first:
        raise DataError(f"--row {row}: {arguments.path} has rows {first} to {len(puzzles) + first - 1}")
    question, answer = puzzles.questions[row - first], puzzles.answers[row - first]
    out = console()
    draw = _maze_lines if isinstance(task, MazeTask) else _sudoku_lines
    sides = draw(task, question, question), draw(task, answer, question)
    if 2 * len(sides[0][0]) + 4 <= out.width:
        for left, right in zip(*sides, strict=True):
            out.print(left + Text("    ") + right)
    else:
        out.print(Text("\n").join([*sides[0], Text(), *sides[1]]))
    return DONE


def _sudoku_lines(task: BaseTask, grid: np.ndarray, question: np.ndarray) -> list[Text]:
    """A line of text for each row, filled cells in bold, boxes apart."""
    box = round(task.grid_side**0.5)
    lines = []
    for r, row in enumerate(grid):
        line = Text()
        for c, cell in enumerate(row):
            line.append("| " if c and c % box == 0 else "")
            line.append(task.symbols[cell], style="bold green" if cell and not question[r, c] else "")
            line.append(" ")
        if r and r % box == 0:
            lines.append(Text("+".join(["-" * (2 * box + (i > 0)) for i in range(box)])))
        lines.append(line)
    return [Text.assemble(line, " " * (max(map(len, lines)) - len(line))) for line in lines]


def _maze_lines(task: BaseTask, grid: np.ndarray, question: np.ndarray) -> list[Text]:
    """A line of text for each row, two columns a cell."""
    signs = {
        maze.WALL: ("██", "bright_black"),
        maze.FREE: ("  ", ""),
        maze.START: ("S ", "bold green"),
        maze.GOAL: ("G ", "bold red"),
        maze.PATH: ("o ", "yellow"),
    }
    return [Text.assemble(*(signs[int(cell)] for cell in row)) for row in grid]


def _check(arguments: argparse.Namespace) -> int:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("file", "task", "puzzles", "groups", "of which"):
        table.add_column(heading, justify="right" if heading in ("puzzles", "groups") else "left", overflow="fold")
    checked: list[CheckedSplit] = []
    problems: list[str] = []
    for path in (path for given in arguments.paths for path in _split_paths(given)):
        try:
            split = check_split(path)
        except DataError as error:
            problems.append(str(error))
            continue
        checked.append(split)
        problems += split.problems
        size, groups = split.task.grid_side, len(split.puzzles.groups) - 1
        counts = ", ".join(f"{count} {what}" for what, count in split.counts.items())
        table.add_row(path, f"{split.task.name} {size}x{size}", str(len(split.puzzles)), str(groups), counts)
    out = console()
    if checked:
        out.print(table)
    pairs, shared = check_disjoint(checked)
    problems += shared
    if pairs:
        out.print(f"{pairs} pairs of splits compared, {len(shared)} of them share puzzles")
    for remark in (remark for split in checked for remark in split.remarks):
        out.print(Text(f"note: {remark}", style="yellow"), soft_wrap=True)
    for problem in problems:
        out.print(Text(f"wrong: {problem}", style="red"), soft_wrap=True)
    out.print("nothing is wrong" if not problems else f"{len(problems)} problems")
    return BAD_INPUT if problems else DONE


def _split_paths(given: str) -> list[str]:
    """The splits that a path stands for: itself, or those of a data set."""
    if is_hub_name(given):
        return list(splits_in(given).values())
    split = on_this_node(given)
    is_split = Path(split).is_file() or (Path(split) / METADATA).is_file()
    return [split] if is_split else list(splits_in(given).values())

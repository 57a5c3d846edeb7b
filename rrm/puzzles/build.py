"""Data sets made as the published build scripts make them: same draws, same files, byte for byte."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rrm.puzzles import maze
from rrm.puzzles.formats import DataError, read_rows, write_csv, write_identifiers, write_processed
from rrm.puzzles.puzzle import Puzzles
from rrm.puzzles.sudoku import Augmentation
from rrm.puzzles.tasks import BaseTask, MazeTask, SudokuTask


def build_processed(
    task: BaseTask,
    output: Path,
    *,
    subsample_size: int | None,
    min_difficulty: int | None = None,
    num_aug: int,
    aug: bool,
    seed: int,
) -> Iterator[tuple[Path, int, int]]:
    """Write the processed arrays of each split of `task` under `output`; yields folder, originals and examples of each.

    As the published scripts: of each split, rows rated below `min_difficulty` are left out; `subsample_size` rows of
    train are drawn without replacement; each original of a Sudoku train split is followed by `num_aug` augmentations of
    it, each of a maze's, with `aug`, by its seven images. Draws come from numpy's legacy generator with `seed`
    (numpy.random.seed(seed) before the script). Raises DataError.
    """
    rng = np.random.RandomState(seed)
    for split, path in task.files.items():
        puzzles = task.read(path)
        if min_difficulty is not None:
            puzzles = puzzles.take(_rated(path, min_difficulty))
        train = split == "train"
        if train and subsample_size is not None and subsample_size < len(puzzles):
            puzzles = puzzles.take(rng.choice(len(puzzles), size=subsample_size, replace=False))
        if train and isinstance(task, SudokuTask) and num_aug:
            grids = _with_augmentations(task, puzzles, num_aug, rng)
        elif train and isinstance(task, MazeTask) and aug:
            grids = _with_images(puzzles)
        else:
            grids = puzzles
        inputs, labels = ((cells + 1).reshape(len(cells), -1) for cells in grids[:2])
        if not (train and isinstance(task, SudokuTask) and num_aug):
            inputs, labels = inputs.astype(np.uint8), labels.astype(np.uint8)
        write_processed(output / split, inputs, labels, grids.groups, task.vocab_size)
        yield output / split, len(puzzles), len(grids)
    write_identifiers(output)


def _rated(path: str, min_difficulty: int) -> np.ndarray:
    """Which rows of a CSV have at least this rating."""
    if Path(path).is_dir():
        raise DataError(
            f"{path}: processed arrays, which have no ratings to compare with --min-difficulty; give CSV files"
        )
    ratings = []
    for number, row in enumerate(read_rows(path), start=1):
        try:
            ratings.append(int(row.get("rating", "")))
        except ValueError as error:
            what = f"{path}: row {number}: rating {row.get('rating', '')!r} is no whole number"
            raise DataError(f"{what}, which --min-difficulty compares; mend it, or leave that out") from error
    kept = np.array(ratings) >= min_difficulty
    if not kept.any():
        raise DataError(f"{path}: no row is rated {min_difficulty} or more; the highest rating is {max(ratings)}")
    return kept


def _with_augmentations(task: SudokuTask, puzzles: Puzzles, num_aug: int, rng: np.random.RandomState) -> Puzzles:
    """Each puzzle followed by its augmentations, int64: the published script widens them by its digit map."""
    questions, answers = [], []
    for question, answer in zip(puzzles.questions, puzzles.answers, strict=True):
        draws = [published_augmentation(task.box, rng) for _ in range(num_aug)]
        for grid, into in ((question, questions), (answer, answers)):
            into += [grid, *(draw.apply(grid[None])[0] for draw in draws)]
    groups = np.arange(len(puzzles) + 1) * (1 + num_aug)
    return Puzzles(np.stack(questions).astype(np.int64), np.stack(answers).astype(np.int64), groups)


def published_augmentation(box: int, rng: np.random.RandomState) -> Augmentation:
    """An augmentation of one grid, drawn in the order of the published script: digits, transposition, rows, columns."""
    side = box * box

    def lines() -> np.ndarray:
        return np.concatenate([group * box + rng.permutation(box) for group in rng.permutation(box)])[None]

    digits = np.concatenate(([0], rng.permutation(np.arange(1, side + 1))))[None]
    transpose = np.array([rng.rand() < 0.5])
    row_perm = lines()
    return Augmentation(transpose, row_perm, lines(), digits)


def _with_images(puzzles: Puzzles) -> Puzzles:
    """Each maze followed by its seven other images, in the order of their identifiers."""
    images = len(maze.DIHEDRAL)
    ids = np.tile(np.arange(images), len(puzzles))
    questions, answers = (maze.dihedral(np.repeat(grids, images, axis=0), ids) for grids in puzzles[:2])
    return Puzzles(questions, answers, np.arange(len(puzzles) + 1) * images)


def write_split_csv(task: BaseTask, puzzles: Puzzles, path: Path, source: str) -> None:
    """Write puzzles as a CSV of the published form.

    A maze's rating is the number of cells on its path, start and goal counted; a Sudoku's, not known here, is empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(
        path,
        (
            {
                "source": source,
                "question": task.text(question),
                "answer": task.text(answer),
                "rating": str(np.count_nonzero(answer >= maze.START)) if isinstance(task, MazeTask) else "",
            }
            for question, answer in zip(puzzles.questions, puzzles.answers, strict=True)
        ),
    )

"""Order, augmentation, splits and puzzle files."""

import csv
from pathlib import Path

import numpy as np
import pytest

from rrm.puzzles.dataset import load_task
from rrm.puzzles.formats import DataError
from rrm.puzzles.puzzle import split_of
from rrm.puzzles.sudoku import are_solutions, generate
from rrm.puzzles.tasks import GenerateSudoku, SudokuTask

GENERATED = SudokuTask(box=2, generate=GenerateSudoku(puzzles=20, blanks=6))


def write_csv(path: Path, puzzles: list[tuple[str, str]]) -> str:
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["source", "question", "answer", "rating"])
        rows.writerows(["here", *puzzle, 0] for puzzle in puzzles)
    return str(path)


def texts(split: str, n: int, first: int = 0) -> list[tuple[str, str]]:
    puzzles = [generate(2, 6, split, 0, index) for index in range(first, first + n)]
    return [tuple("".join(map(str, g.flat)).replace("0", ".") for g in puzzle) for puzzle in puzzles]


def grids(tokens) -> np.ndarray:
    return tokens.numpy().reshape(-1, 4, 4) - 1


def test_tokens_are_digits_plus_one_and_every_cell_is_labelled():
    batch = load_task(GENERATED, 8).eval_batch("test", 8)
    assert batch.inputs.min() == 1
    assert batch.labels.min() == 2
    assert batch.labels.max() == 5 == GENERATED.vocab_size - 1


def test_each_pass_sees_each_puzzle_once():
    data = load_task(SudokuTask(box=2, generate=GENERATED.generate, augment=False), 8)
    for seed in (0, 1):
        seen = [q.tobytes() for step in range(10) for q in data.train_batch(seed, step, 4).inputs.numpy()]
        assert sorted(seen[:20]) == sorted(seen[20:])
        assert seen[:20] != seen[20:]


def test_batches_are_functions_of_seed_step_and_row():
    data = load_task(GENERATED, 8)
    whole = data.train_batch(seed=3, step=7, batch_size=6)
    part = data.train_batch(seed=3, step=7, batch_size=6, rows=range(2, 5))
    assert all((a[2:5] == b).all() for a, b in zip(whole, part, strict=True))
    assert not (data.train_batch(seed=4, step=7, batch_size=6).inputs == whole.inputs).all()
    assert not (data.train_batch(seed=3, step=8, batch_size=6).inputs == whole.inputs).all()


def test_augmentation_never_reaches_a_held_out_grid():
    data = load_task(GENERATED, 8)
    trained = {
        a.tobytes(): a for step in range(100) for a in grids(data.train_batch(0, step, 8).labels).astype(np.int8)
    }
    assert len(trained) > 150  # of the 196 grids for training: augmentation does wander
    assert all(are_solutions(a[None], 2).all() and split_of(a.tobytes()) == "train" for a in trained.values())


def test_augmentation_of_files_never_reaches_a_held_out_grid(tmp_path):
    train = write_csv(tmp_path / "train.csv", texts("train", 10))
    held_out = write_csv(tmp_path / "test.csv", texts("test", 40) + texts("validation", 40))
    data = load_task(SudokuTask(box=2, train=train, test=held_out), 8)
    forbidden = {a.tobytes() for name in ("validation", "test") for a in data.splits[name].answers}
    assert len(forbidden) > 40
    for step in range(40):
        for answer in grids(data.train_batch(0, step, 8).labels).astype(np.int8):
            assert answer.tobytes() not in forbidden


def test_test_file_is_halved_by_solution_grid(tmp_path):
    train = write_csv(tmp_path / "train.csv", texts("train", 10))
    test = write_csv(tmp_path / "test.csv", texts("test", 40))
    data = load_task(SudokuTask(box=2, train=train, test=test), 5)
    validation, scored = data.splits["validation"], data.splits["test"]
    assert len(validation) + len(scored) == 40
    assert not {a.tobytes() for a in validation.answers} & {a.tobytes() for a in scored.answers}


def test_a_task_is_its_puzzles_not_its_paths(tmp_path):
    (tmp_path / "there").mkdir()
    tasks = []
    for folder in (tmp_path, tmp_path / "there"):
        train = write_csv(folder / "a.csv", texts("train", 5))
        tasks.append(SudokuTask(box=2, train=train, test=write_csv(folder / "b.csv", texts("test", 9))))
    assert tasks[0].identity() == tasks[1].identity()
    write_csv(tmp_path / "there" / "a.csv", texts("train", 6))
    assert tasks[0].identity() != tasks[1].identity()


ANY_TASK = SudokuTask(box=2, train="train.csv", test="test.csv")
QUESTION, ANSWER = texts("train", 1)[0]
OTHER_DIGIT = "2" if ANSWER[-1] == "1" else "1"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([(QUESTION, ANSWER), (QUESTION[:-1], ANSWER)], "row 2: 15 characters, not 16"),
        ([(QUESTION, ANSWER), (QUESTION, ANSWER[:-1] + "x")], "row 2: character 'x'"),
        ([(QUESTION, ANSWER), (QUESTION, "1" * 16)], "row 2: the answer is not a solved Sudoku"),
        (
            [("." * 15 + OTHER_DIGIT, ANSWER)],
            "row 1: the answer does not continue the question",
        ),
        ([], "no puzzles"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, says):
    path = write_csv(tmp_path / "bad.csv", rows)
    with pytest.raises(DataError) as error:
        ANY_TASK.read(path)
    assert path in str(error.value)
    assert says in str(error.value)


def test_other_bad_files(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: No such file"):
        ANY_TASK.read(str(tmp_path / "nowhere.csv"))
    (tmp_path / "plain.csv").write_text("puzzle,solution\n1,2\n")
    with pytest.raises(DataError, match="no column answer, question in the header"):
        ANY_TASK.read(str(tmp_path / "plain.csv"))
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="not a CSV text file"):
        ANY_TASK.read(str(tmp_path / "binary.csv"))


def test_splits_that_share_a_grid_are_refused(tmp_path):
    train = write_csv(tmp_path / "train.csv", texts("train", 10))
    test = write_csv(tmp_path / "test.csv", texts("test", 10) + texts("train", 1, first=4))
    with pytest.raises(DataError, match=r"share 1 solution grids \(the first: row 5 and row 11\)"):
        load_task(SudokuTask(box=2, train=train, test=test), 2)


def test_too_few_puzzles_to_evaluate_are_refused(tmp_path):
    train = write_csv(tmp_path / "train.csv", texts("train", 10))
    test = write_csv(tmp_path / "test.csv", texts("test", 10))
    with pytest.raises(DataError, match=r"eval\.n: 9 is more than the \d validation puzzles of .*test\.csv"):
        load_task(SudokuTask(box=2, train=train, test=test), 9)


def test_real_sudoku_extreme(shared_data):
    task = SudokuTask(
        box=3,
        train=str(shared_data / "sudoku_extreme_train.csv"),
        test=str(shared_data / "sudoku_extreme_test.csv"),
    )
    data = load_task(task, 900)
    assert len(data.splits["train"]) == 1000
    assert len(data.splits["validation"]) + len(data.splits["test"]) == 2000
    answers = data.train_batch(0, 3, 32).labels.numpy().reshape(-1, 9, 9) - 1
    assert all(are_solutions(answer[None], 3).all() for answer in answers)

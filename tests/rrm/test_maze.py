"""Mazes: labels, generator, dihedral images and judge, against plain loops, by hand, and on the official puzzles."""

import itertools

import numpy as np
import pytest

from rrm.puzzles import maze, maze_generator
from rrm.puzzles.maze import CELLS, FREE, GOAL, PATH, START, WALL, judge, shortest_path
from rrm.puzzles.puzzle import SPLITS
from rrm.puzzles.tasks import GenerateMaze, MazeTask


def grid(*rows: str) -> np.ndarray:
    return np.array([[CELLS.index(cell) for cell in row] for row in rows], dtype=np.int8)


QUESTION = grid(
    "S    ",
    "# # #",
    "    G",
    "     ",
    "     ",
)


def says(*rows: str) -> str:
    """What the judge says of an answer to QUESTION."""
    judged = judge(QUESTION[None], grid(*rows)[None])
    assert judged.valid[0] or not judged.shortest[0]
    return "shortest" if judged.shortest[0] else "valid" if judged.valid[0] else "invalid"


@pytest.mark.parametrize(
    ("verdict", "rows"),
    [
        ("shortest", ("So   ", "#o# #", " oooG", "     ", "     ")),
        ("valid", ("So   ", "#o# #", " o oG", " ooo ", "     ")),
        ("valid", ("So   ", "#o# #", " o oG", " o o ", " ooo ")),
        ("invalid", ("So   ", "#o# #", " oo G", "     ", "     ")),  # a gap
        ("invalid", ("So   ", "#o# #", "ooooG", "     ", "     ")),  # a dead end
        ("invalid", ("So   ", "#o# #", " oooG", "     ", "o    ")),  # a mark beside the way
        ("invalid", ("S    ", "o # #", "ooooG", "     ", "     ")),  # through a wall
        ("invalid", ("S    ", "# # #", "    G", "     ", "     ")),  # no marks
        ("invalid", ("So   ", "#o# #", " ooGG", "     ", "     ")),  # another goal
        ("invalid", ("oo   ", "#o# #", " oooG", "     ", "     ")),  # the start painted over
    ],
)
def test_judge_by_hand(verdict, rows):
    assert says(*rows) == verdict


def test_a_way_that_touches_itself_is_still_one_way():
    """A detour around a block of four cells: its marks have shortcuts, and yet can be walked, each once."""
    question = grid("S  ", "   ", "  G")
    assert tuple(x[0] for x in judge(question[None], grid("So ", "oo ", "ooG")[None])) == (True, False)
    assert tuple(x[0] for x in judge(question[None], grid("Soo", "oo ", "ooG")[None])) == (False, False)


def simple_paths(question: np.ndarray) -> set[bytes]:
    """The marks of every simple path, by exhaustive search: as bytes of the answer."""
    found = set()
    start, goal = (tuple(np.argwhere(question == cell)[0]) for cell in (START, GOAL))

    def walk(cell, marks):
        row, column = cell
        for step in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if step == goal:
                answer = question.copy()
                for mark in marks:
                    answer[mark] = PATH
                found.add(answer.tobytes())
            elif min(step) >= 0 and max(step) < len(question) and question[step] == FREE and step not in marks:
                walk(step, (*marks, step))

    walk(start, ())
    return found


def test_judge_and_lengths_against_every_answer_of_small_mazes():
    """All 2^free markings of random 4x4 mazes: valid exactly if some simple path has these marks."""
    rng = np.random.default_rng(0)
    for _ in range(6):
        question = np.where(rng.random((4, 4)) < 0.35, WALL, FREE).astype(np.int8)
        question.flat[rng.choice(16, 2, replace=False)] = START, GOAL
        paths = simple_paths(question)
        free = np.flatnonzero(question == FREE)
        answers = np.repeat(question[None], 2 ** len(free), axis=0)
        for row, marks in enumerate(itertools.product((FREE, PATH), repeat=len(free))):
            answers[row].flat[free] = marks
        judged = judge(np.repeat(question[None], len(answers), axis=0), answers)
        assert {answer.tobytes() for answer in answers[judged.valid]} == paths
        sizes = [np.frombuffer(path, dtype=np.int8).tolist().count(PATH) + 2 for path in paths]
        assert maze.path_lengths(question[None])[0] == min(sizes, default=0)
        assert judged.shortest.sum() == sizes.count(min(sizes, default=0))


def test_shortest_path_takes_down_then_left_then_right_then_up():
    assert np.array_equal(
        shortest_path(grid("S  ", "   ", "  G")),
        grid("S  ", "o  ", "ooG"),
    )
    assert np.array_equal(
        shortest_path(grid("  S", "   ", "G  ")),
        grid("  S", "  o", "Goo"),
    )
    assert shortest_path(grid("S#G", "## ", "   ")) is None


def test_generated_mazes_are_a_function_of_their_arguments():
    first, again = (maze_generator.generate(8, 12, "train", 3, 5) for _ in range(2))
    assert first is not None
    assert again is not None
    assert np.array_equal(first.question, again.question)
    other = maze_generator.generate(8, 12, "train", 3, 6)
    assert other is not None
    assert not np.array_equal(first.question, other.question)


@pytest.mark.parametrize("side", [6, 12])
def test_generated_mazes_have_the_path_asked_for_and_share_none(side):
    mazes = {split: [maze_generator.generate(side, 10, split, 0, index) for index in range(60)] for split in SPLITS}
    keys = {}
    for split, made in mazes.items():
        questions, answers = (np.stack([puzzle[i] for puzzle in made]) for i in range(2))
        judged = judge(questions, answers)
        assert judged.shortest.all()
        assert ((answers == PATH).sum(axis=(1, 2)) + 2 >= 10).all()
        assert maze.path_lengths(questions).min() == 10
        walls = (questions == WALL).mean()
        assert 0.25 < walls < 0.5
        keys[split] = set(maze.maze_keys(questions))
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    assert not keys["test"] & keys["validation"]


def test_start_and_goal_are_any_free_cells():
    layouts = maze_generator._layouts(np.random.default_rng(0), 1024, 5)
    for cell in (START, GOAL):
        counts = (layouts == cell).sum(axis=0)
        assert (layouts == cell).sum(axis=(1, 2)).tolist() == [1] * len(layouts)
        assert counts.min() > 0.5 * counts.mean()
        assert counts.max() < 1.6 * counts.mean()
    assert 0.3 < (layouts == WALL).mean() < 0.45  # start and goal take two of the free cells


def test_an_impossible_path_is_none_not_for_ever(monkeypatch):
    monkeypatch.setattr(maze_generator, "LAYOUTS_PER_MAZE", 2048)
    assert maze_generator.generate(5, 24, "train", 0, 0) is None


def test_images_share_a_key_and_stay_shortest():
    puzzles = [maze_generator.generate(7, 9, "train", 0, index) for index in range(5)]
    questions, answers = (np.stack([puzzle[i] for puzzle in puzzles]) for i in range(2))
    keys = maze.maze_keys(questions)
    assert len(set(keys)) == 5
    for identifier in range(8):
        turned = [maze.dihedral(grids, np.full(5, identifier)) for grids in (questions, answers)]
        assert maze.maze_keys(turned[0]) == keys
        assert judge(*turned).shortest.all()
    mixed = maze.dihedral(questions, np.array([0, 1, 4, 6, 7]))
    assert np.array_equal(mixed[0], questions[0])
    assert np.array_equal(mixed[1], np.rot90(questions[1]))
    assert np.array_equal(mixed[3], questions[3].T)


@pytest.mark.parametrize("split", ["train", "test"])
def test_official_mazes(shared_data, split):
    """Every label is the rule's path; the generator's procedure gives such layouts."""
    task = MazeTask(name="maze", side=30, train="-", test="-")
    puzzles = task.read(str(shared_data / f"maze_30x30_hard_{split}.csv"))
    assert len(puzzles) == 1000
    assert maze.path_lengths(puzzles.questions).min() == 110
    assert judge(puzzles.questions, puzzles.answers).shortest.all()
    for question, answer in zip(puzzles.questions[:200], puzzles.answers, strict=False):
        assert np.array_equal(shortest_path(question), answer)


def shortest_answers(question: np.ndarray) -> list[bytes]:
    paths = simple_paths(question)
    marks = {path: np.frombuffer(path, dtype=np.int8).tolist().count(PATH) for path in paths}
    return [path for path in paths if marks[path] == min(marks.values())]


def test_shortest_paths_are_counted_and_the_others_walled_off():
    rng = np.random.default_rng(1)
    several = 0
    for _ in range(40):
        question = np.where(rng.random((4, 4)) < 0.3, WALL, FREE).astype(np.int8)
        question.flat[rng.choice(16, 2, replace=False)] = START, GOAL
        answers = shortest_answers(question)
        assert maze_generator.shortest_paths(question) == len(answers)
        several += len(answers) > 1
        answer = shortest_path(question)
        if answer is not None:
            alone, same = maze_generator.without_other_paths(question, answer)
            assert shortest_answers(alone) == [same.tobytes()]
            assert np.array_equal(same == PATH, answer == PATH)
    assert several > 5


@pytest.mark.parametrize(("kind", "side"), [("random", 6), ("random", 13), ("perfect", 6), ("perfect", 7)])
def test_of_one_answer_exact_and_judged_agree(kind, side):
    """Every way through some unique mazes: shortest is exact, and in a perfect maze valid is, too."""
    task = MazeTask(
        name="maze", side=side, generate=GenerateMaze(puzzles=1, min_path=8, kind=kind, unique=kind == "random")
    )
    made = {split: [task.make(split, index) for index in range(12)] for split in SPLITS}
    for question, answer in itertools.chain(*made.values()):
        assert maze_generator.shortest_paths(question) == 1
        assert (answer == PATH).sum() + 2 >= 8
        others = (
            [np.frombuffer(path, dtype=np.int8).reshape(side, side) for path in simple_paths(question)]
            if side < 8
            else []
        )
        answers = np.stack([answer, question, *others])
        judged = judge(np.repeat(question[None], len(answers), axis=0), answers)
        exact = (answers == answer).all(axis=(1, 2))
        assert np.array_equal(judged.shortest, exact)
        if kind == "perfect":
            assert np.array_equal(judged.valid, exact)
            assert len(others) == 1
    keys = [set(maze.maze_keys(np.stack([question for question, _ in mazes]))) for mazes in made.values()]
    assert not any(a & b for a, b in itertools.combinations(keys, 2))


def test_a_perfect_maze_joins_all_its_cells_and_has_long_paths():
    made = [maze_generator.generate(15, 60, "train", 0, index, "perfect") for index in range(5)]
    for question, _ in made:
        assert (question != WALL).sum() == 8 * 8 + 63  # a spanning tree of 64 cells has 63 edges
    assert len({question.tobytes() for question, _ in made}) == 5
    assert maze.path_lengths(np.stack([question for question, _ in made])).min() >= 60

"""`rrm data` as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from launch.cli import main
from rrm.puzzles.formats import read_rows, write_csv


@pytest.fixture
def mazes(tmp_path, capsys) -> Path:
    folder = tmp_path / "mazes"
    made = main(["data", "generate", str(folder), "--maze", "6", "--min-path", "6", "--train", "12", "--test", "8"])
    assert made == 0
    assert capsys.readouterr().out == f"{folder}/train.csv: 12 puzzles\n{folder}/test.csv: 8 puzzles\n"
    return folder


def test_generate_build_and_check(mazes, capsys):
    output = mazes.parent / "npy"
    assert main(["data", "build", str(mazes), str(output), "--aug"]) == 0
    assert f"{output}/train: 12 puzzles, 96 with their augmentations" in capsys.readouterr().out
    assert main(["data", "check", str(output)]) == 0
    out = capsys.readouterr().out
    assert "96 paths, 96 shortest" in out
    assert "1 pairs of splits compared, 0 of them share puzzles" in out
    assert "nothing is wrong" in out
    again = mazes.parent / "again"
    assert main(["data", "build", str(output), str(again), "--csv"]) == 0
    assert (again / "test.csv").read_text().count("\n") == 9


@pytest.mark.parametrize("options", [["--kind", "perfect"], ["--unique"]])
def test_mazes_with_one_answer_are_made_and_counted(options, tmp_path, capsys):
    sizes = ["--maze", "9", "--min-path", "9", "--train", "5", "--test", "4"]
    assert main(["data", "generate", str(tmp_path), *sizes, *options]) == 0
    assert main(["data", "check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "5 paths, 5 shortest, 5 with one shortest path" in out
    assert "4 paths, 4 shortest, 4 with one shortest path" in out


def test_check_names_what_is_wrong(mazes, capsys):
    (mazes / "test.csv").write_bytes((mazes / "train.csv").read_bytes())
    assert main(["data", "check", str(mazes)]) == 2
    out = capsys.readouterr().out
    assert f"wrong: {mazes}/train.csv and {mazes}/test.csv share 12 mazes" in out
    (mazes / "test.csv").write_text("source,question,answer,rating\n-,S  G     ,Soo      ,4\n")
    assert main(["data", "check", str(mazes / "test.csv")]) == 2
    assert "test.csv: row 1: the answer is no path from S to G" in capsys.readouterr().out


def test_a_detour_and_a_second_solution_are_found(tmp_path, capsys):
    (tmp_path / "detour.csv").write_text(
        "source,question,answer,rating\n-,S G      ,SoG      ,3\n-,S G      ,S Gooo   ,5\n"
    )
    (tmp_path / "two.csv").write_text("source,question,answer,rating\n-,................,1234341221434321,0\n")
    assert main(["data", "check", str(tmp_path / "detour.csv"), str(tmp_path / "two.csv")]) == 2
    out = capsys.readouterr().out
    assert "detour.csv: row 2: the answer is no shortest path" in out
    assert "two.csv: row 1: the question has several solutions" in out
    assert "2 problems" in out


def test_rows_that_stand_there_twice_are_noted(tmp_path, capsys):
    header, row, other = "source,question,answer,rating\n", "-,S G      ,SoG      ,3\n", "-,S #G     ,S #G     ,2\n"
    (tmp_path / "twice.csv").write_text(header + row + other + row + row)
    (tmp_path / "once.csv").write_text(header + "-,1.34341221434321,1234341221434321,0\n")
    assert main(["data", "check", str(tmp_path / "twice.csv"), str(tmp_path / "once.csv")]) == 0
    out = capsys.readouterr().out
    note = f"note: {tmp_path}/twice.csv: row 3: the same puzzle as row 1; 2 rows in all repeat an earlier one\n"
    assert note in out
    assert out.count("note: ") == 1
    assert "nothing is wrong" in out


def test_build_keeps_what_is_rated_high_enough(shared_data, tmp_path, capsys):
    """As the published script: in both splits, before anything is drawn. The reference is files without the others."""
    folders = {name: tmp_path / name for name in ("all", "hard")}
    for name, folder in folders.items():
        folder.mkdir()
        for split in ("train", "test"):
            rows = read_rows(str(shared_data / f"sudoku_extreme_{split}.csv"))
            write_csv(folder / f"{split}.csv", [row for row in rows if name == "all" or int(row["rating"]) >= 20])
    options = ["--subsample-size", "50", "--num-aug", "2", "--seed", "3"]
    assert main(["data", "build", str(folders["all"]), str(tmp_path / "a"), *options, "--min-difficulty", "20"]) == 0
    assert main(["data", "build", str(folders["hard"]), str(tmp_path / "b"), *options]) == 0
    files = [path.relative_to(tmp_path / "a") for path in sorted((tmp_path / "a").rglob("*")) if path.is_file()]
    assert len(files) == 13
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    built = [str(tmp_path / "a"), str(tmp_path / "c"), "--min-difficulty", "1"]
    for arguments, says in (
        (
            [str(folders["hard"]), str(tmp_path / "c"), "--min-difficulty", "100000"],
            "no row is rated 100000 or more; the",
        ),
        (built, "train: processed arrays, which have no ratings to compare with --min-difficulty; give CSV files"),
    ):
        assert main(["data", "build", *arguments]) == 2
        assert says in capsys.readouterr().err


def test_show_prints_puzzle_and_answer_side_by_side(tmp_path, capsys):
    (tmp_path / "sudoku.csv").write_text("source,question,answer,rating\n-,1.34341221434321,1234341221434321,0\n")
    assert main(["data", "show", str(tmp_path / "sudoku.csv")]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "1 . | 3 4     1 2 | 3 4 ",
        "3 4 | 1 2     3 4 | 1 2 ",
        "----+-----    ----+-----",
    ]
    (tmp_path / "maze.csv").write_text("source,question,answer,rating\n-,S G #    ,SoG #    ,3\n")
    assert main(["data", "show", str(tmp_path / "maze.csv"), "--row", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["S   G     S o G ", "  ██        ██  "]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "nowhere.csv"], "nowhere.csv: No such file or directory; give the path of a file that exists"),
        (["show", "{mazes}/train.csv", "--row", "13"], "--row 13: {mazes}/train.csv has rows 1 to 12"),
        (["build", "{mazes}", "{mazes}/out", "--num-aug", "3"], "--num-aug: not for maze puzzles"),
        (["build", "{mazes}", "{mazes}/out", "--csv", "--aug"], "--aug: not for CSV files"),
        (
            ["build", "{mazes}/none", "{mazes}/out"],
            "{mazes}/none: no such folder; give one with train.csv and test.csv",
        ),
        (["build", "{mazes}", "{mazes}/out", "--min-difficulty", "0"], "--min-difficulty: not for maze puzzles"),
        (
            ["build", "{unrated}", "{mazes}/out", "--min-difficulty", "1"],
            "train.csv: row 1: rating '' is no whole number",
        ),
        (["generate", "{mazes}/out", "--maze", "70"], "side: 70 is above 63; give 63 or less"),
        (
            ["generate", "{mazes}/out", "--sudoku", "2", "--blanks", "20"],
            "generate.blanks: 20 is more than the 16 cells",
        ),
        (
            ["generate", "{mazes}/out", "--maze", "6", "--min-path", "30"],
            "generate.min_path: 30 is more than 12 of the 36 cells; random",
        ),
    ],
)
def test_bad_input_is_one_message(mazes, capsys, arguments, says):
    unrated = mazes.parent / "unrated"
    unrated.mkdir()
    for split, question in (("train", "1.34341221434321"), ("test", ".234341221434321")):
        (unrated / f"{split}.csv").write_text(f"question,answer\n{question},1234341221434321\n")
    assert main(["data", *(argument.format(mazes=mazes, unrated=unrated) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert says.format(mazes=mazes) in captured.err
    assert captured.out == ""
    assert not (mazes / "out").exists()


def test_without_the_hub_the_error_says_which_files_to_fetch(tmp_path):
    """In a process of its own, where the package of the hub cannot be imported."""
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from launch.cli import main\n"
        f"sys.exit(main(['data', 'build', 'sapientinc/sudoku-extreme', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("sapientinc/sudoku-extreme: no such folder, and huggingface_hub is not installed; ")
    assert "fetch train.csv and test.csv from https://huggingface.co/datasets/sapientinc/sudoku-extreme" in done.stderr


def test_every_csv_of_the_shared_data_is_right(shared_data, capsys):
    paths = sorted(str(path) for path in shared_data.glob("*.csv") if "sudoku_extreme" not in path.name)
    assert main(["data", "check", *paths]) == 0
    out = capsys.readouterr().out
    assert out.count("with one solution") == len([path for path in paths if "sudoku" in path])
    assert "nothing is wrong" in out

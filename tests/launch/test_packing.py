"""What travels with a job: the code, the sweep as checked, relative puzzle files; and what cannot."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from planted import secrets_file
from tiny import tiny_sweep, write_spec

from launch import packing
from launch.cli import main
from launch.packing import pack
from tune.spec import SpecError, load_sweep


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A user's folder with puzzle files, runs and an environment in it; the current one."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/old/big", ".venv/lib", "data/other.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("not for the job")
    assert main(["data", "generate", "data", "--sudoku", "2", "--train", "8", "--test", "8"]) == 0
    return tmp_path


def sweep(folder: Path, task: dict, **changes) -> str:
    task = {"generate": None, "box": 2} | task
    return write_spec(folder, tiny_sweep(base={"task": task, "train": {"batch_size": 2}, "eval": {"n": 4}}, **changes))


def test_code_sweep_and_relative_puzzle_files_travel(here):
    spec = sweep(here, {"train": "data/train.csv", "test": str(here / "data" / "test.csv")})
    loaded = load_sweep(spec, ["seeds=[7]"])
    assert pack(loaded, here / "a.zip") < 450_000
    names = ZipFile(here / "a.zip").namelist()
    assert {"launch/cli.py", "launch/specs/quickstart.yaml", "rrm/train.py", "results/schema.py"} <= set(names)
    others = [name for name in names if name.split("/")[0] not in packing.PACKAGES]
    assert sorted(others) == ["COMMIT", "data/train.csv", "sweep.yaml"]
    assert not [name for name in names if "__pycache__" in name]

    pack(loaded, here / "b.zip")
    assert (here / "a.zip").read_bytes() == (here / "b.zip").read_bytes()

    ZipFile(here / "a.zip").extractall(here / "job")
    command = [sys.executable, "-m", "launch.cli", "plan", "sweep.yaml"]
    planned = subprocess.run(command, cwd=here / "job", capture_output=True, text=True, check=True).stdout
    assert "2 trials, 2 would be trained" in planned
    assert all(cell.trial_id in planned for cell in loaded.cells)  # the same trials as here


def test_what_cannot_travel_is_named(here, monkeypatch):
    (here / "inside").mkdir()
    monkeypatch.chdir(here / "inside")
    loaded = load_sweep(sweep(here, {"data": "../data"}))
    with pytest.raises(SpecError, match=r"\.\./data: \.\./data/\w+\.csv is outside this folder, which does not travel"):
        pack(loaded, here / "a.zip")

    monkeypatch.chdir(here)
    loaded = load_sweep(sweep(here, {"data": "data"}))
    assert pack(loaded, here / "a.zip")
    monkeypatch.setattr(packing, "MAX_BYTES", 1024**2)
    with open(here / "data" / "test.csv", "ab") as file:
        file.write(b"\n" * 2 * 1024**2)
    with pytest.raises(SpecError, match=r"data/test.csv: 2\.0 MiB, and 3\.\d MiB with all .* Ray takes 1\.0 MiB: put"):
        pack(loaded, here / "a.zip")


@pytest.mark.parametrize("folder", ["data", "."])
def test_nothing_that_lies_beside_code_or_puzzles_travels(folder, here, monkeypatch):
    """Such as a secrets file, in the folder of a data set or of the sweeps."""
    code = here / "code"
    monkeypatch.setattr(packing, "__file__", str(code / "launch" / "packing.py"))
    for name in ("launch/cli.py", "launch/specs/quickstart.yaml", "launch/specs/secrets.env"):
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text("x")
    secrets_file(code / "launch")
    secrets_file(here / "data")
    (here / "data" / "link").symlink_to("/etc")
    monkeypatch.chdir(here / ("data" if folder == "." else "."))
    pack(load_sweep(sweep(here, {"data": folder})), here / "a.zip")
    puzzles = {f"{'' if folder == '.' else 'data/'}{split}.csv" for split in ("train", "test")}
    names = {"COMMIT", "sweep.yaml", "launch/cli.py", "launch/specs/quickstart.yaml"} | puzzles
    assert set(ZipFile(here / "a.zip").namelist()) == names


def test_a_processed_data_set_travels_without_what_nothing_reads(here):
    assert main(["data", "build", "data", "built"]) == 0
    (here / "built" / "train" / "notes.txt").write_text("x")
    pack(load_sweep(sweep(here, {"data": "built"})), here / "a.zip")
    travelled = {name for name in ZipFile(here / "a.zip").namelist() if name.startswith("built/")}
    there = {path.relative_to(here).as_posix() for path in (here / "built").rglob("*.*")}
    assert travelled == there - {"built/identifiers.json", "built/train/notes.txt"}


def test_a_link_out_of_the_folder_and_a_file_for_its_owner_alone_stay(here, tmp_path_factory):
    """The puzzles' own names do not make a file one of puzzles."""
    test = here / "data" / "test.csv"
    test.chmod(0o600)
    with pytest.raises(SpecError, match=r"data: data/test.csv is for you alone to read .* does not travel with a job"):
        pack(load_sweep(sweep(here, {"data": "data"})), here / "a.zip")
    outside = tmp_path_factory.mktemp("outside") / "test.csv"
    test.chmod(0o644)
    test.rename(outside)
    test.symlink_to(outside)
    with pytest.raises(SpecError, match=r"data: data/test.csv is outside this folder, which does not travel"):
        pack(load_sweep(sweep(here, {"data": "data"})), here / "a.zip")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "storage: 'runs' is relative, and a job's own folder on a cluster does not last; give an absolute path"),
        (("--set", "storage=/tmp", "--env", "NOT_SET"), "--env NOT_SET: not set here; set it, or leave it out"),
        (("--set", "storage=/tmp"), "--address: missing; give it, or set RAY_API_SERVER_ADDRESS, such as http://"),
    ],
)
def test_a_submission_is_checked_here(arguments, message, here, capsys, monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert main(["submit", sweep(here, {"data": "data"}), *arguments]) == 2
    assert message in capsys.readouterr().err

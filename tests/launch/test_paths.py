"""One rule for every path that a command takes: `~`, `$VAR`, s3://; what cannot be one is refused by its name."""

import os
from pathlib import Path

import pytest
from tiny import tiny_sweep, write_spec

from launch.cli import main
from results.places import PlaceError, filled_in
from results.storage import location
from tune.plan import write_manifest
from tune.spec import load_sweep


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a sweep that waits, in ~/runs, which is also $SCRATCH/runs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    write_manifest(load_sweep(write_spec(tmp_path, tiny_sweep(storage="$SCRATCH/runs"))))
    assert (tmp_path / "runs" / "tiny" / "sweep.json").exists()
    return tmp_path


@pytest.mark.parametrize("storage", ["~/runs", "$SCRATCH/runs", "${SCRATCH}/../{here}/runs", "runs"])
def test_every_command_fills_a_path_in(storage, home, capsys):
    storage = storage.replace("{here}", home.name)
    assert main(["status", "tiny", "--storage", storage]) == 0
    assert "tiny: 4 trials, 4 waiting; not running; " in capsys.readouterr().out
    assert main(["plan", str(home / "sweep.yaml"), "--set", f"storage={storage}"]) == 0
    assert os.path.normpath(capsys.readouterr().out.split("; ")[1].split("\n")[0]) == f"{home}/runs/tiny"
    assert main(["results", "show", f"{storage}/tiny"]) == 0
    assert main(["results", "report", f"{storage}/tiny", "--output", f"{storage}/page.html"]) == 0
    assert (home / "runs" / "page.html").exists()
    assert main(["data", "generate", f"{storage}/puzzles", "--sudoku", "2", "--train", "3", "--test", "3"]) == 0
    assert main(["data", "build", f"{storage}/puzzles", f"{storage}/processed"]) == 0
    assert main(["data", "check", f"{storage}/puzzles", f"{storage}/processed/train"]) == 2  # the same puzzles
    assert main(["data", "show", f"{storage}/puzzles/test.csv"]) == 0
    assert (home / "runs" / "processed" / "train" / "dataset.json").exists()
    assert sorted(path.name for path in home.glob("[!.]*")) == ["runs", "sweep.yaml"]


@pytest.mark.parametrize(
    ("command", "argument"),
    [
        (["status", "x", "--storage", "{}"], "--storage"),
        (["logs", "x", "--storage", "{}"], "--storage"),
        (["stop", "x", "--storage", "{}"], "--storage"),
        (["results", "report", "runs/tiny", "--output", "{}"], "--output"),
        (["results", "show", "{}"], "SWEEP"),
        (["results", "gather", "runs/tiny", "{}"], "SWEEP"),
        (["diagnose", "{}"], "CHECKPOINT"),
        (["diagnose", "x.pt", "--output", "{}"], "--output"),
        (["export", "{}", "x.safetensors"], "CHECKPOINT"),
        (["export", "x.pt", "{}"], "FILE"),
        (["data", "build", "{}", "out"], "SOURCE"),
        (["data", "build", "in", "{}"], "OUTPUT"),
        (["data", "generate", "{}", "--maze", "6"], "OUTPUT"),
        (["data", "show", "{}"], "PATH"),
        (["data", "check", "{}"], "PATH"),
        (["watch", "{}"], "STORAGE"),
    ],
)
def test_every_argument_refuses_what_is_no_path_by_its_name(command, argument, home, capsys):
    for given, why in (
        ("gs://bucket/x", "'gs://bucket/x' is no place; give a path that every node sees, or s3://bucket/prefix"),
        ("$NOWHERE/x", "'$NOWHERE/x': NOWHERE is not set here; set it, or write the path out"),
        ("s3://", "'s3://' names no bucket; give s3://bucket/prefix"),
        ("", "'' is no path; give one"),
    ):
        assert main([part.format(given) for part in command]) == 2
        assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: argument {argument}: {why}")


def test_a_page_and_puzzles_go_into_a_bucket(home, bucket, capsys, monkeypatch):
    monkeypatch.setenv("RRM_CACHE", str(home / "cache"))
    assert main(["results", "report", "runs/tiny", "--output", f"{bucket}/pages/a.html"]) == 0
    assert capsys.readouterr().out == f"  {bucket}/pages/a.html\n"
    assert (location(bucket) / "pages" / "a.html").read_bytes().startswith(b"<!doctype html>")
    sizes = ["--sudoku", "2", "--train", "5", "--validation", "2", "--test", "4"]
    assert main(["data", "generate", f"{bucket}/csv", *sizes]) == 0
    assert main(["data", "generate", "csv", *sizes]) == 0
    for name in ("train.csv", "validation.csv", "test.csv"):
        assert (location(bucket) / "csv" / name).read_bytes() == (home / "csv" / name).read_bytes()
    assert main(["data", "build", f"{bucket}/csv", f"{bucket}/processed", "--num-aug", "2"]) == 0
    assert main(["data", "build", "csv", "processed", "--num-aug", "2"]) == 0
    for file in (home / "processed").rglob("*.*"):
        there = location(bucket) / "processed" / file.relative_to(home / "processed").as_posix()
        assert there.read_bytes() == file.read_bytes()
    assert f"{bucket}/processed/train: 5 puzzles, 15 with their augmentations" in capsys.readouterr().out
    assert main(["data", "check", f"{bucket}/csv"]) == 0
    assert main(["data", "show", f"{bucket}/csv/test.csv", "--row", "4"]) == 0
    assert not list(home.glob("s3*"))


def test_a_file_that_is_a_folder_or_a_bucket_is_refused_before_anything_is_made(home, capsys):
    for given, why in (
        ("runs", "'runs' is a folder; give a file in it"),
        ("s3://b", "'s3://b' is a bucket; give s3://"),
    ):
        assert main(["results", "report", "runs/tiny", "--output", given]) == 2
        assert f"argument --output: {why}" in capsys.readouterr().err


def test_a_sweep_file_in_a_bucket(home, bucket, capsys):
    (location(bucket) / "sweep.yaml").put((home / "sweep.yaml").read_bytes())
    assert main(["plan", f"{bucket}/sweep.yaml"]) == 0
    assert main(["results", "show", f"{bucket}/sweep.yaml"]) == 0
    capsys.readouterr()
    assert main(["plan", f"{bucket}/none.yaml"]) == 2
    assert (
        "none.yaml: 1 problem, nothing was started\n  no such object; give the path of a sw" in capsys.readouterr().err
    )


def test_a_folder_whose_name_is_no_text_to_all_readers_is_not_gathered(home, capsys):
    (home / "runs" / "tiny").rename(home / "runs" / "2024-01-15")
    assert main(["results", "show", "runs/2024-01-15"]) == 2
    assert "2024-01-15: '2024-01-15' is a number, a date or a truth value to pandas" in capsys.readouterr().err
    for written, name in (("'001'", "001"), ("007", "7"), ("2024-01-15", "2024-01-15"), ("1e5", "100000.0")):
        assert main(["plan", "sweep.yaml", "--set", f"name={written}"]) == 2
        assert f"\n  name: '{name}' is a number, a date or a truth value to pandas, pyarrow," in capsys.readouterr().err


def test_what_is_no_variable_and_no_home_stays(monkeypatch):
    monkeypatch.setenv("A", "b")
    for text, filled in (("$A-${A}", "b-b"), ("a~/$", "a~/$"), ("./x/y", "./x/y"), ("owner/name", "owner/name")):
        assert filled_in(text) == filled
    assert location("a/./b//c") == Path.cwd() / "a/b/c"
    assert str(location("s3://b//x/")) == "s3://b/x"
    with pytest.raises(PlaceError, match="'~nobody-of-that-name': no home folder is known for that"):
        location("~nobody-of-that-name")

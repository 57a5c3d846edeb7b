"""`rrm results` by sweeps' folders and files: gather, show, report."""

import os
import shutil
import subprocess
import sys

import pytest
from closed import as_any_user
from tiny import tiny_sweep, write_spec

import results
from launch import results_commands
from launch.cli import main
from results.schema import SPEC
from tune.plan import write_manifest
from tune.spec import load_sweep


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """A storage with the sweeps one, of which half is trained, and two, that waits; the file of one is beside it."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("two", "one"):
        spec = write_spec(folder, tiny_sweep(name=name, storage=str(folder / "runs"), base={"train": {"steps": 8}}))
        write_manifest(load_sweep(spec))
    for arm in ("baseline", "multi2"):
        assert main(["train", spec, "--arm", arm, "--seed", "0"]) == 0
    return folder / "runs"


def test_gather_takes_many_sweeps_and_names_the_ones_that_are_not_there(storage, capsys):
    capsys.readouterr()
    assert main(["results", "gather", str(storage / "one"), str(storage / "nowhere"), str(storage / "two")]) == 2
    printed = capsys.readouterr()
    lines = [line.rpartition("; ")[0] or line for line in printed.out.splitlines()]
    assert lines[0].startswith("one: 4 trials, 2 done, 2 waiting; rows: 24 evals, 0 diagnostics, ")
    assert lines[1:] == [
        "two: 4 trials, 4 waiting; rows: 0 evals, 0 diagnostics, 1 comparison",
        f"Written: {storage / 'tables'}",
    ]
    assert printed.err == (
        f"{storage / 'nowhere'}: no sweep, for it holds no sweep.json; give a sweep's folder or its file\n"
    )
    trials = results.load("trials", storage)
    assert trials.groupby("sweep").status.value_counts().to_dict() == {
        ("one", "done"): 2,
        ("one", "waiting"): 2,
        ("two", "waiting"): 4,
    }


def test_gather_says_what_is_left_out(storage, capsys):
    damaged = next((storage / "one" / "trials").glob("*/done.json"))
    content = damaged.read_bytes()
    damaged.write_text("{")
    assert main(["results", "gather", str(storage / "one")]) == 0
    damaged.write_bytes(content)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("one: 4 trials, 1 done, 1 unreadable, 2 waiting; ")
    assert lines[1].startswith(f"  left out: {damaged}: cannot be read ")
    manifest = storage / "two" / "sweep.json"
    whole = manifest.read_bytes()
    manifest.write_text("[]")
    assert main(["results", "gather", str(storage / "two"), str(storage / "one")]) == 2
    manifest.write_bytes(whole)
    printed = capsys.readouterr()
    assert printed.err == f"{manifest}: holds no JSON object; move it away\n"
    assert printed.out.startswith("one: 4 trials, 2 done, 2 waiting; ")


def test_a_folder_and_a_file_show_and_report_the_same(storage, tmp_path, capsys):
    spec, folder = str(storage.parent / "sweep.yaml"), str(storage / "one")
    shown = []
    for sweep in (spec, folder):
        capsys.readouterr()
        assert main(["results", "show", sweep]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "one: 4 trials, 2 done, 2 waiting" in shown[0]
    assert f"  {storage}/tables/comparison/sweep=one/comparison.parquet\n" in shown[0]
    assert "interim, 1 of 2" in shown[0]
    for how, starts in (("csv", "sweep,arm,"), ("json", "[\n"), ("markdown", "| arm |"), ("latex", "\\begin{tabular}")):
        assert main(["results", "show", folder, "--format", how, "--all"]) == 0
        assert capsys.readouterr().out.startswith(starts)
    assert main(["results", "report", folder, "--output", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out == f"  {tmp_path / 'page.html'}\n"
    assert main(["results", "report", folder]) == 0
    assert "4 trials: 2 done, 2 waiting" in (storage / "one" / "report.html").read_text()
    assert main(["results", "show", spec, "--set", "seeds=[0]"]) == 0
    assert "one: 2 trials, 2 done" in capsys.readouterr().out


@pytest.fixture
def copied(storage, tmp_path):
    return shutil.copytree(storage, tmp_path / "runs", ignore=shutil.ignore_patterns("tables"))


def test_a_storage_that_cannot_be_written_is_shown_and_reported_elsewhere(copied, tmp_path, capsys):
    (copied / "tables").touch()
    (copied / "one" / "report.html").unlink(missing_ok=True)
    (copied / "one" / "report.html").mkdir()
    folder = str(copied / "one")
    assert main(["results", "show", folder]) == 0
    printed = capsys.readouterr().out
    assert "one: 4 trials, 2 done, 2 waiting" in printed
    assert f"Not written: {copied / 'tables'}" in printed
    assert "Written" not in printed
    assert main(["results", "report", folder, "--output", str(tmp_path / "page.html")]) == 0
    assert "4 trials: 2 done, 2 waiting" in (tmp_path / "page.html").read_text()
    assert main(["results", "report", folder]) == 2
    assert capsys.readouterr().err == f"{copied / 'one' / 'report.html'}: Is a directory; give --output FILE\n"
    assert main(["results", "gather", folder, str(copied / "two")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{folder}: not written: {copied / 'tables'}")
    assert "Written" not in printed.out


def test_a_storage_that_is_only_read_is_shown_whatever_a_killed_process_left(copied, capsys):
    leftover = copied / "one" / ".evals.parquet.x.tmp"
    leftover.touch()
    os.utime(leftover, (0, 0))
    (copied / "one").chmod(0o555)
    with as_any_user():
        assert main(["results", "show", str(copied / "one")]) == 0
    assert "one: 4 trials, 2 done, 2 waiting" in capsys.readouterr().out
    assert leftover.exists()
    (copied / "one").chmod(0o755)
    assert main(["results", "show", str(copied / "one")]) == 0
    assert not leftover.exists()


def test_all_of_a_storage_is_its_sweeps_without_their_tables(copied, capsys):
    for _ in range(2):  # the second time, the tables are there
        assert main(["results", "gather", *map(str, sorted(copied.iterdir()))]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        assert [line.partition(":")[0] for line in printed.out.splitlines()] == ["one", "two", "Written"]
    assert main(["results", "gather", str(copied / "tables")]) == 2
    assert "tables: the tables of all sweeps there, and no sweep; give a sweep's folder" in capsys.readouterr().err


def test_a_report_that_fails_leaves_the_code_of_what_was_trained(copied, capsys, monkeypatch):
    def fails(*_: object) -> None:
        raise ValueError("no such backend")

    spec = str(copied.parent / "sweep.yaml")
    shutil.copy(copied / "one" / SPEC, spec)
    run = ["run", spec, "--set", "seeds=[0]", "--set", f"storage={copied}"]
    monkeypatch.setattr(results_commands, "print_report", fails)
    assert main(run) == 0
    printed = capsys.readouterr()
    assert "one: 2 trials, 2 done" in printed.out
    assert printed.err == (
        "the run is over, but its comparison could not be made: ValueError: no such backend; mend it and run "
        f"`rrm results report {copied / 'one'}`\n"
    )
    monkeypatch.undo()
    (copied / "one" / "report.html").unlink(missing_ok=True)
    (copied / "one" / "report.html").mkdir()
    assert main(run) == 0
    assert f"made: {copied / 'one' / 'report.html'}: Is a directory; mend it" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--set", "seeds=[0]"], ["--preset", "small"]])
def test_a_folder_takes_no_variations(storage, option, capsys):
    assert main(["results", "show", str(storage / "one"), *option]) == 2
    assert capsys.readouterr().err == (
        f"{option[0]}: lays over a sweep file, and {storage / 'one'} is none; give the file, or leave it out\n"
    )


def test_reading_a_folder_needs_neither_torch_nor_ray(storage):
    script = f"""
import sys
from launch.cli import main
for kind in ("gather", "show", "report"):
    assert main(["results", kind, {str(storage / "one")!r}]) == 0
print([module for module in ("torch", "ray") if module in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.endswith("\n[]\n")

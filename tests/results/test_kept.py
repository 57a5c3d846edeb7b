"""The comparison is made once: kept while all that it was made of stays, made again as soon as any of it changes."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from holding import held_elsewhere
from sweep_folder import write_sweep

from launch.cli import main
from results import gather as gather_module
from results import kept as kept_module
from results.gather import SweepTables, gather


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder, states = tmp_path_factory.mktemp("kept") / "s", [*["done"] * 12, "unfinished"]
    write_sweep(folder, {"baseline": 0.0, "multi": 0.5}, seeds=6, evaluations=3, states=states.__getitem__)
    return folder


@pytest.fixture
def sweep(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "s"))


@pytest.fixture
def made(monkeypatch) -> list[int]:
    """A number for each comparison that is made, and not kept."""
    made, compare = [], gather_module.compare_by_seed
    monkeypatch.setattr(gather_module, "compare_by_seed", lambda *a, **how: made.append(1) or compare(*a, **how))
    return made


def same(one: SweepTables, other: SweepTables) -> None:
    for name in ("comparison", "differences"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))


def test_a_second_gathering_keeps_it(sweep, made):
    first = gather(sweep)
    assert first.comparison.p_adjusted.notna().any()
    assert (sweep / "looks.json").exists()  # of this comparison
    for _ in range(2):
        same(first, gather(sweep))
    same(first, gather(sweep, write=False))
    assert len(made) == 1
    (sweep.parent / "tables/comparison/sweep=s/comparison.parquet").write_bytes(b"cut")
    same(first, gather(sweep))
    assert len(made) == 2


def change_manifest(sweep: Path, **changes) -> None:
    path = sweep / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def touch_trial(sweep: Path) -> None:
    os.utime(sweep / "trials" / f"{3:012x}" / "evals.parquet")


def drop_looks(sweep: Path) -> None:
    path = sweep / "looks.json"
    looks = json.loads(path.read_text())
    looks["looks"][0]["pairs"].pop()
    path.write_text(json.dumps(looks))


def fewer_seeds(sweep: Path) -> None:
    cells = json.loads((sweep / "sweep.json").read_text())["cells"]
    change_manifest(sweep, cells=[cell for cell in cells if cell["seed"] != 5])


@pytest.mark.parametrize(
    "change",
    [
        lambda sweep: change_manifest(sweep, margin=0.3),
        lambda sweep: change_manifest(sweep, primary=["final", 0.0]),
        lambda sweep: change_manifest(sweep, baseline="multi"),
        touch_trial,
        drop_looks,
        fewer_seeds,
    ],
)
def test_whatever_it_was_made_of_changes_it(sweep, made, change):
    gather(sweep)
    change(sweep)
    again = gather(sweep)
    assert len(made) == 2
    same(again, gather(sweep))
    assert len(made) == 2


@pytest.mark.parametrize("spoil", [lambda path: path.write_text('{"looks": [{}]}'), lambda path: path.mkdir()])
def test_without_the_looks_there_is_no_p_and_all_else(sweep, made, spoil, capsys):
    first, path = gather(sweep), sweep / "looks.json"
    assert first.comparison.p_adjusted.notna().any()
    path.rename(sweep / "copy")
    spoil(path)
    for _ in range(2):
        left = gather(sweep)
        (problem,) = left.problems
        assert problem.startswith(f"p and the verdicts, for {path}: ")
        assert problem.endswith("; put back a copy of it: without it p would not be corrected for the looks before")
        assert left.comparison[["p", "p_adjusted", "looks", "detectable", "regressed"]].isna().all(axis=None)
        assert "no p: looks.json cannot be read" in set(left.comparison.verdict)
        assert not {"up", "down", "level", "cannot tell"} & set(left.comparison.verdict)
        pd.testing.assert_frame_equal(left.differences, first.differences)
        numbers = ["arm", "metric", "sigma", "difference", "low", "high", "seeds_needed", "seeds_low"]
        pd.testing.assert_frame_equal(left.comparison[numbers], first.comparison[numbers])
    assert main(["results", "show", str(sweep)]) == 0
    assert f"left out: {problem}" in capsys.readouterr().out
    assert main(["results", "report", str(sweep)]) == 0
    path.rename(sweep / "spoiled")
    (sweep / "copy").rename(path)
    assert len(made) == 5  # none was kept
    same(first, gather(sweep))


def test_another_version_of_the_rules_makes_it_again(sweep, made, monkeypatch):
    gather(sweep)
    monkeypatch.setattr(kept_module, "RULES", -1)
    gather(sweep)
    gather(sweep)
    assert len(made) == 2


def test_none_is_kept_while_a_trial_runs(tmp_path, made):
    states = ["done", "done", "done", "unfinished"]
    write_sweep(tmp_path / "s", {"baseline": 0.0, "multi": 0.5}, seeds=2, evaluations=2, states=states.__getitem__)
    with held_elsewhere(tmp_path / "s" / "trials" / f"{3:012x}" / ".lock"):
        gather(tmp_path / "s")
        gather(tmp_path / "s")
        assert len(made) == 2
    gather(tmp_path / "s")
    gather(tmp_path / "s")
    assert len(made) == 3

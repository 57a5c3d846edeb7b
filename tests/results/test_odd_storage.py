"""Whatever stands in a trial's folder costs that trial at most; a sweep that cannot be read costs no other."""

import copy
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from closed import as_any_user
from filelock import FileLock
from tiny import MULTI, tiny_sweep, write_spec

from launch.cli import main
from results.diagnosis_schema import DIAGNOSTICS_SCHEMA
from results.gather import gather
from results.locks import this_process
from results.looks import read_looks
from results.progress import told_by_driver
from results.schema import EVALS_SCHEMA, LOCK, UNROLLS_SCHEMA
from results.trial_files import DamagedFileError, TrialEnd, trial_end
from results.watch import WatchedStorage
from rrm.presets import merge
from tune.experiment import _record_error
from tune.plan import PlannedTrial, plan, write_manifest
from tune.runner import runner
from tune.spec import load_sweep

ODD: list[list[Any]] = [  # one of each kind takes a value's place
    ["x", "\ud800", None],
    [-1, 0, 10**30, True, float("nan"), 3],
    [[], {}, [[1]], {"a": "\x1b"}, ["a"], [-1, 1]],
]
DIAGNOSED = {"train": {"steps": 8}, "diagnose": {"every": 4, "n": 4, "k": 2}}
SEEDS = 40  # trials that are spoiled at a time, each in another way


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a sweep of two arms, done with seed 0; the trials of multi2 with other seeds are copies of that."""
    folder = tmp_path_factory.mktemp("odd")
    spec = tiny_sweep(storage=str(folder / "runs"), base=DIAGNOSED, seeds=list(range(SEEDS)))
    sweep = load_sweep(write_spec(folder, spec))
    write_manifest(sweep)
    for arm in ("baseline", "multi2"):
        assert main(["train", sweep.path, "--arm", arm, "--seed", "0"]) == 0
    first, *others = trials(folder / "runs" / "tiny")
    for other in others:
        shutil.copytree(first, other)
        write_of_its_own(other / "trial.json", (first / "trial.json").read_text())
        for table in other.glob("*.parquet"):
            write_of_its_own(table, pq.read_table(table))
        done = json.loads((other / "done.json").read_text())
        done["files"] = {name: (other / name).stat().st_size for name in done["files"]}
        (other / "done.json").write_text(json.dumps(done))
    return folder / "runs" / "tiny"


@pytest.fixture
def sweep(trained, tmp_path) -> Path:
    """A copy of it, to be spoiled."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / "tiny"))


def trials(sweep: Path, arm: str = "multi2") -> list[Path]:
    """The folders of an arm's trials, by seed."""
    cells = json.loads((sweep / "sweep.json").read_text())["cells"]
    return [sweep / "trials" / cell["trial_id"] for cell in cells if cell["arm"] == arm]


def write_of_its_own(path: Path, content: str | pa.Table) -> None:
    """Write a record or a table, with the trial's own id where it names the one that was trained."""
    trained, own = trials(path.parents[2])[0].name, path.parent.name
    if isinstance(content, str):
        path.write_text(content.replace(trained, own))
        return
    at = content.schema.get_field_index("trial_id")
    ids = pa.array([own if it == trained else it for it in content["trial_id"].to_pylist()], content.schema.types[at])
    pq.write_table(content.set_column(at, content.schema.field(at), ids), path)


def some_at_a_time(ways: Iterable[Any]) -> Iterator[list[Any]]:
    """Lists of as many as there are trials to spoil; the last may be shorter."""
    ways = iter(ways)
    while some := list(itertools.islice(ways, SEEDS)):
        yield some


def spoiled(content: Any) -> Iterator[Any]:
    """The content with one of its values, however deep, replaced by something odd of each kind, or gone."""
    places: list[tuple[Any, ...]] = []

    def walk(value: Any, place: tuple[Any, ...]) -> None:
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, part in parts:
            places.append((*place, key))
            walk(part, (*place, key))

    walk(content, ())
    for turn, place in enumerate(places):
        for odd in (*(kind[turn % len(kind)] for kind in ODD), KeyError):
            other = copy.deepcopy(content)
            at = other
            for key in place[:-1]:
                at = at[key]
            if odd is KeyError:
                del at[place[-1]]
            else:
                at[place[-1]] = odd
            yield other


@pytest.mark.parametrize("name", ["trial.json", "done.json", "failed.json", "stopped.json"])
def test_an_odd_value_in_a_trials_record_costs_that_trial_at_most(sweep, name):
    paths = [folder / name for folder in trials(sweep)]
    content = json.loads(paths[0].read_text()) if paths[0].exists() else {"kind": "error", "reason": "r", "step": 4}
    if name == "trial.json":
        content["config"] = {"seed": 0}  # nobody reads it
    for path in paths if name not in ("trial.json", "done.json") else ():
        (path.parent / "done.json").unlink()
    known = [content | {"seconds": {"train": 0, "evaluate": 0}}] if name == "done.json" else []
    left_out = 0
    for texts in some_at_a_time(["", "null", "[" * 10**5, "1" * 5000, *map(json.dumps, [*known, *spoiled(content)])]):
        for path, text in zip(paths, texts, strict=False):
            write_of_its_own(path, text)
        tables = gather(sweep)
        assert tables.trials.loc[tables.trials.arm == "baseline"].status.tolist()[0] == "done"
        assert [*tables.trials.status].count("unreadable") == len(tables.problems)
        left_out += len(tables.problems)
        unreadable = tables.trials.loc[tables.trials.status == "unreadable"]
        assert {trial.cell.trial_id for trial in planned_unreadable(sweep)} == set(unreadable.trial_id)
        assert all(problem.startswith(f"{sweep}/trials/") for problem in tables.problems)
        assert all(f"/{name}: " in problem and "move it away" in problem for problem in tables.problems)
    assert left_out >= 4
    assert main(["results", "report", str(sweep)]) == 0


def planned_unreadable(sweep: Path, **changes: Any) -> list[PlannedTrial]:
    """Of the trials of a sweep's file those that a run leaves for their damaged records."""
    raw = tiny_sweep(storage=str(sweep.parent), base=DIAGNOSED, seeds=list(range(SEEDS)), **changes)
    found = plan(load_sweep(write_spec(sweep.parent, raw)))
    return [trial for trial in found if trial.end.status == "unreadable" and not trial.is_left(retry_failed=True)]


@pytest.mark.parametrize("name", ["saved.json", "asked.json"])
def test_an_odd_note_of_a_trials_step_costs_that_trial_at_most(sweep, name):
    paths = [folder / name for folder in trials(sweep)]
    texts = ["", "null", "[" * 10**5, *map(json.dumps, spoiled({"step": 8}))]
    for path, text in zip(paths, texts, strict=False):
        path.write_text(text)
    found = planned_unreadable(sweep, scheduler={"name": "asha"})
    assert len(found) == (0 if name == "saved.json" else len(texts))
    assert all(f"/{name}: " in trial.end.reason for trial in found)


@pytest.mark.parametrize("name", ["run.json", "looks.json"])
def test_an_odd_file_of_a_sweep_costs_what_it_says_alone(sweep, name):
    look = {"arm": "multi2", "point": "", "pairs": [["a", "b"]], "margin": 0.1, "planned": 2, "needed": 2}
    content = {"looks": [look]} if name == "looks.json" else this_process() | {"since": "s", "nonce": "n"}
    problems: list[str] = []
    with FileLock(sweep / ".run.lock"):
        for text in ("", "null", "[" * 10**5, *map(json.dumps, spoiled(content))):
            (sweep / name).write_text(text)
            found = runner(sweep)
            assert found is not None
            problems += [found.problem] if found.problem else []
            with suppress(DamagedFileError):
                read_looks(sweep)
                continue
            if not problems:
                problems = gather(sweep).problems
    assert problems
    assert all(f"{sweep / name}: " in problem and "move it away" not in problem for problem in problems)


def close(path: Path) -> None:
    path.chmod(0)


def make_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def make_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def test_what_cannot_be_opened_costs_its_trial_or_sweep_alone(sweep, capsys):
    """Closed to this user, a folder or a pipe where a file should be, a file for a folder, a link to itself."""
    names = ("trial.json", "done.json", "evals.parquet")
    ways = [(name, way) for name in names for way in (close, make_folder, make_loop, make_pipe)]
    ways += [("", close), ("", make_loop), ("", make_file), ("saved.json", make_folder), ("failed.json", make_loop)]
    spoilt, storage = trials(sweep)[: len(ways)], sweep.parent
    (spoilt[-1] / "done.json").unlink()
    for folder, (name, way) in zip(spoilt, ways, strict=True):
        way(folder / name if name else folder)
    make_pipe(sweep / "progress.json")
    make_pipe(spoilt[0] / LOCK)
    for name in ("closed", "loop"):
        (storage / name).mkdir()
    close(storage / "closed")
    make_loop(storage / "loop")
    with as_any_user():
        found = planned_unreadable(sweep)
        assert {trial.cell.trial_id for trial in found} == {folder.name for folder in spoilt}
        for trial, (name, way) in zip(found, ways, strict=True):
            mend = "; let this user read it, or move it away" if way is close else "; move it away"
            assert trial.end.reason.startswith(f"{trial.folder / name}" if name else f"{trial.folder}"), (
                trial.end.reason
            )
            assert trial.end.reason.endswith(mend)
        tables = gather(sweep)
        assert len(tables.problems) == len(ways) - 1  # nobody reads saved.json there
        assert [*tables.trials.status].count("done") == 2 * SEEDS - len(ways) - (SEEDS - 1) + 1
        assert main(["plan", str(storage / "sweep.yaml")]) == 0
        assert main(["status", "tiny", "--storage", str(storage)]) == 0
        assert main(["results", "show", str(sweep)]) == 0
        printed = capsys.readouterr().out
        assert f"{spoilt[0] / 'trial.json'}: Permission denied; let this user read it, or move it away" in printed
        glances = {glance["name"]: glance for glance in WatchedStorage(storage).overview()["sweeps"]}
        assert "Permission denied" in glances["closed"]["problem"]
        assert sum(glances["tiny"]["counts"].values()) == 2 * SEEDS
        assert set(glances) == {"closed", "tiny"}
        _record_error(load_sweep(str(storage / "sweep.yaml")), spoilt[ways.index(("", close))].name, "closed meanwhile")
    for folder in (storage / "closed", *spoilt):  # or pytest could not remove them
        if folder.is_dir():
            folder.chmod(0o700)


def test_an_odd_word_of_a_driver_is_not_taken(sweep):
    """Where it is not, the folders say how the trials stand."""
    now, path = time.time(), sweep / "progress.json"
    trial = {"status": "running", "steps": 8, "step": 4, "heard": now, "rate": 1.0, "accuracy": 0.5}
    trial["longest_silence"] = 2.0
    content = {"written": now, "ended": False, "left": 1.0, "trials": {"abc": trial}}
    taken = 0
    for told in (content, *spoiled(content)):
        path.write_text(json.dumps(told))
        found = told_by_driver(sweep)
        taken += found is not None
        if found is not None:
            assert found["run"]["heard"] == now
            assert main(["status", "tiny", "--storage", str(sweep.parent)]) == 0
    assert 1 <= taken < 20
    for changes in ({"trials": {"a": 1}}, {"written": now + 1e4}, {"written": float("nan")}, {"written": 1e12}):
        path.write_text(json.dumps(content | changes))
        assert told_by_driver(sweep) is None
    (glance,) = WatchedStorage(sweep.parent).overview()["sweeps"]
    assert sum(glance["counts"].values()) == 2 * SEEDS


_CONFIG = {
    "model": ["arch"],
    "task": ["name"],
    "train": ["steps"],
    "perturb": ["sigma", "rollouts"],
    "diagnose": ["k"],
}


def test_a_manifest_that_is_odd_is_refused_or_read(sweep, capsys):
    shutil.copytree(sweep, sweep.with_name("whole"))
    path = sweep / "sweep.json"
    content = json.loads(path.read_text())
    cell = next(cell for cell in content["cells"] if cell["arm"] == "multi2")
    whole = cell["config"]
    cell["config"] = {name: whole[name] for name in ("objective", "rollout")}  # what anybody reads of it
    for part, fields in _CONFIG.items():
        cell["config"][part] = {name: whole[part][name] for name in fields}
    content["cells"] = [cell]
    odd = [copy.deepcopy(content) for _ in range(2)]
    odd[0]["cells"][0]["config"]["perturb"]["sigma"], odd[1]["cells"][0]["config"]["perturb"]["sigma"] = [-1, 1], ["a"]
    refused = 0
    for text in ("", "{}", '{"cells": {}}', *map(json.dumps, [*odd, *spoiled(content)])):
        path.write_text(text)
        try:
            gather(sweep, write=False)
        except DamagedFileError as error:
            refused += str(error).startswith(f"{path}: ")
    assert refused > 10
    content["cells"][0]["trial_id"] = "../../../../etc"
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["results", "gather", str(sweep), str(sweep.with_name("whole"))]) == 2
    printed = capsys.readouterr()
    assert "its field cells.0.trial_id is '../../../../etc'; move it away" in printed.err
    assert f"whole: {2 * SEEDS} trials, {SEEDS + 1} done" in printed.out


def test_what_nobody_foresaw_costs_its_trial_or_its_sweep_alone(sweep, capsys, monkeypatch):
    """Such as the mistake of a reader."""
    shutil.copytree(sweep, sweep.with_name("other"))
    unforeseen = trials(sweep)[0]

    def end(folder: Path, steps: int) -> TrialEnd:
        return trial_end(folder, "x" if folder == unforeseen else steps)

    monkeypatch.setattr("results.gather.trial_end", end)
    tables = gather(sweep, write=False)
    assert tables.trials.set_index("trial_id").status[unforeseen.name] == "unreadable"
    assert [*tables.trials.status].count("unreadable") == 1
    (problem,) = tables.problems
    assert problem.startswith(f"{unforeseen}: cannot be read (TypeError: ")
    monkeypatch.setattr("results.gather._planned_row", lambda places: {}["x"])
    (sweep.with_name("other") / "sweep.json").write_text('{"baseline": "b", "cells": []}')
    capsys.readouterr()
    assert main(["results", "gather", str(sweep), str(sweep.with_name("other"))]) == 2
    printed = capsys.readouterr()
    assert printed.err == f"{sweep}: cannot be gathered (KeyError: 'x')\n"
    assert "other: 0 trials" in printed.out


@pytest.mark.parametrize(
    ("name", "schema"),
    [("evals", EVALS_SCHEMA), ("diagnostics", DIAGNOSTICS_SCHEMA), ("unrolls", UNROLLS_SCHEMA)],
)
def test_odd_rows_cost_their_trial_at_most(sweep, name, schema, capsys):
    paths = [folder / f"{name}.parquet" for folder in trials(sweep)]
    whole = pq.read_table(paths[0])
    odd = {pa.int64(): -1, pa.float64(): float("nan"), pa.binary(): b"", pa.string(): "x", pa.bool_(): True}

    def spoilt() -> Iterator[pa.Table]:
        for at, field in enumerate(schema):
            for value in [None, odd[field.type]] if field.type in odd else [None, []]:
                for rows in (len(whole), 1):
                    column = [value] * rows + whole[field.name].to_pylist()[rows:]
                    yield whole.set_column(at, field, pa.array(column, field.type))
        yield from (whole.slice(0, 0), whole.slice(0, 1), whole.drop_columns([schema.names[-1]]))

    for tables_ in some_at_a_time(spoilt()):
        for path, table in zip(paths, tables_, strict=False):
            write_of_its_own(path, table)
        tables = gather(sweep)
        assert "baseline" in tables.trials.arm.tolist()
        if name != "unrolls":
            assert [*tables.trials.status].count("unreadable") == len(tables.problems)
        assert main(["results", "report", str(sweep)]) == 0
    assert main(["results", "show", str(sweep)]) == 0


@pytest.mark.parametrize("others", [["multi2"], ["multi2", "third"]])
def test_arms_with_other_test_puzzles_are_said_to_be_so_and_cost_nothing(others, tmp_path, capsys):
    """All arms, or one among comparable ones; and the same of a trial whose record was moved away."""
    elsewhere = {"task": {"generate": {"seed": 1}}}
    arms = {"third": merge(MULTI, {"perturb": {"rollouts": 3}})}
    spec_ = tiny_sweep(storage=str(tmp_path / "runs"), base={"train": {"steps": 4}}, seeds=[0], arms=arms)
    for arm in others:
        spec_["arms"][arm] = merge(spec_["arms"][arm], elsewhere)
    spec = write_spec(tmp_path, spec_)
    sweep = load_sweep(spec)
    write_manifest(sweep)
    for arm in sweep.spec.arms:
        assert main(["train", spec, "--arm", arm, "--seed", "0"]) == 0
    folder = tmp_path / "runs" / "tiny"
    capsys.readouterr()
    for _ in range(2):
        assert main(["results", "report", str(folder)]) == 0
        assert main(["results", "show", str(folder)]) == 0
        printed = capsys.readouterr().out
        assert printed.count("not comparable: other test puzzles") >= len(others)
        assert "ACT steps" not in printed
        assert "3 done" in printed
        (trials(folder, "third")[0] / "trial.json").unlink(missing_ok=True)  # as is advised of a damaged one

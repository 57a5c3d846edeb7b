"""`rrm diagnose` as a user runs it, and diagnoses as a metric of a trial."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from tiny import TINY, tiny_config, tiny_sweep, write_spec

import results
from launch import progress
from launch.cli import main
from results.diagnosis_schema import DIAGNOSIS_SCHEMAS, DIAGNOSTICS_SCHEMA
from results.storage import location
from rrm.checkpoint import serialise
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

CPU = torch.device("cpu")
DEEP = {"depth": 7, "restarts": 3, "sigma": [0.1, 1.0], "robustness": True}
ASKED = ["-n", "5", "-k", "3", "--threads", "1"]
ALL_ASKED = [*ASKED, "--depth", "7", "--restarts", "3", "--sigma", ".1", "1", "--robustness"]


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """The folder of a trained trial of a sweep with diagnoses, and its spec."""
    folder = tmp_path_factory.mktemp("diagnosed")
    spec = write_spec(
        folder,
        tiny_sweep(storage=str(folder), base={"diagnose": {"every": 4, "n": 5, "k": 3} | DEEP, "train": {"steps": 8}}),
    )
    assert main(["train", spec, "--arm", "baseline", "--seed", "0"]) == 0
    (only,) = (folder / "tiny" / "trials").iterdir()
    return only, spec


def test_a_sweep_keeps_a_row_an_example_and_diagnosis(trial, capsys):
    folder, spec = trial
    table = pq.read_table(folder / "diagnostics.parquet")
    assert table.schema.equals(DIAGNOSTICS_SCHEMA)
    rows = table.to_pylist()
    assert [(row["step"], row["example"]) for row in rows] == [(step, i) for step in (0, 4, 8) for i in range(5)]
    assert all(len(row["exponents"]) == 3 for row in rows)
    assert rows[0]["lambda_1"] != rows[-1]["lambda_1"]
    assert {row["givens"] for row in rows} == {10}
    assert all(
        (row["depth"], row["far_late_drift"] is None) == ((7, False) if row["step"] == 8 else (None, True))
        for row in rows
    )
    sizes = {"windows": 3 * 5 * 4, "depths": 5 * 7, "restarts": 5 * 2 * 3, "robustness": 5 * 4}
    for name, size in sizes.items():
        own = pq.read_table(folder / f"{name}.parquet")
        assert own.schema.equals(DIAGNOSIS_SCHEMAS[name])
        assert len(own) == size
        assert max(own["step"].to_pylist()) == 8
    assert main(["results", "show", spec]) == 0
    out = capsys.readouterr().out
    assert "Lyapunov exponents on test" in out
    assert "wandering solved" in out
    assert len(results.load("depths", folder.parents[2], arm="baseline")) == 35
    diagnosed, trials, puzzles = (
        results.load(name, folder.parents[2]) for name in ("diagnostics", "trials", "puzzles")
    )
    both = diagnosed.merge(trials[["trial_id", "test_digest"]]).merge(puzzles, on=["test_digest", "example"])
    assert len(both) == 15
    assert both.givens_x.tolist() == both.givens_y.tolist()


def tables(folder) -> dict[str, list[dict]]:
    return {path.stem: pq.read_table(path).to_pylist() for path in sorted(folder.glob("*.parquet"))}


def test_a_checkpoint_of_a_trial_says_what_the_trial_said(trial, capsys):
    folder, _ = trial
    assert main(["diagnose", str(folder / "final.pt"), *ALL_ASKED]) == 0
    out = capsys.readouterr().out
    assert "5 test puzzles, 0 solved; 2 ACT steps of 4 latent updates" in out
    for part in ("settled, solved", "No AUC: all puzzles", "Of the 5 failed after 2", "Restarts", "twice as many"):
        assert part in out
    assert f"Written: {folder}/final.pt.diagnosis: diagnostics.parquet, windows.parquet" in out
    found = tables(folder / "final.pt.diagnosis")
    assert len(found) == 5
    for name, rows in found.items():
        own = [row for row in pq.read_table(folder / f"{name}.parquet").to_pylist() if row["step"] == 8]
        assert [row | {"step": 8} for row in rows] == own, name


def test_a_killed_diagnosis_goes_on_to_the_same_bits(trial, tmp_path):
    """It does no part twice; one that asks for less takes the parts that are there."""
    folder, _ = trial
    command = ["diagnose", str(folder / "final.pt"), *ALL_ASKED, "--batch-size", "8"]
    assert main([*command, "--output", str(tmp_path / "unbroken")]) == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "unbroken").rglob("*") if path.is_file()}
    script = "import sys; from launch.cli import main; sys.exit(main(sys.argv[1:]))"
    killed, kills, parts = [*command, "--output", str(tmp_path / "killed")], 0, {}
    while True:
        with subprocess.Popen([sys.executable, "-c", script, *killed], stdout=subprocess.DEVNULL) as process:
            until = len(parts) + 9
            while process.poll() is None and len(list((tmp_path / "killed" / "parts").glob("*.pt"))) < until:
                time.sleep(0.01)
            process.kill()
        now = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "parts").glob("*.pt")}
        assert parts.items() <= now.items()  # none is written anew
        if process.returncode == 0:
            break
        parts, kills = now, kills + 1
    assert kills
    assert {
        p.name: p.read_bytes() for p in (tmp_path / "killed").rglob("*") if p.is_file() and p.suffix != ".tmp"
    } == whole
    assert (
        main(
            [
                "diagnose",
                str(folder / "final.pt"),
                *ASKED,
                "-n",
                "4",
                "--batch-size",
                "8",
                "--output",
                str(tmp_path / "killed"),
            ]
        )
        == 0
    )
    assert sorted(tables(tmp_path / "killed")) == ["diagnostics", "windows"]
    assert {path: path.stat().st_mtime_ns for path in parts} == parts


def kill_one(killed: list[int]) -> None:
    """Kill a worker of a diagnosis while it unrolls far past training: Ray names it after what it does."""
    while not killed:
        for process in psutil.process_iter(["cmdline"]):
            if process.info["cmdline"] and process.info["cmdline"][0].startswith("ray::DiagnosisWorker.find"):
                process.kill()
                killed.append(process.pid)
                return
        time.sleep(0.1)


@pytest.mark.usefixtures("local_ray")
def test_workers_of_a_cluster_find_the_same_bits(trial, bucket, tmp_path, monkeypatch, capsys):
    """From a bucket into it, with one worker lost in the middle."""
    monkeypatch.setenv("RRM_CACHE", str(tmp_path / "cache"))
    folder, _ = trial
    for name in ("final.pt", "trial.json"):
        (location(bucket) / "trial" / name).put((folder / name).read_bytes())
    asked = [*ALL_ASKED, "--batch-size", "8", "--depth", "1000"]
    assert main(["diagnose", str(folder / "final.pt"), *asked, "--output", str(tmp_path / "alone")]) == 0
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(killed,))
    killer.start()
    assert main(["diagnose", f"{bucket}/trial/final.pt", *asked, "--workers", "2"]) == 0
    found, killed = location(bucket) / "trial" / "final.pt.diagnosis", [*killed, 0]
    killer.join()
    assert len(killed) == 2
    files = {path.relative_to(tmp_path / "alone").as_posix(): path for path in (tmp_path / "alone").rglob("*.p*t")}
    assert len(files) == 14 + 5
    assert set(files) == {*found.sizes(), *(f"parts/{name}" for name in (found / "parts").sizes())}
    assert all((found / name).read_bytes() == path.read_bytes() for name, path in files.items())
    command = ["diagnose", str(folder / "final.pt"), *ALL_ASKED, "--batch-size", "8", "--output"]
    capsys.readouterr()
    refused = [*command, str(tmp_path / "none"), "--workers", "1"]
    assert main([*refused, "-k", "4000"]) == 2
    assert "k: 4000 is not between 1 and" in capsys.readouterr().err
    assert main([*refused, "--threads", "64"]) == 2
    assert "--threads 64: the cluster has 2 cores; give fewer threads" in capsys.readouterr().err


def test_it_says_how_far_it_is(trial, tmp_path, monkeypatch, capsys):
    """In a terminal a bar for each kind of part, with the time left; elsewhere a line now and then."""
    command = ["diagnose", str(trial[0] / "final.pt"), *ASKED, "--depth", "200", "--batch-size", "1", "--output"]
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    assert main([*command, str(tmp_path / "log")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith(" left")]
    parts = [f"{kind}: {done} of 5 parts" for kind in ("examples", "depths") for done in range(1, 5)]
    assert [line.partition(",")[0] for line in lines] == parts
    assert all(re.fullmatch(r".*, \d+ s left", line) for line in lines)

    ours, theirs = pty.openpty()
    printed: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(ours, 4096):
                printed.append(part)
        except OSError:  # the terminal is closed
            return

    reader = threading.Thread(target=read)
    reader.start()
    monkeypatch.setenv("TERM", "xterm")
    with open(theirs, "w") as terminal, monkeypatch.context() as here:
        here.setattr(sys, "stdout", terminal)
        assert main([*command, str(tmp_path / "bar")]) == 0
    reader.join()
    os.close(ours)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(printed).decode())
    assert re.search(r"examples +━+ +5/5 ", shown)
    assert re.search(r"depths +[━╸╺]+ +[1-4]/5 +0:00:\d\d", shown)


def test_a_maze_is_solved_by_a_valid_and_by_a_shortest_path(tmp_path, capsys):
    """Of mazes with one answer, the shortest is the exact one; each outcome has its part of what is printed."""
    base = {
        **TINY,
        "task": {"name": "maze", "side": 3, "generate": {"puzzles": 64, "min_path": 3, "unique": True}},
        "optim": {"lr": 0.03, "warmup_steps": 2, "ema_rate": 0.9},
        "train": {"steps": 100, "batch_size": 16, "optimizer_step": "act"},
        "eval": {"every": 100, "n": 24, "sigmas": []},
    }
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path)) | {"base": base})
    assert main(["train", spec, "--arm", "baseline", "--seed", "0"]) == 0
    (only,) = (tmp_path / "tiny" / "trials").iterdir()
    capsys.readouterr()
    asked = ["-n", "24", "-k", "2", "--threads", "1", "--depth", "4", "--restarts", "2"]
    assert main(["diagnose", str(only / "final.pt"), *asked]) == 0
    out = capsys.readouterr().out
    found = tables(only / "final.pt.diagnosis")
    for name in ("diagnostics", "depths", "restarts"):
        rows = found[name]
        assert all(row["solved"] == row["shortest"] and row["valid"] >= row["shortest"] for row in rows), name
    examples = found["diagnostics"]
    solved = sum(row["solved"] for row in examples)
    assert 0 < solved < 24
    assert len(found["restarts"]) == 3 * 2 * (24 - solved)
    assert all(row["path_length"] >= 3 for row in examples)
    valid = sum(row["valid"] for row in examples)
    assert f"24 test puzzles, {solved} exactly right, {valid} a valid path, {solved} a shortest path" in out


def test_a_published_file_needs_a_spec(trial, tmp_path, capsys):
    folder, spec = trial
    lonely = tmp_path / "step_8"
    lonely.write_bytes((folder / "final.pt").read_bytes())
    assert main(["diagnose", str(lonely)]) == 2
    assert "step_8: no trial.json beside it; say with --spec which model" in capsys.readouterr().err
    output = tmp_path / "out"
    arguments = [
        "diagnose",
        str(lonely),
        "--spec",
        spec,
        *ASKED,
        "--output",
        str(output),
    ]
    assert main(arguments) == 0
    assert (
        pq.read_table(output / "diagnostics.parquet")["exponents"].to_pylist()
        == pq.read_table(folder / "diagnostics.parquet")["exponents"].to_pylist()[-5:]
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.pt"], "nowhere.pt: no trial.json beside it"),
        (["{folder}/none.pt"], "none.pt: no such file"),
        (["{folder}/final_state.pt"], "a whole training state; give the weights beside it, best.pt or final.pt"),
        (["{folder}/final.pt", "-k", "0"], "k: 0 is below 1; give 1 or more"),
        (["{folder}/final.pt", "-n", "2", "-k", "4000"], "k: 4000 is not between 1 and"),
        (
            ["{folder}/final.pt", "--depth", "2"],
            "depth: 2 is not above model.halt_max_steps 2, which is always diagnosed",
        ),
        (["{folder}/final.pt", "--sigma", "0.1"], "sigma: given without restarts; say how many with --restarts"),
        (["{folder}/final.pt", "--restarts", "2", "--sigma", "0"], "sigma: [0.0] must be above 0, each once"),
        (["{folder}/final.pt", "--output", "{spec}"], "sweep.yaml: a file; give a folder"),
        (["{folder}/final.pt", "--spec", "{spec}", "--arm", "no"], "--arm no: no such arm; arms: baseline, multi2"),
    ],
)
def test_bad_input_is_one_message(trial, capsys, arguments, says):
    folder, spec = trial
    assert main(["diagnose", *(argument.format(folder=folder, spec=spec) for argument in arguments)]) == 2
    assert says in capsys.readouterr().err


def test_diagnoses_survive_a_resume_bit_for_bit():
    config = tiny_config(diagnose={"every": 4, "n": 3, "k": 2} | DEEP)
    unbroken = Trainer(config, CPU)
    unbroken.train_until(12)
    first = Trainer(config, CPU)
    first.train_until(5)
    state = serialise(first.state_dict())
    second = Trainer(config, CPU)
    second.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
    second.train_until(12)
    assert second.diagnoses.tables() == unbroken.diagnoses.tables()
    tables = second.diagnoses.tables()
    assert [row["step"] for row in tables["diagnostics"]] == [0] * 3 + [4] * 3 + [8] * 3 + [12] * 3
    for name in ("depths", "restarts", "robustness"):
        assert {row["step"] for row in tables[name]} == {12}


def test_a_trial_that_goes_on_has_the_tables_of_an_unbroken_one():
    short, long = (tiny_config(diagnose={"every": 4, "n": 3, "k": 2} | DEEP, train={"steps": n}) for n in (4, 8))
    unbroken, first, second = Trainer(long, CPU), Trainer(short, CPU), Trainer(long, CPU)
    unbroken.train_until(8)
    first.train_until(4)
    assert first.diagnoses.deep["step"] == 4
    second.load_state_dict(first.state_dict())
    second.train_until(8)
    assert second.diagnoses.tables() == unbroken.diagnoses.tables()

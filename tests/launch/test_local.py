"""A sweep on this machine by its name: status, log, a stop that lets trials save."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from threading import Timer

import pytest
from holding import held_elsewhere
from outputs import stdout_that_is
from sweep_folder import write_sweep
from tiny import tiny_sweep, write_spec

from launch import local
from launch.cli import main
from results.locks import started, this_process
from results.schema import LOG
from results.storage import write_atomically
from rrm import checkpoint
from tune.plan import attempts_of, write_manifest
from tune.spec import load_sweep

QUICKSTART = str(Path(__file__).parents[2] / "launch" / "specs" / "quickstart.yaml")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_status_and_stop(place, request, tmp_path, local_ray, capsys, monkeypatch):
    """In a bucket as if the sweep were a large one."""
    monkeypatch.setenv("HOME", str(tmp_path))  # where Tune's own files go if the trials are in a bucket
    environment = os.environ | {"RAY_ADDRESS": local_ray.address}
    storage = str(tmp_path) if place == "folder" else request.getfixturevalue("bucket")
    changes = {"base": {"train": {"steps": 1_000_000}, "eval": {"every": 1_000_000}}, "seeds": [0]}
    raw = tiny_sweep(storage=storage, resources={"cpu": 1}, **changes)
    del raw["arms"]["multi2"]
    spec = write_spec(tmp_path, raw)
    sweep = load_sweep(spec)
    trials = [sweep.folder / "trials" / trial_id for trial_id in sweep.trials]
    large = "cli.MANY_TRIALS = 0; " if place == "s3" else ""
    often = "progress_file.SECONDS = progress_file.SECONDS_S3 = 1"
    code = f"import sys; from launch import cli; from tune import progress_file; {often}; {large}sys.exit(cli.main())"
    command = [sys.executable, "-c", code, "run", spec]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    while not all((trial / "evals.parquet").exists() for trial in trials):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.3)
    on = ("tiny", "--storage", storage)
    out, until = "", time.monotonic() + 90
    while "1 running" not in out and time.monotonic() < until:
        assert main(["status", *on]) == 0
        out = capsys.readouterr().out
        time.sleep(0.2)
    assert f"tiny: 1 trials, 1 running; being run by process {process.pid} on " in out
    assert re.search(r"\n  step \d+ of 1000000.*, last heard \d+ s ago\n", out)
    with stdout_that_is("unread"):
        assert main(["logs", "--follow", *on]) == 0  # for nobody
    assert main(["stop", *on]) == 0
    assert "tiny: stopped in " in capsys.readouterr().out
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 4, printed
    if large:
        assert f"from here. So far: rrm results show {sweep.folder}\n" in printed
        assert not (sweep.folder / "report.html").exists()
    else:
        assert "tiny: 1 trials, 1 unfinished" in printed
    assert f"Watch it on a page: rrm watch {storage}\n" in printed
    assert "Stopped before the end; the same command goes on from here." in printed
    assert "\x1b" not in printed  # quiet where no terminal is: no colours, no cursor
    for trial in trials:
        state = trial / "latest_state.pt"
        assert checkpoint.loads(state.read_bytes(), state)["step"] > 0
    assert main(["logs", *on]) == 0
    (log,) = re.findall(r"\d:\d\d  tiny: 1 trials, 0 done, \d running, 0 failed; step \d+/1000000", printed)
    assert capsys.readouterr().out.startswith(log)
    assert main(["logs", "--follow", *on]) == 4
    assert main(["stop", *on]) == 0
    assert "tiny: not running" in capsys.readouterr().out
    assert main(["status", *on]) == 0
    assert f"tiny: 1 trials, 1 unfinished; not running; {sweep.folder}" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["--storage {}", "--address local", "--address local --storage {}"])
def test_an_exported_address_keeps_nobody_from_a_sweep_of_this_machine(way, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    spec = write_spec(tmp_path, tiny_sweep(seeds=[0]))
    write_manifest(load_sweep(spec))
    for command, says in (("status", "2 trials, 2 waiting; not running"), ("stop", "tiny: not running")):
        assert main([command, "tiny", *way.format(tmp_path / "runs").split()]) == 0
        assert says in capsys.readouterr().out


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_stop_signals_nobody_but_the_run(place, request, tmp_path, capsys, monkeypatch):
    """Who may write to the storage chooses the number in run.json, and no process but the run's own hears of it.

    In a folder that is who has locked the file; in a bucket the process with the number, if it has locked this node's.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    storage = str(tmp_path) if place == "folder" else request.getfixturevalue("bucket")
    sweep = load_sweep(write_spec(tmp_path, tiny_sweep(storage=storage)))
    write_manifest(sweep)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    run_lock, trial_lock = sweep.folder / ".run.lock", sweep.folder / "trials" / sweep.cells[0].trial_id / ".lock"
    trial_lock.parent.mkdir(parents=True, exist_ok=True)
    with held_elsewhere(trial_lock) as trainer, ExitStack() as runs:
        run = runs.enter_context(held_elsewhere(run_lock))
        for named in (-1, 0, 1, 2**70, os.getpid(), other.pid, trainer.pid):
            claim = {"pid": named, "host": platform.node(), "since": "today", "fence": 1}
            write_atomically(sweep.folder / "run.json", json.dumps(claim).encode())
            assert main(["stop", "tiny", "--storage", storage]) == (0 if place == "folder" else 2), named
            if place == "folder":
                assert run.wait(timeout=10) == -signal.SIGTERM, named
                run = runs.enter_context(held_elsewhere(run_lock))
            else:
                assert capsys.readouterr().err.startswith(f"tiny: being run by process {named} on "), named
                assert run.poll() is None, named
            assert other.poll() is trainer.poll() is None, named
    other.kill()
    other.wait()


BROKEN = ["", '{"pid": "x", "host": "h", "since": "s"}']
EARLIER = json.dumps({"pid": 4242, "host": "h", "since": "2020", "nonce": "x"})


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_run_is_known_by_its_lock_whatever_stands_in_its_file(place, request, tmp_path, capsys, monkeypatch):
    """No run.json yet, one of an earlier run, one that is damaged."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(local, "START_SECONDS", 0.0)
    monkeypatch.setattr("tune.experiment.CLAIM_SECONDS", 0.0)
    storage = str(tmp_path) if place == "folder" else request.getfixturevalue("bucket")
    spec = write_spec(tmp_path, tiny_sweep(storage=storage))
    sweep = load_sweep(spec)
    write_manifest(sweep)
    path, on = sweep.folder / "run.json", ("tiny", "--storage", storage)
    with held_elsewhere(sweep.folder / ".run.lock") as run:
        who = f"by process {run.pid} on {platform.node()}"
        for content in (None, EARLIER, *BROKEN):
            if content is not None:
                write_atomically(path, content.encode())
            said = f"being run {who} ({path}: " if content in BROKEN else f"being started {who}; "
            for command in (["status", *on], ["run", spec], ["logs", "--follow", *on], ["stop", *on]):
                if command[0] == "stop" and (place == "folder" and content != BROKEN[-1]):
                    continue  # once: it ends it
                with stdout_that_is("unread") if command[0] == "logs" else nullcontext():
                    code = main(command)
                printed = capsys.readouterr()
                assert "move it away" not in printed.out + printed.err
                if command[0] == "status":
                    assert (code, said in printed.out) == (0, True), printed
                elif command[0] == "run":
                    assert (code, printed.err.startswith(f"tiny: already {said}")) == (2, True), printed
                elif command[0] == "logs":
                    assert code == 0
                elif place == "s3":  # nobody has the lock of this node
                    assert (code, printed.err.startswith(f"tiny: {said[:-2]}")) == (2, True), printed
                else:
                    assert (code, printed.out.startswith("tiny: stopped in ")) == (0, True), printed
                    assert run.wait(timeout=10) == -signal.SIGTERM
    if place == "folder":
        assert main(["status", *on]) == 0
        assert "; not running; " in capsys.readouterr().out


def test_a_run_in_a_container_is_known_by_when_it_began(tmp_path, capsys):
    """There it has another number, and perhaps another host's name."""
    sweep = load_sweep(write_spec(tmp_path, tiny_sweep(storage=str(tmp_path))))
    write_manifest(sweep)
    with held_elsewhere(sweep.folder / ".run.lock") as run:
        for began, said in ((started(str(run.pid)), "run by process 1 on c"), (0, f"started by process {run.pid} on ")):
            who = this_process() | {"pid": 1, "host": "c", "since": "now", "namespace": "pid:[1]", "started": began}
            write_atomically(sweep.folder / "run.json", json.dumps(who).encode())
            assert main(["status", "tiny", "--storage", str(tmp_path)]) == 0
            assert f"; being {said}" in capsys.readouterr().out


def test_stop_waits_for_a_run_to_say_who_it_is(tmp_path, capsys, monkeypatch):
    """As one of another user, or another container: no process of ours is seen to hold the lock."""
    sweep = load_sweep(write_spec(tmp_path, tiny_sweep(storage=str(tmp_path))))
    write_manifest(sweep)
    monkeypatch.setattr(local, "START_SECONDS", 1.0)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with held_elsewhere(sweep.folder / ".run.lock"):
        for since, said in ((None, "being started by a process"), ("now", "being run by process 17 on h")):
            if since:
                claim = json.dumps({"pid": 17, "host": "h", "since": since}).encode()
                Timer(0.5, write_atomically, (sweep.folder / "run.json", claim)).start()
            assert main(["stop", "tiny", "--storage", str(tmp_path)]) == 2
            assert capsys.readouterr().err.startswith(f"tiny: {said}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "nowhere"], "nowhere: no such sweep in "),
        (["status"], "NAME: missing; give a sweep's name, or --address for all on a cluster"),
        (["stop", "nowhere"], "nowhere: no such sweep in "),
        (["logs", "nowhere"], "nowhere: no such sweep in "),
        (
            ["submit", "launch/specs/quickstart.yaml", "--set=storage=/x"],
            "--address: missing; give it, or set RAY_API_",
        ),
        (
            ["submit", "launch/specs/quickstart.yaml", "--set=storage=/x", "--address=local"],
            "--address: missing; give it, or set RAY_API_",
        ),
    ],
)
def test_unknown_sweeps_are_named(arguments, message, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_log_is_printed_whatever_bytes_it_holds(tmp_path, capsys):
    """A kill, or a full disk, may have cut a character."""
    write_sweep(tmp_path / "s", {"baseline": 0.0}, seeds=1, evaluations=1, diagnosed=0)
    log = attempts_of(tmp_path / "s") / "20260101-000000-a" / LOG
    log.parent.mkdir(parents=True)
    log.write_bytes(b"begun\ncut \xe2\x82\ngone on\n")
    assert main(["logs", "s", "--storage", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "begun\ncut \ufffd\ngone on\n"


def test_status_names_what_failed_and_what_stalled(tmp_path, capsys):
    write_sweep(tmp_path / "s", {"baseline": 0.0}, seeds=4, evaluations=2, diagnosed=0)
    ids = [f"{number:012x}" for number in range(4)]
    states = [
        {"status": "failed", "step": 600, "reason": "the training loss is NaN at step 600"},
        {"status": "running", "step": 300, "rate": 2.5, "heard": time.time() - 300},
        {"status": "running", "step": 900, "rate": 2.5, "heard": time.time()},
        {"status": "running", "step": 0, "heard": time.time() - 300, "longest_silence": 120.0},  # it evaluates
    ]
    trials = {trial_id: state | {"steps": 1200} for trial_id, state in zip(ids, states, strict=True)}
    told = {"written": time.time(), "ended": False, "left": 7200, "trials": trials}
    (tmp_path / "s" / "progress.json").write_text(json.dumps(told))
    show = ["status", "s", "--storage", str(tmp_path)]
    assert main(show) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("s: 4 trials, 1 failed, 3 running; not running")
    assert re.fullmatch(r"  step 1800 of 4800, 5 steps a second, about 2\.0 h left, last heard \d+ s ago", lines[0])
    assert lines[1:] == [
        f"  {ids[0]} failed: the training loss is NaN at step 600",
        f"  {ids[1]} stalled at step 300 of 1200: not heard of for 5 min",
    ]
    for stale in ({"written": time.time() - 300}, {"ended": True}, {"trials": "x"}, {"written": "x"}):
        (tmp_path / "s" / "progress.json").write_text(json.dumps(told | stale))
        assert main(show) == 0
        assert capsys.readouterr().out.startswith("s: 4 trials, 4 done; not running"), stale

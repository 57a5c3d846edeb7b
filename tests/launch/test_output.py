"""Output that fails: what trains does not notice; a command that only prints says so, unless nobody reads it."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from listening import LOOPBACK, descendants, listening
from outputs import stdout_that_is
from tiny import tiny_sweep, write_spec

from launch.cli import main
from rrm import checkpoint
from tune.output import outlets, redraws
from tune.plan import write_manifest
from tune.spec import load_sweep

RRM = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())"]
FULL = "standard output: No space left on device; make room, and the same command prints what is lost again\n"
CURSOR = re.compile(r"\x1b\[(\?25[lh]|[0-9;]*[A-HJKSTfsu])")  # moves it, hides it or clears lines


def sweep(folder: Path, **changes) -> str:
    """Two arms, one of which has a name that ASCII lacks."""
    raw = tiny_sweep(storage=str(folder / "runs"), seeds=[0], **changes)
    raw["arms"] = {"baseline": raw["arms"]["baseline"], "größe_λ": raw["arms"]["multi2"]}
    return write_spec(folder, raw)


def sweep_of_one(folder: Path, **changes) -> str:
    """The arm with the name that ASCII lacks."""
    raw = tiny_sweep(storage=str(folder / "runs"), seeds=[0], **changes)
    return write_spec(folder, raw | {"arms": {"größe_λ": raw["arms"]["multi2"]}, "baseline": "größe_λ"})


@pytest.fixture(scope="module")
def there(tmp_path_factory) -> Path:
    """A folder with a sweep, of which one trial is trained and a run was here, and with a puzzle file."""
    folder = tmp_path_factory.mktemp("output")
    path = sweep(folder)
    write_manifest(load_sweep(path))
    assert main(["train", path, "--arm", "baseline", "--seed", "0"]) == 0
    (folder / "runs" / "tiny" / "attempts" / "1").mkdir(parents=True)
    (folder / "runs" / "tiny" / "attempts" / "1" / "log.txt").write_text("0:01  größe_λ\n", encoding="utf-8")
    (folder / "sudoku.csv").write_text("source,question,answer,rating\n-,1.34341221434321,1234341221434321,0\n")
    return folder


PRINTS = [
    "--help",
    "plan --help",
    "plan {0}/sweep.yaml",
    "results show {0}/runs/tiny",
    "data check {0}/sudoku.csv",
    "data show {0}/sudoku.csv",
    "status tiny --storage {0}/runs",
    "logs tiny --storage {0}/runs",
]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("command", PRINTS)
def test_what_only_prints_has_failed_where_the_disk_is_full_and_not_where_nobody_reads(
    command, encoding, there, capsys
):
    arguments = command.format(there).split()
    for what, code, said in (("unread", 0, ""), ("closed", 0, ""), ("full", 2, FULL)):
        with stdout_that_is(what, encoding):
            assert main(arguments) == code
        assert capsys.readouterr().err == said


def test_an_error_keeps_its_code_whoever_reads(tmp_path, capsys):
    for what in ("unread", "closed"):
        with stdout_that_is(what):
            assert main(["plan", str(tmp_path / "no.yaml")]) == 2
        assert "No such file or directory" in capsys.readouterr().err
    (tmp_path / "two.csv").write_text("source,question,answer,rating\n-,................,1234341221434321,0\n")
    with stdout_that_is("unread"):
        assert main(["data", "check", str(tmp_path / "two.csv")]) == 2  # it is wrong, seen or not


@pytest.mark.parametrize(
    ("redirected", "said"), [("| true", ""), (">&-", ""), (">&- 2>&- <&-", ""), ("> /dev/full", FULL)]
)
def test_in_a_shell(redirected, said, there):
    """As a process, to its very end: the interpreter, too, flushes stdout."""
    line = f'"$@" results show {there}/runs/tiny {redirected}; echo ${{PIPESTATUS[0]}}'
    ran = subprocess.run(["bash", "-c", line, "-", *RRM], capture_output=True, text=True, check=False)
    assert ran.stdout == ("2\n" if said else "0\n")
    assert ran.stderr == said


def test_what_an_encoding_lacks_is_escaped(there, tmp_path, monkeypatch):
    with open(tmp_path / "printed", "w", encoding="ascii") as printed:
        monkeypatch.setattr(sys, "stdout", printed)
        assert main(["plan", str(there / "sweep.yaml")]) == 0
        assert main(["logs", "tiny", "--storage", str(there / "runs")]) == 0
    text = (tmp_path / "printed").read_text()
    assert "gr\\xf6\\xdfe_\\u03bb" in text
    assert "0:01  gr\\xf6\\xdfe_\\u03bb\n" in text


@pytest.mark.parametrize("what", ["unread", "closed", "full"])
def test_rrm_train_goes_on_to_its_end(what, there, tmp_path, capsys):
    with stdout_that_is(what, "ascii"):
        assert main(["train", sweep(tmp_path), "--arm", "größe_λ", "--seed", "0"]) == 0
    assert capsys.readouterr().err == (FULL if what == "full" else "")
    assert len(list(tmp_path.glob("runs/tiny/trials/*/done.json"))) == 1


@pytest.mark.usefixtures("local_ray")
def test_a_run_goes_on_to_its_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with stdout_that_is("full", "ascii"):
        assert main(["run", sweep_of_one(tmp_path)]) == 0
    assert capsys.readouterr().err == FULL
    assert len(list(tmp_path.glob("runs/tiny/trials/*/done.json"))) == 1
    (log,) = tmp_path.glob("runs/tiny/attempts/*/log.txt")
    assert "größe_λ seed=0: done" in log.read_text(encoding="utf-8")


@pytest.fixture
def hang_up_ends() -> Iterator[None]:
    """SIGHUP as it is by default, even if the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_up_ends")
def test_a_terminal_that_is_closed_stops_rrm_train_as_ctrl_c_does(tmp_path, capsys):
    long = {"train": {"steps": 100_000}, "eval": {"every": 100_000}}
    spec = sweep(tmp_path, base=long)

    def hang_up() -> None:
        while signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=hang_up).start()
    assert main(["train", spec, "--arm", "baseline", "--seed", "0"]) == 4
    assert "stopped and saved at step " in capsys.readouterr().out
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def on_a_terminal(command: list[str], **environment: str) -> tuple[subprocess.Popen, int]:
    """A process with a terminal of its own, and that terminal: closing it hangs up."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80"} | environment,
    )
    os.close(theirs)
    return process, ours


def read_until_trained(terminal: int, process: subprocess.Popen, folder: Path) -> str:
    """What it prints, up to the time at which its trial has trained some."""
    printed, until = b"", time.monotonic() + 150
    os.set_blocking(terminal, False)
    while not any(json.loads(saved.read_text())["step"] for saved in folder.rglob("saved.json")):
        assert process.poll() is None, printed.decode()
        assert time.monotonic() < until, printed.decode()
        time.sleep(0.2)
        try:
            printed += os.read(terminal, 1 << 16)
        except BlockingIOError:
            continue
    return printed.decode()


def saved_step(folder: Path) -> int:
    """That of the one trial's saved state."""
    (state,) = folder.rglob("latest_state.pt")
    return checkpoint.load(state)["step"]


@pytest.mark.usefixtures("hang_up_ends")
def test_a_terminal_that_is_closed_stops_a_run_and_its_trials_save(tmp_path, monkeypatch):
    """With a Ray of its own, which the same signal must not end; with a name that the workers' logs lack, too.

    That Ray is closed to others: it listens on loopback alone, and asks for a token that only this user reads.
    """
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    long = {"train": {"steps": 1_000_000}, "eval": {"every": 1_000_000}}
    own_ray = {"RAY_ADDRESS": "", "PYTHONIOENCODING": "ascii", "HOME": str(tmp_path)}
    process, terminal = on_a_terminal([*RRM, "run", sweep_of_one(tmp_path, base=long, save_seconds=3)], **own_ray)
    printed = read_until_trained(terminal, process, tmp_path)
    assert listening(descendants(process.pid)) == LOOPBACK
    token = tmp_path / ".ray" / "auth_token"
    assert re.fullmatch("[0-9a-f]{64}", token.read_text())
    assert token.stat().st_mode & 0o777 == 0o600
    before = saved_step(tmp_path)
    os.killpg(process.pid, signal.SIGHUP)  # as the shell does that this terminal belongs to
    os.close(terminal)
    assert process.wait(60) == 4
    assert CURSOR.search(printed)  # it was a terminal
    (trial,) = tmp_path.glob("runs/tiny/trials/*")
    assert not (trial / "failed.json").exists()
    assert len(json.loads((trial / "trial.json").read_text())["attempts"]) == 1
    assert saved_step(tmp_path) > before  # less than three seconds later


def test_a_run_under_nohup_outlives_its_terminal(tmp_path, local_ray):
    spec = sweep_of_one(tmp_path, base={"train": {"steps": 150}, "eval": {"every": 50}})
    attached = {"RAY_ADDRESS": local_ray.address, "TERM": "dumb"}
    process, terminal = on_a_terminal(["bash", "-c", 'trap "" HUP; exec "$@"', "-", *RRM, "run", spec], **attached)
    printed = read_until_trained(terminal, process, tmp_path)
    os.killpg(process.pid, signal.SIGHUP)
    os.close(terminal)
    assert process.wait(120) == 0
    assert not CURSOR.search(printed)
    assert len(list(tmp_path.glob("runs/tiny/trials/*/done.json"))) == 1


@pytest.mark.parametrize(
    ("environment", "can"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, True),
        ({"TERM": "dumb"}, False),
        ({"FORCE_COLOR": "1", "TERM": "unknown"}, False),
        ({"JPY_PARENT_PID": "1", "FORCE_COLOR": "1"}, False),
    ],
)
def test_lines_are_drawn_again_on_a_terminal_that_can(environment, can, monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal, open(os.devnull, "w") as log:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert redraws() is can
        monkeypatch.setattr(sys, "stdout", log)
        assert not redraws()
        monkeypatch.undo()
    os.close(ours)


def test_streams_are_given_back():
    before = sys.stdout, sys.stderr
    with outlets() as outs:
        assert (sys.stdout, sys.stderr) == outs
        with outlets() as inner:
            assert inner == outs
    assert (sys.stdout, sys.stderr) == before

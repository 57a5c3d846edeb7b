"""`rrm train` stopped with Ctrl-C saves first, and goes on from there; out of memory it says what to lower."""

import json
import re
import signal
import subprocess
import sys

from filelock import FileLock
from tiny import tiny_sweep, write_spec

import results
from launch.cli import main
from tune.plan import write_manifest
from tune.spec import load_sweep
from tune.trial import Progress, TrialRun


def start(spec: str) -> subprocess.Popen:
    command = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())", "train", spec]
    arguments = ["--arm", "multi2", "--seed", "0"]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_saves_between_two_evaluations(tmp_path, capsys, monkeypatch):
    long = {"train": {"steps": 4000}, "eval": {"every": 4000}}
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), base=long))
    process = start(spec)
    assert process.stdout is not None
    for line in process.stdout:
        if not line.startswith("multi2 seed=0: step 0/"):
            break
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 4, errors
    assert errors == ""
    step = int(printed.partition("stopped and saved at step ")[2].partition(";")[0])
    assert 0 < step < 4000
    assert main(["plan", spec]) == 0
    (row,) = (line.split() for line in capsys.readouterr().out.splitlines() if "unfinished" in line)
    assert row[4:6] == [f"{step}/4000", "would"]

    def advance(run: TrialRun, seconds: float) -> Progress:
        signal.raise_signal(signal.SIGTERM)
        return advance_for(run, seconds / 10)

    advance_for = TrialRun.advance
    monkeypatch.setattr(TrialRun, "advance", advance)
    assert main(["train", spec, "--arm", "multi2", "--seed", "0"]) == 4
    first, stopped = capsys.readouterr().out.splitlines()
    assert int(first.partition("step ")[2].partition("/")[0]) > step
    assert "stopped and saved at step " in stopped


def test_trials_one_by_one_are_a_sweep_to_every_command(tmp_path, capsys, monkeypatch):
    """As the jobs of a Slurm array train them, some with the file's seeds narrowed to their own."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    storage = tmp_path / "runs"
    spec = write_spec(tmp_path, tiny_sweep(storage=str(storage), base={"train": {"steps": 4}}))
    assert main(["train", spec, "--arm", "baseline", "--seed", "0"]) == 0
    assert main(["train", spec, "--arm", "multi2", "--seed", "0", "--set", "seeds=[0]"]) == 0
    capsys.readouterr()
    assert main(["status", "tiny", "--storage", str(storage)]) == 0
    assert capsys.readouterr().out.startswith("tiny: 4 trials, 2 done, 2 waiting; not running; ")
    assert main(["results", "show", str(storage / "tiny")]) == 0
    assert "tiny: 4 trials, 2 done, 2 waiting" in capsys.readouterr().out
    assert results.load("trials", storage, status="done").arm.tolist() == ["baseline", "multi2"]
    assert main(["logs", "tiny", "--storage", str(storage)]) == 2
    assert "tiny: no log of a run in " in capsys.readouterr().err
    wider = ["--set", "seeds=[0, 1, 2]"]
    assert main(["train", spec, "--arm", "baseline", "--seed", "0", *wider]) == 0  # done; the sweep has more of them
    assert "already done" in capsys.readouterr().out
    assert main(["status", "tiny", "--storage", str(storage)]) == 0
    assert capsys.readouterr().out.startswith("tiny: 6 trials, 2 done, 4 waiting; ")


def test_bad_input_leaves_no_sweep(tmp_path):
    storage = tmp_path / "runs"
    missing = {"task": {"generate": None, "data": str(tmp_path / "none")}}
    spec = write_spec(tmp_path, tiny_sweep(storage=str(storage), base=missing))
    assert main(["train", spec, "--arm", "baseline", "--seed", "0"]) == 2
    assert not storage.exists()


def test_a_trial_that_another_process_trains_leaves_the_sweep_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tune.held_folder.LOCK_SECONDS", 0.1)
    storage = tmp_path / "runs"
    sweep = load_sweep(write_spec(tmp_path, tiny_sweep(storage=str(storage))))
    write_manifest(sweep)
    before = (sweep.folder / "sweep.json").read_bytes()
    trial = sweep.folder / "trials" / sweep.cells[0].trial_id
    trial.mkdir(parents=True)
    with FileLock(trial / ".lock"):
        assert main(["train", sweep.path, "--arm", "baseline", "--seed", "0", "--set", "seeds=[0, 1, 2]"]) == 2
    assert "another process is training this trial" in capsys.readouterr().err
    assert (sweep.folder / "sweep.json").read_bytes() == before


_IN_LITTLE_MEMORY = """
import resource, sys, torch
from launch.cli import main
from tune.plan import write_manifest
from tune.spec import load_sweep
import tune.spec, tune.trial
(used,) = (int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, ((used << 10) + (100 << 20),) * 2)
sys.exit(main(sys.argv[1:]))
"""


def test_out_of_memory_is_a_line_that_names_what_takes_it(tmp_path):
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), base={"train": {"batch_size": 2**18}}))
    command = [sys.executable, "-c", _IN_LITTLE_MEMORY, "train", spec, "--arm", "multi2", "--seed", "0"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 3, failed.stderr
    (line,) = failed.stderr.splitlines()
    says = r"multi2 seed=0: failed: (out of memory( \(\d+ bytes more were asked for\))?: (raise train.shards .*))"
    match = re.fullmatch(says, line)
    assert match, line
    assert match[3].startswith("raise train.shards (1), or lower train.batch_size (262144 x 2 rollouts), or eval.batch")
    (record,) = (tmp_path / "runs").rglob("failed.json")
    assert json.loads(record.read_text())["reason"] == match[1]

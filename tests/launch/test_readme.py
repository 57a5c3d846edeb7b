"""The README's shell lines are run, its YAML is read and its commands and options are there; more in test_quickstart.

Not run are the lines that need another machine: a firewall's, a second node's, a GPU's, W&B's server.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from runpy import run_path

import torch
from listening import LOOPBACK, descendants, listening
from ruamel.yaml import YAML
from tiny import tiny_sweep, write_spec

from launch.cli import main
from rrm import checkpoint
from rrm.config import TrialConfig
from rrm.presets import PRESETS
from tune.environment import unreachable

README = (Path(__file__).parents[2] / "README.md").read_text()
SHELL, YAML_BLOCKS = ([block.partition("```")[0] for block in README.split(f"```{of}\n")[1:]] for of in ("sh", "yaml"))


def test_its_sweep_is_a_valid_one(tmp_path, capsys):
    (tmp_path / "sweep.yaml").write_text(YAML_BLOCKS[0])
    assert main(["plan", str(tmp_path / "sweep.yaml")]) == 0
    # 8 seeds x (one baseline, 3 sigmas of single and of multi4): the clean arm is the same trial at every sigma
    assert "sigma-ladder: 56 trials, 56 would be trained" in capsys.readouterr().out


def test_its_tasks_are_valid():
    lines = YAML_BLOCKS[1].splitlines()
    tasks = [YAML(typ="safe").load(line)["task"] for line in lines]
    configs = [TrialConfig.model_validate(PRESETS["sudoku-4x4-trm-mlp"] | {"task": task, "seed": 0}) for task in tasks]
    assert [config.task.seq_len for config in configs] == [16, 900, 81, 900, 81]


def test_the_commands_and_options_that_it_names_are_there(capsys):
    commands = set()
    for row in re.findall(r"^\| `rrm (.*?)` \|", README.replace("\\|", "/"), re.MULTILINE):
        first, second = (*row.split(), "")[:2]
        kinds = second.split("/") if "/" in second else [""]
        commands |= {f"{name} {kind}".strip() for name in first.split("/") for kind in kinds}
    assert {"run", "results show", "data check", "stop", "watch"} <= commands
    for command in sorted(commands):
        assert main([*command.split(), "--help"]) == 0
    helped, section = capsys.readouterr().out, README[README.index("## Commands") : README.index("## A sweep")]
    for option in re.findall(r"(?<=[`|\s])--[a-z][a-z-]+", section):
        assert option in helped, option


def test_its_table_of_memory_has_the_rows_of_the_benchmark(capsys):
    main = run_path(str(Path(__file__).parents[1] / "benchmarks" / "memory.py"))["main"]
    main.__globals__.update(kept_bytes=lambda _: 0, needed_bytes=lambda _: 0)  # they take seconds
    main()
    rows = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines()]
    table = README[README.index("| preset |") : README.index("On an H100")].splitlines()[2:]
    assert rows == [line.split(" | ")[:2] for line in table if line]


def test_the_files_that_it_names_are_there():
    """Except in blocks, whose lines are run."""
    named = set(re.findall(r"(?<![\w./])(?:rrm|tune|launch|results|tests)/[a-z_0-9/.]*[a-z]", README))
    assert {"launch/firewall.nft", "launch/specs/quickstart.yaml", "rrm/presets.py"} <= named
    assert [name for name in named if not (Path(__file__).parents[2] / name).exists()] == []


def test_its_lines_about_puzzles(shared_data, tmp_path):
    here, folder = tmp_path / "project", tmp_path / "project" / "FOLDER"
    folder.mkdir(parents=True)
    shutil.copytree(
        shared_data,
        tmp_path / "shared" / "data",
        ignore=shutil.ignore_patterns("sudoku*", "*11x11*", "*30x30*", "off*"),
    )
    for split in ("train", "test"):
        shutil.copy(shared_data / f"sudoku_easy_{split}.csv", folder / f"{split}.csv")
    (lines,) = [block for block in SHELL if "rrm data" in block]
    for large, small in (
        ("--maze 30 --min-path 110", "--maze 9 --min-path 8"),
        ("1000", "3"),
        ("generate OUT", "generate "),
    ):
        assert large in lines
        lines = lines.replace(large, small)
    assert "../shared/data/maze_9x9_test.csv" in bash(lines, here)
    assert {path.name for path in here.iterdir()} == {"FOLDER", "OUTPUT", "PUT"}


def test_its_lines_about_a_cluster(tmp_path):
    """On ports that are free, with a head's options that end it with this test; a tiny sweep, two workers a trial."""
    start_and_ask, without_submit = (block for block in SHELL if "ray " in block)
    start, ask = start_and_ask.partition("rrm submit")[::2]
    (tmp_path / "launch" / "specs").mkdir(parents=True)
    of_two = {"resources": {"workers": 2}, "base": {"train": {"shards": 2}}}
    spec = write_spec(
        tmp_path / "launch" / "specs", tiny_sweep(name="quickstart", seeds=[0], **of_two), "quickstart.yaml"
    )
    port, dashboard, client = free_ports(3)
    own = tempfile.TemporaryDirectory(prefix="ray", dir="/tmp")  # short: sockets are in it
    others = f"--block --num-cpus 2 --port {port} --dashboard-port {dashboard} --dashboard-agent-listen-port 0"
    others += f" --ray-client-server-port {client} --temp-dir {own.name} --include-log-monitor false"
    start = start.replace("ray start", f"exec ray start {others}").replace("8265", str(dashboard))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    environment |= {
        "RAY_prestart_worker_first_driver": "0",
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    exports = "".join(line for line in start.splitlines(keepends=True) if line.startswith("export"))
    with open(tmp_path / "head.log", "w") as log:
        head = subprocess.Popen(["bash", "-ec", start], cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while unreachable("127.0.0.1", dashboard):
            assert head.poll() is None, (tmp_path / "head.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.5)
        said = bash(exports + "rrm submit" + ask, tmp_path, environment)
        assert said.startswith("quickstart-1: submitted with ")
        assert "quickstart: 2 trials, 2 done" in said
        assert listening(descendants(head.pid)) == LOOPBACK
        trials = tmp_path / "runs" / "quickstart" / "trials"
        attempts = [json.loads(path.read_text())["attempts"] for path in trials.glob("*/trial.json")]
        assert [len(attempt["workers"]) for (attempt,) in attempts] == [2, 2]
        assert main(["train", spec, "--arm", "multi2", "--seed", "0", "--set", f"storage={tmp_path}/alone"]) == 0
        (alone,) = (tmp_path / "alone" / "quickstart" / "trials").iterdir()
        assert same_weights(alone, trials / alone.name)
        again = bash(exports + without_submit, tmp_path, environment)
        assert "quickstart: 2 trials, 2 done" in again
    finally:
        head.terminate()
        head.wait(30)
        own.cleanup()


def same_weights(trial: Path, other: Path) -> bool:
    a, b = (checkpoint.load(folder / "final.pt") for folder in (trial, other))
    return all(torch.equal(a[key], b[key]) for key in a | b)


def bash(lines: str, folder: Path, environment: dict[str, str] | None = None) -> str:
    """What lines of a shell print; an error of any of them fails the test."""
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env = (os.environ if environment is None else environment) | path
    ran = subprocess.run(["bash", "-exc", lines], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports

"""What comes from a storage is shown as text: no order to a terminal and no markup, in whatever a command prints."""

import json
import os
import shutil
import sys
import unicodedata
from io import StringIO
from pathlib import Path

import pytest
from rich.table import Table
from sweep_folder import write_sweep
from tiny import tiny_sweep, write_spec

from launch.cli import main
from tune.output import console, outlets, plain

ESC, BELL, RETURN, OVERRIDE, C1 = "\x1b", "\a", "\r", "\u202e", "\x9b"
BAD = f"[red]{ESC}[2J{ESC}]0;mine{BELL}{RETURN}{C1}31m{OVERRIDE}[/]"
SHOWN = r"[red]\x1b[2J\x1b]0;mine\x07\r\x9b31m\u202e[/]"


def orders(text: str) -> set[str]:
    """The characters of it that no terminal shows."""
    return {character for character in text if unicodedata.category(character) in ("Cc", "Cf")} - {"\n", "\t"}


@pytest.fixture(scope="module")
def storage(tmp_path_factory) -> Path:
    """A sweep of which every text that a name can be is BAD."""
    storage = tmp_path_factory.mktemp("plain")
    states = ["done", "done", "failed", "unfinished"]
    sweep, arms = storage / "s", {"baseline": 0.0, BAD: 0.3}
    write_sweep(sweep, arms, seeds=2, evaluations=2, diagnosed=0, states=lambda number: states[number])
    for path in sweep.glob("trials/*/trial.json"):
        record = json.loads(path.read_text())
        record["attempts"][0] |= {"device": BAD, "host": BAD, "commit": BAD}
        path.write_text(json.dumps(record))
    for path in sweep.glob("trials/*/failed.json"):
        path.write_text(json.dumps({"kind": "diverged", "reason": BAD, "step": 600}))
    (sweep / "attempts" / "1").mkdir(parents=True)
    (sweep / "attempts" / "1" / "log.txt").write_text(f"0:01  {BAD}: failed: {BAD}\n")
    return storage


COMMANDS = [
    "status s --storage {0}",
    "logs s --storage {0}",
    "results gather {0}/s",
    "results show {0}/s --all",
    *(f"results show {{0}}/s --all --format {how}" for how in ("csv", "json", "markdown", "latex")),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_sweeps_names_and_reasons(storage, command, capsys):
    assert main(command.format(storage).split()) == 0
    printed = "".join(capsys.readouterr())
    assert orders(printed) == set()
    if "latex" not in command and "gather" not in command:
        assert (SHOWN if "json" not in command else "[red]\\u001b[2J") in printed


def test_errors_that_hold_them(storage, tmp_path, capsys):
    sweep = tmp_path / f"a{ESC}[2J"
    shutil.copytree(storage / "s", sweep)
    damaged = shutil.copytree(storage / "s", tmp_path / "s")
    (damaged / "sweep.json").write_text(json.dumps({"baseline": "b", "cells": [{"arm": {BAD: BAD}}]}))
    spec = write_spec(tmp_path, tiny_sweep(arms={BAD: {"objective": BAD}}))
    for command, code in (
        (["results", "show", str(sweep)], 0),
        (["status", BAD, "--storage", str(tmp_path)], 2),
        (["results", "show", str(damaged)], 2),
        (["status", "s", "--storage", str(tmp_path)], 2),
        (["plan", spec], 2),
        (["plan", f"{BAD}.yaml"], 2),
        (["run", spec, BAD], 2),
    ):
        assert main(command) == code, command
        printed = "".join(capsys.readouterr())
        assert orders(printed) == set()
        assert "\\x1b[2J" in printed, command


def test_a_console_draws_itself_and_shows_what_it_is_given(monkeypatch):
    """On a terminal, where it gives orders of its own: bold headings."""
    monkeypatch.setattr(os, "environ", os.environ | {"TERM": "xterm-256color", "COLUMNS": "200"})
    screen = StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", screen)
    with outlets():
        table = Table(f"heading {BAD}", header_style="bold")
        table.add_row(BAD)
        console().print(table)
        console().print(BAD, style="red")
        print(BAD)
    drawn = screen.getvalue()
    assert drawn.count(SHOWN) == 4
    assert "\x1b[1m" in drawn
    assert "\x1b[31m" in drawn
    assert not orders(drawn) - {ESC}
    assert "\x1b[2J" not in drawn
    assert "\x1b]" not in drawn


def test_text_of_any_language_stays_as_it_is():
    for text in ("größe λ → 2 ±1\tx\n", "日本語", "עברית", "👩‍🚀", "é"):
        assert plain(text) == text

"""`rrm diagnose` as a user runs it, and diagnoses as a metric of a trial."""

import io

import pyarrow.parquet as pq
import pytest
import torch
from tiny import tiny_config, tiny_sweep, write_spec

from launch.cli import main
from results.schema import DIAGNOSTICS_SCHEMA
from rrm.checkpoint import serialise
from rrm.train import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """The folder of a trained trial of a sweep with diagnoses, and its spec."""
    folder = tmp_path_factory.mktemp("diagnosed")
    spec = write_spec(
        folder, tiny_sweep(storage=str(folder), base={"diagnose": {"every": 4, "n": 5, "k": 3}, "train": {"steps": 8}})
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
    assert main(["results", "show", spec]) == 0
    assert "Lyapunov exponents on test" in capsys.readouterr().out


def test_a_checkpoint_of_a_trial_says_what_the_trial_said(trial, capsys):
    folder, _ = trial
    assert main(["diagnose", str(folder / "final.pt"), "-n", "5", "-k", "3", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "test puzzles" in out
    assert f"Written: {folder}/final.pt.diagnostics.parquet" in out
    rows = pq.read_table(folder / "final.pt.diagnostics.parquet").to_pylist()
    last = pq.read_table(folder / "diagnostics.parquet").to_pylist()[-5:]
    assert [row | {"step": 8} for row in rows] == last


def test_a_published_file_needs_a_spec(trial, tmp_path, capsys):
    folder, spec = trial
    lonely = tmp_path / "step_8"
    lonely.write_bytes((folder / "final.pt").read_bytes())
    assert main(["diagnose", str(lonely)]) == 2
    assert "step_8: no trial.json beside it; say with --spec which model" in capsys.readouterr().err
    output = tmp_path / "out.parquet"
    arguments = [
        "diagnose",
        str(lonely),
        "--spec",
        spec,
        "-n",
        "5",
        "-k",
        "3",
        "--threads",
        "1",
        "--output",
        str(output),
    ]
    assert main(arguments) == 0
    assert (
        pq.read_table(output)["exponents"].to_pylist()
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
        (["{folder}/final.pt", "--spec", "{spec}", "--arm", "no"], "--arm no: no such arm; arms: baseline, multi2"),
    ],
)
def test_bad_input_is_one_message(trial, capsys, arguments, says):
    folder, spec = trial
    assert main(["diagnose", *(argument.format(folder=folder, spec=spec) for argument in arguments)]) == 2
    assert says in capsys.readouterr().err


def test_diagnoses_survive_a_resume_bit_for_bit():
    config = tiny_config(diagnose={"every": 4, "n": 3, "k": 2})
    unbroken = Trainer(config, CPU)
    unbroken.train_until(12)
    first = Trainer(config, CPU)
    first.train_until(5)
    state = serialise(first.state_dict())
    second = Trainer(config, CPU)
    second.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
    second.train_until(12)
    assert second.diagnostics == unbroken.diagnostics
    assert [row["step"] for row in second.diagnostics] == [0] * 3 + [4] * 3 + [8] * 3 + [12] * 3

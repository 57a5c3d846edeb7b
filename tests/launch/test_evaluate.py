"""`rrm evaluate` as a user runs it: a trial's own rows again, other noise, a killed one that goes on."""

import pyarrow.parquet as pq
import pytest
from tiny import tiny_sweep, write_spec

from launch.cli import main
from results.schema import EVALS_SCHEMA

OF_TRAINING = ("step", "optimizer_steps", "act_steps", "train_loss")
EVAL = {"noise": [{"when": "update", "sigma": 0.5}, {"sigma": 0.5}], "sigmas": None, "rollouts": 3, "batch_size": 8}


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """The folder of a trained trial, and its spec."""
    folder = tmp_path_factory.mktemp("evaluated")
    base = {"eval": EVAL, "train": {"steps": 4}}
    spec = write_spec(folder, tiny_sweep(storage=str(folder), base=base))
    assert main(["train", spec, "--arm", "baseline", "--seed", "0"]) == 0
    (only,) = (folder / "tiny" / "trials").iterdir()
    return only, spec


def evaluated(folder, output, *flags):
    assert main(["evaluate", str(folder / "final.pt"), "--threads", "1", "--output", str(output), *flags]) == 0
    table = pq.read_table(output / "evals.parquet")
    assert table.schema.equals(EVALS_SCHEMA)
    return table.to_pylist()


def test_a_trials_checkpoint_has_the_rows_of_its_last_evaluation(trial, tmp_path, capsys):
    folder, _ = trial
    capsys.readouterr()
    rows = evaluated(folder, tmp_path)
    history = pq.read_table(folder / "evals.parquet").to_pylist()
    last = [row for row in history if row["split"] == "test" and row["step"] == 4]
    assert rows == [row | dict.fromkeys(OF_TRAINING) for row in last]
    assert [(row["when"], row["sigma"]) for row in rows] == [("start", 0), ("start", 0.5), ("update", 0.5)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["noise", "K", "depth", "exact"]
    assert [line.split()[:2] for line in lines[1:4]] == [["clean", "1"], ["start", "0.5"], ["update", "0.5"]]
    assert lines[-1] == f"Written: {tmp_path}/evals.parquet"


def test_other_noise_depths_and_numbers_of_rollouts(trial, tmp_path):
    """The first of many rollouts are those of fewer: one run has the rows of three."""
    folder, spec = trial
    lonely = tmp_path / "step_4"
    lonely.write_bytes((folder / "final.pt").read_bytes())
    noise = ["--sigma", "0.3", "1", "--when", "act_step", "--where", "z_L", "--depths", "4", "-n", "6"]
    rows = evaluated(folder, tmp_path / "many", *noise, "--rollouts", "1", "2", "4")
    assert [(row["sigma"], row["depth"], row["rollouts"], row["n"]) for row in rows] == [
        *((0, depth, 1, 6) for depth in (2, 4)),
        *((sigma, depth, K, 6) for sigma in (0.3, 1) for depth in (2, 4) for K in (1, 2, 4)),
    ]
    two = evaluated(folder, tmp_path / "two", *noise, "--rollouts", "2")
    for row in two:
        (same,) = (x for x in rows if all(x[name] == row[name] for name in ("sigma", "depth", "rollouts")))
        assert same.pop("lm_loss") == pytest.approx(row.pop("lm_loss"), rel=1e-5)  # of products of other sizes
        assert same == row
    assert main(["evaluate", str(lonely), "--spec", spec, "--threads", "1", *noise, "--rollouts", "2"]) == 0
    assert (tmp_path / "step_4.evaluation" / "evals.parquet").exists()


def test_a_killed_one_goes_on_to_the_same_table(trial, tmp_path):
    folder, _ = trial
    evaluated(folder, tmp_path)
    parts, table = sorted((tmp_path / "parts").iterdir()), (tmp_path / "evals.parquet").read_bytes()
    assert len(parts) == 1 + 2 * 4  # chunks of 8 trajectories: all puzzles once, or two in three rollouts
    before = {path: path.stat().st_mtime_ns for path in parts}
    lost, damaged = parts[0], parts[4]
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:100])
    (tmp_path / "evals.parquet").unlink()
    evaluated(folder, tmp_path)
    assert (tmp_path / "evals.parquet").read_bytes() == table
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    assert {path for path in parts if after[path] != before[path]} == {lost, damaged}


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--when", "update"], "--when and --where say of --sigma when and where it comes; give --sigma, too"),
        (["--sigma", "0.3", "--when", "later"], "noise.0.when: Input should be 'start', 'act_step' or 'update'"),
        (["--sigma", "0"], "noise.0.sigma: Input should be greater than 0"),
        (["--depths", "2"], "eval.depths: 2 is not above model.halt_max_steps 2"),
        (["--rollouts", "0", "4"], "--rollouts 0: give 1 or more"),
        (["-n", "0"], "n: Input should be greater than or equal to 1"),
        (["--threads", "0"], "threads: 0 is below 1; give 1 or more"),
    ],
)
def test_what_cannot_be_evaluated_is_named(trial, tmp_path, capsys, flags, problem):
    folder, _ = trial
    assert main(["evaluate", str(folder / "final.pt"), "--output", str(tmp_path), *flags]) == 2
    assert problem in capsys.readouterr().err


def test_a_lonely_file_needs_a_spec(trial, tmp_path, capsys):
    folder, _ = trial
    lonely = tmp_path / "step_4"
    lonely.write_bytes((folder / "final.pt").read_bytes())
    assert main(["evaluate", str(lonely)]) == 2
    assert "step_4: no trial.json beside it; say with --spec which model" in capsys.readouterr().err

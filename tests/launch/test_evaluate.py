"""`rrm evaluate` as a user runs it: a trial's own rows again, other noise, a killed one that goes on."""

import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from published import all_config, publish, write_all_config
from reference import CASES, Reference
from tiny import tiny_sweep, write_spec

from launch.cli import main
from launch.evaluation_tables import controls
from results.schema import EVALS_SCHEMA
from results.storage import location
from rrm.checkpoint import loads, serialise
from rrm.config import TrialConfig
from rrm.evaluate import evaluate_split
from rrm.puzzles.dataset import load_task
from rrm.torch_setup import set_up_torch
from rrm.weights import our_names
from tune.spec import load_sweep

OF_TRAINING = ("step", "optimizer_steps", "act_steps", "train_flops", "train_loss")
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
    assert lines[5:8] == ["", *lines[6:8]]
    assert lines[6].split() == ["noise", "K", "depth", "best", "q", "clean", "at", "clean", "over", "clean"]
    assert [line.split()[:4] for line in lines[7:9]] == [["start", "0.5", "3", "2"], ["update", "0.5", "3", "2"]]
    assert lines[-1] == f"Written: {tmp_path}/evals.parquet"


def test_noise_is_held_against_as_many_act_steps_without_it():
    """Or the most there are; puzzle by puzzle."""

    def row(right, depth, sigma=0.0, K=1):
        bits = np.packbits(np.array(right, bool)).tobytes()
        name = "best_q_correct" if sigma else "correct"
        return {
            "sigma": sigma,
            "depth": depth,
            "rollouts": K,
            "n": len(right),
            name: bits,
            "exact_accuracy": np.mean(right),
        }

    clean = [row([1, 0, 0, 0, 1, 0, 0, 0, 0, 0], 16), row([1, 1, 1, 0, 1, 0, 0, 0, 0, 0], 32)]
    clean.append(row([1, 1, 0, 0, 1, 1, 1, 0, 0, 0], 64))
    noisy = [row([1, 1, 0, 0, 0, 1, 1, 0, 0, 1], 16, 0.3, K) for K in (1, 2, 3, 4, 16)]
    found = list(controls(clean + noisy))
    assert [(one.row["rollouts"], one.depth, one.clean) for one in found] == [
        (1, 16, 0.2), (2, 32, 0.4), (3, 32, 0.4), (4, 64, 0.5), (16, 64, 0.5),
    ]  # fmt: skip
    differences = np.array([0, 1, 0, 0, -1, 1, 1, 0, 0, 1])
    half = 2.262157 * differences.std(ddof=1) / np.sqrt(10)  # the quantile of t with 9 degrees of freedom
    assert found[0].effect.mean == pytest.approx(0.3)
    assert (found[0].effect.low, found[0].effect.high) == pytest.approx((0.3 - half, 0.3 + half))


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
    """By SIGKILL in the middle; it computes what is missing or damaged, and nothing else."""
    folder, _ = trial
    deep = ["--depths", "60"]  # each chunk takes a while
    evaluated(folder, tmp_path / "whole", *deep)
    command = ["evaluate", str(folder / "final.pt"), *deep, "--threads", "1", "--output", str(tmp_path / "killed")]
    script = "import sys; from launch.cli import main; sys.exit(main(sys.argv[1:]))"
    there = tmp_path / "killed" / "parts"
    with subprocess.Popen([sys.executable, "-c", script, *command], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(there.glob("*.pt"))) < 3:
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -9
    assert not (tmp_path / "killed" / "evals.parquet").exists()
    before = {path: path.stat().st_mtime_ns for path in there.glob("*.pt")}
    assert 3 <= len(before) < 9  # chunks of 8 trajectories: all puzzles once, or two in three rollouts, twice
    damaged = min(before)
    damaged.write_bytes(damaged.read_bytes()[:100])
    evaluated(folder, tmp_path / "killed", *deep)
    for name in ("evals.parquet", *(path.relative_to(tmp_path / "killed") for path in there.glob("*.pt"))):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(list(there.glob("*.pt"))) == 9
    assert {path for path, at in before.items() if path.stat().st_mtime_ns != at} == {damaged}


def test_of_weights_in_several_places_those_of_the_key_are_taken(trial, tmp_path, capsys):
    """Of --key, or else of init_from in a spec that starts from the file."""
    folder, spec = trial
    held = loads((folder / "final.pt").read_bytes(), "final.pt")
    other = {name: tensor.flip(0) for name, tensor in held.items()}
    both = tmp_path / "both.pt"
    both.write_bytes(serialise({"model": held, "ema": other}))
    start = {"init_from": {"name": str(both), "key": "model"}}
    starts = write_spec(tmp_path, tiny_sweep(base={"eval": EVAL} | start))
    command = ["evaluate", str(both), "--threads", "1", "--output", str(tmp_path), "--spec"]
    assert main([*command, spec]) == 2
    assert "weights under model, ema; say which with key: ema" in capsys.readouterr().err

    def answers(*flags: str) -> list[dict]:
        assert main([*command, *flags]) == 0
        rows = pq.read_table(tmp_path / "evals.parquet").to_pylist()
        return [row | {"trial_id": ""} for row in rows]

    ours = [row | {"trial_id": ""} for row in evaluated(folder, tmp_path / "ours")]
    assert answers(spec, "--key", "model") == answers(starts) == ours
    assert answers(spec, "--key", "ema") == answers(starts, "--key", "ema") != ours
    diagnose = ["diagnose", str(both), "--threads", "1", "-n", "2", "-k", "1", "--spec"]
    assert main([*diagnose, spec]) == 2
    assert main([*diagnose, spec, "--key", "ema"]) == main([*diagnose, starts]) == 0


def test_a_published_checkpoint_from_a_bucket_into_one(bucket, tmp_path, monkeypatch, capsys):
    """Its own model's rows; a model that is not the one in the configuration beside it is refused, in a bucket too."""
    monkeypatch.setenv("RRM_CACHE", str(tmp_path / "cache"))
    reference = Reference(CASES["hrm_learned"])
    model = {name: value for name, value in reference.model_config().model_dump().items() if name != "token_loss"}
    base = {"model": dict.fromkeys(("mlp_t",)) | model, "eval": EVAL}
    spec = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path), base=base))
    local = publish(tmp_path, reference.state())
    write_all_config(tmp_path, all_config(reference))
    for path in (local, tmp_path / "all_config.yaml"):
        (location(bucket) / "hrm" / path.name).put(path.read_bytes())
    command = ["evaluate", f"{bucket}/hrm/step_50000", "--threads", "1", "--spec"]
    assert main([*command, spec, "--output", f"{bucket}/out"]) == 0
    assert f"Written: {bucket}/out/evals.parquet" in capsys.readouterr().out
    assert main(["evaluate", str(local), "--threads", "1", "--spec", spec]) == 0
    table = (location(bucket) / "out" / "evals.parquet").read_bytes()
    assert table == (tmp_path / "step_50000.evaluation" / "evals.parquet").read_bytes()
    (path := tmp_path / "fetched.parquet").write_bytes(table)
    assert pq.read_table(path).to_pylist() == expected_rows(reference, load_sweep(spec).cells[0].config)

    base["model"]["H_cycles"] = 3
    other = write_spec(tmp_path, tiny_sweep(storage=str(tmp_path), base=base), "other.yaml")
    assert main([*command, other]) == 2
    said = capsys.readouterr().err
    assert f"{bucket}/hrm/step_50000: does not fit the model" in said
    assert "model.H_cycles: 3, but 2 in all_config.yaml; set model.H_cycles to 2" in said


def expected_rows(reference: Reference, config: TrialConfig) -> list[dict]:
    set_up_torch(1)
    model = reference.model()
    model.load_state_dict(our_names(reference.state())[0])
    batch = load_task(config.task, config.eval.n).eval_batch("test", config.eval.n)
    task, loss = config.task, config.model.token_loss
    rows = evaluate_split(model.eval(), batch, config.eval, task, token_loss=loss, seed=config.seed, split="test")
    return [dict.fromkeys(EVALS_SCHEMA.names) | {"trial_id": config.trial_id()} | row for row in rows]


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

"""What a sweep file holds, and what is laid over it: removal, replacement, dotted keys, keys of other types, paths."""

from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_sweep, write_spec

from tune.spec import SpecError, Sweep, load_sweep
from tune.sweep_file import read

FILE = """
name: a
base: {preset: sudoku-4x4-trm-mlp, train: {steps: 100}, perturb: {sigma: 0.1, ramp_steps: 5}, optim: {ema_rate: 0.5}}
arms:
  baseline: {objective: clean}
  multi.4: {objective: multi_perturbed_ce, perturb: {rollouts: 4}}
baseline: baseline
grid: {optim.lr: [1e-3, 3e-3], train.batch_size: [8, 16]}
seeds: [0]
scheduler: asha
wandb: {project: p}
presets:
  small: {grid: {optim.lr: null}, arms: {multi.4: {perturb: !replace {sigma: 0.5, rollouts: 2}}}, scheduler: null}
  clean: {arms: {multi.4: null}, grid: {}, base: {task: !replace {box: 3, generate: {puzzles: 9, blanks: 3}}}}
"""


def loaded(folder: Path, *overrides: str, preset: str | None = None, text: str = FILE) -> Sweep:
    (folder / "sweep.yaml").write_text(text)
    return load_sweep(str(folder / "sweep.yaml"), list(overrides), preset)


def refused(folder: Path, *overrides: str, text: str = FILE) -> list[str]:
    with pytest.raises(SpecError) as error:
        loaded(folder, *overrides, text=text)
    return error.value.problems


@pytest.mark.parametrize("override", ["grid=", "grid=null", "grid={}", "grid=!replace {}"])
def test_a_field_is_removed_or_emptied(tmp_path, override):
    assert len(loaded(tmp_path).cells) == 8
    assert [cell.point for cell in loaded(tmp_path, override).cells] == [{}, {}]


def test_null_takes_a_field_of_the_sweep_of_an_axis_and_of_a_trial(tmp_path):
    assert loaded(tmp_path, "scheduler=").spec.scheduler is None
    assert loaded(tmp_path, "wandb=").spec.wandb is None
    assert loaded(tmp_path, "grid.optim.lr=").spec.grid == {"train.batch_size": [8, 16]}
    assert list(loaded(tmp_path, "arms.multi.4=").spec.arms) == ["baseline"]
    config = loaded(tmp_path, "base.perturb.ramp_steps=", "base.optim.ema_rate=", "grid=").cells[1].config
    assert config.perturb is not None
    assert (config.perturb.ramp_steps, config.optim.ema_rate) == (0, 0.999)  # defaults; of the preset's 0.98, too
    assert refused(tmp_path, "base.train.steps=", "seeds=") == [
        "seeds: missing; give a value",
        "base.train.steps: missing; give a value",
    ]


def test_a_whole_mapping_replaces_what_stands_there(tmp_path):
    """Of the file and of the preset that it names."""
    laid = loaded(tmp_path, "arms.multi.4.perturb=!replace {sigma: 1.0, rollouts: 2}", "grid={}").cells[1].config
    assert laid.perturb is not None
    assert (laid.perturb.sigma, laid.perturb.ramp_steps, laid.perturb.rollouts) == (1.0, 0, 2)
    over = ["base.task=!replace {name: maze, side: 6}", "base.task.generate={puzzles: 4, min_path: 4}", "grid="]
    assert loaded(tmp_path, *over).cells[0].config.task.model_dump(exclude_defaults=True) == {
        "name": "maze",
        "side": 6,
        "generate": {"puzzles": 4, "min_path": 4},
    }
    again = loaded(tmp_path, "base.task=", "base.task={box: 3, generate: {puzzles: 2, blanks: 1}}", "grid=")
    assert again.cells[0].config.task.augment is True
    assert "side" not in again.raw["base"]["task"]
    merged = loaded(tmp_path, "base.perturb={sigma: 0.2}", "grid=").cells[1].config
    assert merged.perturb is not None
    assert (merged.perturb.sigma, merged.perturb.ramp_steps) == (0.2, 5)


def test_presets_of_the_file_remove_and_replace_likewise(tmp_path):
    small = loaded(tmp_path, preset="small")
    assert small.spec.grid == {"train.batch_size": [8, 16]}
    assert small.spec.scheduler is None
    perturb = small.cells[-1].config.perturb
    assert perturb is not None
    assert (perturb.sigma, perturb.rollouts, perturb.ramp_steps) == (0.5, 2, 0)
    clean = loaded(tmp_path, preset="clean")
    assert [cell.name for cell in clean.cells] == ["baseline seed=0"]
    assert clean.cells[0].config.task.seq_len == 81


@pytest.mark.parametrize(
    ("override", "leads_to"),
    [
        ("grid.optim.lr=[5e-3]", {"optim.lr": [5e-3], "train.batch_size": [8, 16]}),
        (
            "grid.optim.weight_decay=[0.1]",
            {"optim.lr": [1e-3, 3e-3], "train.batch_size": [8, 16], "optim.weight_decay": [0.1]},
        ),
        ("grid={optim.lr: [1e-4]}", {"optim.lr": [1e-4], "train.batch_size": [8, 16]}),
        ("grid=!replace {perturb: [{sigma: 1}]}", {"perturb": [{"sigma": 1}]}),
    ],
)
def test_a_dotted_key_is_found(tmp_path, override, leads_to):
    assert read_raw(tmp_path, override)["grid"] == leads_to


def test_a_dotted_arm_and_a_space_are_found(tmp_path):
    raw = read_raw(
        tmp_path,
        "arms.multi.4.perturb.rollouts=8",
        "search.optim.lr={loguniform: [1e-4, 1e-2]}",
        "search.optim.lr.loguniform=[1e-3, 1e-2]",
    )
    assert raw["arms"]["multi.4"]["perturb"]["rollouts"] == 8
    assert raw["search"] == {"optim.lr": {"loguniform": [1e-3, 1e-2]}}


def read_raw(folder: Path, *overrides: str) -> dict[str, Any]:
    (folder / "sweep.yaml").write_text(FILE)
    raw, problems = read(str(folder / "sweep.yaml"), list(overrides))
    assert problems == []
    return raw


@pytest.mark.parametrize("preset", [None, "small", "clean"])
def test_the_file_as_it_was_checked_is_the_same_sweep(tmp_path, preset):
    """A job, and a run's spec.yaml, hold it with all that was laid over it."""
    sweep = loaded(tmp_path, "base.optim.ema_rate=", "base.perturb=!replace {sigma: 0.3}", preset=preset)
    (tmp_path / "again.yaml").write_bytes(sweep.text)
    again = load_sweep(str(tmp_path / "again.yaml"))
    assert again.cells == sweep.cells
    assert again.text == sweep.text


def test_a_replacement_that_is_no_mapping_is_refused(tmp_path):
    (line,) = refused(tmp_path, "seeds=!replace [1, 2]")
    assert line == "not valid YAML: !replace is for a mapping, and line 1 has none; leave it out"


def test_a_key_that_is_no_text_is_named(tmp_path):
    text = FILE.replace("baseline: {objective: clean}", "baseline: {objective: clean, train: {0.5: 1}}").replace(
        "multi.4:", "4:"
    )
    lines = refused(tmp_path, "wandb={true: x, 2024-01-15: y}", "base.eval={null: 1}", text=text)
    assert [line for line in lines if "to YAML" in line] == [
        'arms.baseline.train: the key 0.5 is a number to YAML; write it as a text: "0.5"',
        'arms: the key 4 is a whole number to YAML; write it as a text: "4"',
        'presets.small.arms: the key 4 is a whole number to YAML; write it as a text: "4"',
        'presets.clean.arms: the key 4 is a whole number to YAML; write it as a text: "4"',
        'wandb: the key true is true or false to YAML; write it as a text: "true"',
        'wandb: the key 2024-01-15 is a date to YAML; write it as a text: "2024-01-15"',
        'base.eval: the key None is nothing to YAML; write it as a text: "None"',
    ]


def test_paths_are_filled_in_wherever_they_stand(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("BUCKET", "my-bucket")
    sweep = tiny_sweep(storage="s3://$BUCKET/runs", base={"task": {"generate": None, "data": "~/puzzles"}})
    sweep["arms"] = {"baseline": {"objective": "clean"}, "b": {"init_from": {"root": "${SCRATCH}/b", "name": "x$y.pt"}}}
    sweep["grid"] = {"task.train": ["~/a.csv", "/b.csv"], "init_from": [{"name": "~/c.pt"}]}
    sweep["search"] = {"task.data": {"choice": ["$SCRATCH/1", "owner/name", "./here"]}}
    raw, problems = read(write_spec(tmp_path, sweep))
    assert problems == []
    assert raw["storage"] == "s3://my-bucket/runs"
    assert raw["base"]["task"]["data"] == f"{tmp_path}/home/puzzles"
    assert raw["arms"]["b"]["init_from"] == {"root": f"{tmp_path}/scratch/b", "name": "x$y.pt"}
    assert raw["grid"] == {
        "task.train": [f"{tmp_path}/home/a.csv", "/b.csv"],
        "init_from": [{"name": f"{tmp_path}/home/c.pt"}],
    }
    assert raw["search"]["task.data"]["choice"] == [f"{tmp_path}/scratch/1", "owner/name", "./here"]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("storage=$NOWHERE/runs", "storage: '$NOWHERE/runs': NOWHERE is not set here; set it, or write the path out"),
        ("storage=$EMPTY/runs", "storage: '$EMPTY/runs': EMPTY is not set here; set it, or write the path out"),
        (
            "storage=~nobody-of-that-name/x",
            "storage: '~nobody-of-that-name/x': no home folder is known for that; write",
        ),
        (
            "storage=s3:/bucket/runs",
            "storage: 's3:/bucket/runs' is no place; give a path that every node sees, or s3://",
        ),
        (
            "storage=S3://bucket/runs",
            "storage: 'S3://bucket/runs' is no place; give a path that every node sees, or s3:",
        ),
        ("base.task={generate: null, data: '${NOWHERE}/x'}", "base.task.data: '${NOWHERE}/x': NOWHERE is not set here"),
        ("base.task={generate: null, data: 'file:///x'}", "base.task.data: 'file:///x' is no place; give a path that"),
        ("arms.multi2.task={generate: null, train: 'hf://x', test: y}", "arms.multi2.task.train: 'hf://x' is no place"),
        ("base.init_from={name: '$NOWHERE/x.pt'}", "base.init_from.name: '$NOWHERE/x.pt': NOWHERE is not set here"),
        ("base.init_from={root: 'gs://x', name: x.pt}", "base.init_from.root: 'gs://x' is no place; give a path that"),
    ],
)
def test_a_path_that_cannot_be_what_it_says_is_refused_by_name(tmp_path, monkeypatch, override, line):
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(SpecError) as error:
        load_sweep(write_spec(tmp_path, tiny_sweep()), [override])
    assert any(problem.startswith(line) for problem in error.value.problems), error.value


@pytest.mark.parametrize(
    ("task", "folder", "command"),
    [
        ("box: 3", "./a", "rrm data build sapientinc/sudoku-extreme ./a --subsample-size 1000"),
        ("name: maze, side: 30", "my puzzles", "rrm data build sapientinc/maze-30x30-hard-1k 'my puzzles'"),
        ("name: maze, side: 9", "../a/b", "rrm data generate ../a/b --maze 9"),
        ("box: 2", "here/b", "rrm data generate here/b --sudoku 2"),
    ],
)
def test_of_puzzles_that_are_not_there_the_command_that_makes_them_is_named(
    tmp_path, monkeypatch, task, folder, command
):
    """The hub is not asked for what is a path by its form, or by its first folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(SpecError) as error:
        load_sweep(write_spec(tmp_path, tiny_sweep()), [f"base.task=!replace {{{task}, data: {folder}}}"])
    assert error.value.problems == [f"base.task.data: {folder}: no such folder; make it: {command}"]


def test_a_sweep_of_too_many_trials_is_refused_before_it_is_made(tmp_path):
    spec = write_spec(tmp_path, tiny_sweep(search={"optim.lr": {"loguniform": [1e-4, 1e-2]}}, num_samples=100_000))
    with pytest.raises(SpecError) as error:
        load_sweep(spec)
    assert error.value.problems == [
        "num_samples: 2 arms x 100000 samples x 2 seeds are 400000 trials; a sweep has 20000 at most: ask for fewer"
    ]
    axes = [f"grid.{field}={list(range(1, 41))}" for field in ("train.batch_size", "optim.warmup_steps", "eval.n")]
    with pytest.raises(SpecError) as error:
        load_sweep(spec, ["search=", "num_samples=", *axes])
    assert error.value.problems[0].startswith("grid: 2 arms x 40 values of train.batch_size x 40 values of")

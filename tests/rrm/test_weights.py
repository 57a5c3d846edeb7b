"""Weights from elsewhere: found wherever they stand in a file, or named; safetensors in and out."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from published import write_all_config
from tiny import tiny_config

from rrm.checkpoint import CheckpointError, PythonObjectsError
from rrm.models import build_model
from rrm.models.published import InitFrom, check_fit, initial_state
from rrm.streams import torch_generator
from rrm.train import Trainer
from rrm.weights import MODEL, read_weights, write_weights

CPU = torch.device("cpu")
CONFIG = tiny_config()
SHAPE = {"seq_len": 16, "vocab_size": 6}
WEIGHTS = build_model(CONFIG.model, **SHAPE, num_puzzles=1, generator=torch_generator(7, "init")).state_dict()
OTHER = {name: tensor + 1 for name, tensor in WEIGHTS.items()}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}


def wrapped(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in state.items()}


def saved(folder: Path, content: Any, name: str = "weights.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


def started(path: Path, key: str | None = None) -> dict[str, torch.Tensor]:
    return initial_state(path, CONFIG.model, WEIGHTS, key)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": wrapped(WEIGHTS, "model."), "epoch": 3, "optimizer_states": [OPTIMIZER]},
        {"model_state_dict": wrapped(WEIGHTS, "module."), "optimizer_state_dict": OPTIMIZER, "loss": torch.tensor(0.5)},
        {"model": wrapped(WEIGHTS, "_orig_mod."), "ema": None, "step": torch.tensor(7)},
        {"ema": wrapped(WEIGHTS, "_orig_mod.module.")},
        {"ema": {"decay": 0.99, "shadow": WEIGHTS}, "args": {"lr": 0.1}},
        {"checkpoint": {"model": {"state_dict": WEIGHTS}}},
        {"n_averaged": torch.tensor(9), **wrapped(WEIGHTS, "module.")},  # torch's AveragedModel
        {"model": WEIGHTS, "discriminator": {"weight": torch.ones(2)}},
    ],
)
def test_the_weights_are_found(content, tmp_path):
    assert_same(started(saved(tmp_path, content)), WEIGHTS)


def test_of_two_that_fit_the_file_does_not_say_which_and_key_does(tmp_path):
    path = saved(tmp_path, {"model": wrapped(WEIGHTS, "module."), "ema": {"shadow": OTHER}, "optimizer": OPTIMIZER})
    with pytest.raises(CheckpointError) as error:
        started(path)
    assert str(error.value) == f"{path}: weights under model, ema.shadow; say which with key: ema.shadow"
    assert_same(started(path, "model"), WEIGHTS)
    assert_same(started(path, "ema.shadow"), OTHER)
    with pytest.raises(CheckpointError, match=r"key 'ema' holds no weights; there are some under model, ema.shadow"):
        started(path, "ema")
    plain = tiny_config(init_from={"name": str(path), "key": "model"})
    average = tiny_config(init_from={"name": str(path), "key": "ema.shadow"})
    assert_same(Trainer(plain, CPU).weights(), WEIGHTS)
    assert_same(Trainer(average, CPU).weights(), OTHER)
    assert plain.trial_id() != average.trial_id()


def test_a_file_without_weights_says_what_it_holds(tmp_path):
    path = saved(tmp_path, {"epoch": 1, "optimizer": OPTIMIZER})
    with pytest.raises(CheckpointError) as error:
        started(path)
    assert str(error.value) == f"{path}: holds no weights; its keys: epoch, optimizer"


def test_weights_of_another_model_under_a_key_are_compared_with_ours(tmp_path):
    path = saved(tmp_path, {"state_dict": {"conv.weight": torch.ones(2)}})
    with pytest.raises(CheckpointError, match=r"does not fit the model\n  missing: .*\n  unexpected: conv.weight"):
        started(path)


@pytest.mark.parametrize(
    ("key", "beside", "objects"),
    [
        ("state_dict", {"hyper_parameters": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
        ("model_state_dict", {"best": np.float64(0.5)}, "numpy._core.multiarray.scalar, numpy.dtype"),
        ("model", {"path": Path("runs")}, "pathlib.PosixPath"),
    ],
)
def test_python_objects_are_named_and_the_command_saves_the_weights_alone(key, beside, objects, tmp_path):
    path = saved(tmp_path, {key: WEIGHTS} | beside, "it's a.ckpt")
    with pytest.raises(PythonObjectsError) as error:
        started(path)
    text = str(error.value)
    assert text.startswith(f"{path}: holds Python objects ({objects}), and reading those runs code; if you trust it, ")
    command = text.partition("save the weights alone: python ")[2]
    subprocess.run(f"{sys.executable} {command}", shell=True, check=True, cwd=tmp_path)
    assert_same(started(tmp_path / "weights.pt"), WEIGHTS)


def test_safetensors_start_a_trial_and_come_back_to_the_same_bits(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(write_weights(WEIGHTS, path.suffix, CONFIG.model.model_dump(mode="json")))
    assert_same(safetensors.torch.load_file(path), WEIGHTS)
    config = tiny_config(init_from={"name": str(path)}, seed=5)
    assert_same(Trainer(config, CPU).weights(), WEIGHTS)
    assert read_weights(path).metadata[MODEL] == json.dumps(CONFIG.model.model_dump(mode="json"))
    renamed = path.rename(tmp_path / "without a suffix")
    assert_same(started(renamed), WEIGHTS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_what_is_written_has_its_dtype_whatever_memory_it_shares(dtype, tmp_path):
    table = torch.randn(6, 4).to(dtype)
    state = {"table": table, "row": table[2], "turned": table.T, "nan": torch.tensor([float("nan"), -0.0]).to(dtype)}
    for suffix in (".safetensors", ".pt"):
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(write_weights(state, suffix, None))
        found = read_weights(path).state
        assert found.keys() == state.keys()
        for name, tensor in state.items():
            assert found[name].dtype == dtype
            assert torch.equal(found[name].contiguous().view(torch.uint8), tensor.contiguous().view(torch.uint8))


def test_safetensors_know_the_model_that_they_are_of(tmp_path):
    """Where they were exported beside trial.json; else the file beside them says it."""
    other = tiny_config(model={"H_cycles": 3}).model
    path = tmp_path / "x.safetensors"
    path.write_bytes(write_weights(WEIGHTS, ".safetensors", CONFIG.model.model_dump(mode="json")))
    with pytest.raises(CheckpointError) as error:
        check_fit(path, other, **SHAPE)
    assert str(error.value).split("\n  ")[1:] == [
        "model.H_cycles: 3, but 2 in x.safetensors; set model.H_cycles to 2",
        "(to change the model on purpose, export it without trial.json)",
    ]
    path.write_bytes(write_weights(WEIGHTS, ".safetensors", None))
    check_fit(path, other, **SHAPE)
    write_all_config(tmp_path, {"arch": CONFIG.model.model_dump(mode="json")})
    with pytest.raises(CheckpointError, match=r"model.H_cycles: 3, but 2 in all_config.yaml; set"):
        check_fit(path, other, **SHAPE)


@pytest.mark.parametrize("keep", [0, 9, 0.5, -1])
def test_a_damaged_safetensors_file_is_named(keep, tmp_path):
    content = write_weights(WEIGHTS, ".safetensors", None)
    path = tmp_path / "x.safetensors"
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(
        CheckpointError, match=r"x\.safetensors: not a whole safetensors file \(.*\); fetch or write it"
    ):
        started(path)


def test_a_checkpoint_in_a_bucket_with_its_configuration_beside_it(tmp_path, bucket, monkeypatch):
    from results.storage import location

    monkeypatch.setenv("RRM_CACHE", str(tmp_path / "cache"))
    folder = location(bucket) / "trm"
    (folder / "step_9").put(saved(tmp_path, WEIGHTS).read_bytes())
    write_all_config(tmp_path, {"arch": CONFIG.model.model_dump(mode="json")})
    (folder / "all_config.yaml").put((tmp_path / "all_config.yaml").read_bytes())
    (folder / "unrelated").put(b"x" * 100)
    start = InitFrom(root=f"{bucket}/trm/", name="step_9")
    assert start.place == f"{bucket}/trm/step_9" == InitFrom(root="/elsewhere", name=start.place).place
    assert_same(started(start.path), WEIGHTS)
    assert sorted(path.name for path in start.path.parent.iterdir()) == ["all_config.yaml", "checkpoint"]
    with pytest.raises(CheckpointError, match=r"model.H_cycles: 3, but 2 in all_config.yaml"):
        check_fit(start.path, tiny_config(model={"H_cycles": 3}).model, **SHAPE)
    local = tiny_config(init_from={"name": str(tmp_path / "weights.pt")})
    assert tiny_config(init_from={"name": start.place}).trial_id() == local.trial_id()
    with pytest.raises(ValueError, match=f"{bucket}/trm/none: cannot be fetched .no such object"):
        _ = InitFrom(name=f"{bucket}/trm/none").path

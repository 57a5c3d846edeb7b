"""`rrm export`: what a trial ends with is a file for elsewhere, and starts a trial again, bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import tiny_sweep, write_spec

from launch.cli import main
from results.storage import location
from rrm.checkpoint import load, serialise
from tune.spec import load_sweep


@pytest.fixture(scope="module")
def trial(tmp_path_factory) -> Path:
    """The folder of a trained trial."""
    folder = tmp_path_factory.mktemp("trained")
    spec = write_spec(folder, tiny_sweep(storage=str(folder / "runs"), base={"train": {"steps": 8}}))
    assert main(["train", spec, "--arm", "baseline", "--seed", "0"]) == 0
    (only,) = (folder / "runs" / "tiny" / "trials").iterdir()
    return only


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_out_and_in_again(trial, tmp_path, capsys):
    file = tmp_path / "new" / "trm.safetensors"
    assert main(["export", str(trial / "final.pt"), str(file)]) == 0
    weights = load(trial / "final.pt")
    count = sum(tensor.numel() for tensor in weights.values())
    assert capsys.readouterr().out == f"{file}: {len(weights)} tensors, {count} numbers\n"
    assert same(load_file(file), weights)
    with safe_open(file, "pt") as opened:
        config = json.loads((trial / "trial.json").read_text())["config"]
        assert json.loads(opened.metadata()["rrm_model"]) == config["model"]
    assert main(["export", str(file), str(tmp_path / "back.pt")]) == 0
    assert same(load(tmp_path / "back.pt"), weights)
    start = {"init_from": {"name": str(file)}, "train": {"steps": 4}}
    path = write_spec(tmp_path, tiny_sweep(name="second", storage=str(tmp_path / "runs"), base=start))
    assert main(["train", path, "--arm", "multi2", "--seed", "1"]) == 0


def test_of_a_published_file_the_names_become_ours(tmp_path, capsys):
    held = {"_orig_mod.model.inner.lm_head.weight": torch.ones(2, 3, dtype=torch.bfloat16)}
    (tmp_path / "step_1").write_bytes(serialise({"model": {}, "ema": held, "epoch": 3}))
    assert main(["export", str(tmp_path / "step_1"), str(tmp_path / "a.safetensors")]) == 0
    assert same(load_file(tmp_path / "a.safetensors"), {"lm_head.weight": torch.ones(2, 3, dtype=torch.bfloat16)})
    (tmp_path / "both").write_bytes(serialise({"model": held, "ema": held}))
    assert main(["export", str(tmp_path / "both"), str(tmp_path / "b.safetensors")]) == 2
    assert f"{tmp_path}/both: weights under model, ema; say which with key: ema" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "both"), str(tmp_path / "b.safetensors"), "--key", "model"]) == 0


def test_what_cannot_be_exported_is_one_line(trial, tmp_path, capsys):
    twice = {"model.a": torch.ones(1), "a": torch.ones(1), "b": "text"}
    (tmp_path / "twice.pt").write_bytes(serialise(twice))
    for checkpoint, file, says in (
        (
            trial / "latest_state.pt",
            "x.safetensors",
            "a whole training state; give the weights beside it, best.pt or fin",
        ),
        (trial / "none.pt", "x.safetensors", "none.pt: no such file"),
        (trial / "final.pt", "x.onnx", "x.onnx: no name for weights; end it in .safetensors or .pt"),
        (tmp_path / "twice.pt", "x.pt", "twice.pt: no tensor, or there twice: b, a"),
    ):
        assert main(["export", str(checkpoint), str(tmp_path / file)]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))


def test_from_a_bucket_into_a_bucket(trial, bucket, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RRM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MY_BUCKET", bucket.removeprefix("s3://"))
    for name in ("final.pt", "trial.json"):
        (location(bucket) / "trial" / name).put((trial / name).read_bytes())
    assert main(["export", "s3://$MY_BUCKET/trial/final.pt", f"{bucket}/out/trm.safetensors"]) == 0
    content = (location(bucket) / "out" / "trm.safetensors").read_bytes()
    assert main(["export", str(trial / "final.pt"), str(tmp_path / "trm.safetensors")]) == 0
    assert content == (tmp_path / "trm.safetensors").read_bytes()
    start = tiny_sweep(base={"init_from": {"name": "s3://$MY_BUCKET/out/trm.safetensors"}, "model": {"L_cycles": 2}})
    assert main(["train", write_spec(tmp_path, start), "--arm", "baseline", "--seed", "0"]) == 2
    assert f"{bucket}/out/trm.safetensors: does not fit the model" in capsys.readouterr().err
    here = {"name": str(tmp_path / "trm.safetensors")}
    there = {"name": f"{bucket}/out/trm.safetensors"}
    ids = [list(load_sweep(write_spec(tmp_path, tiny_sweep(base={"init_from": at}))).trials) for at in (here, there)]
    assert ids[0] == ids[1]
    capsys.readouterr()
    diagnosed = location(bucket) / "trial" / "final.pt.diagnosis"
    diagnose = ["diagnose", "s3://$MY_BUCKET/trial/final.pt", "-n", "3", "-k", "2", "--threads", "1"]
    assert main(diagnose) == 0
    assert f"Written: {bucket}/trial/final.pt.diagnosis: diagnostics.parquet" in capsys.readouterr().out
    assert len(diagnosed.sizes()) == 2
    parts = (diagnosed / "parts").ages()
    assert main(diagnose) == 0  # nothing is left to do
    assert (diagnosed / "parts").ages() == parts

"""Any number of workers ends in the same bits: real processes, joined by gloo on loopback."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import joined
import pytest
import torch
import torch.distributed as dist
from joined import LAST, MODELS, STAGES, configs, from_the_start

from rrm import checkpoint
from rrm.workers import JoinedWorkers


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    done = subprocess.run([sys.executable, joined.__file__, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def _same(a: Any, b: Any, where: str) -> None:
    """Equal in every tensor's bits and every value; time spent is not part of a result."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds"}:
            _same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            _same(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


@pytest.mark.parametrize("model", MODELS)
def test_one_two_and_four_workers_end_with_the_same_bits(model, trained):
    for name in (name for name in configs() if name.split()[0] == model):
        alone = checkpoint.load(trained / f"{name}.end.one.pt")
        assert alone["step"] == LAST
        assert {row["step"] for row in alone["history"]} == {0, LAST}
        assert bool(alone["slots"]) == ("serial_act" in name)
        noisy = bool(configs()[name]["eval"].get("sigmas", True))
        assert len(alone["unrolls"]) == (4 if noisy else 2)  # two examples
        mine = {part: alone[part] for part in ("history", "diagnoses")} | {"weights": alone["model"]}
        for stage in ("two", "four"):
            _same(checkpoint.load(trained / f"{name}.end.{stage}.pt"), alone, f"{name}, {stage} workers")
            for rank in range(1, STAGES[stage]):
                theirs = checkpoint.load(trained / f"{name}.end.{stage}.{rank}.pt")
                _same(theirs, mine, f"{name}, worker {rank} of {stage}")
        if from_the_start(name):
            again = checkpoint.load(trained / f"{name}.end.again.pt")
            _same(again, alone, f"{name}, four workers and then one")


def test_what_is_on_the_cpu_is_not_sent_through_another_device(monkeypatch):
    """A count that each step reads must not wait for the GPU."""
    sent = []
    monkeypatch.setattr("torch.distributed.all_gather", lambda parts, flat: sent.append((flat.device.type, len(flat))))
    workers = JoinedWorkers(dist.HashStore(), 0, 1, torch.device("cpu"))
    try:
        (found,) = workers.all_gather({"gradient": torch.empty(3, device="meta"), "trained": torch.tensor(2)})
    finally:
        workers.leave()
    assert sent == [("cpu", 8), ("meta", 12)]
    assert {name: x.device.type for name, x in found.items()} == {"gradient": "meta", "trained": "cpu"}

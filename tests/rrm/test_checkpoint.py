"""State files: whole or not there, never code."""

import pickle

import pytest
import torch

from results.storage import write_atomically
from rrm.checkpoint import CheckpointError, load, serialise

STATE = {"weights": torch.arange(1000.0), "history": [{"correct": b"\x05", "step": 3, "loss": 0.5, "none": None}]}


def test_round_trip(tmp_path):
    path = tmp_path / "state.pt"
    write_atomically(path, serialise(STATE))
    loaded = load(path)
    assert torch.equal(loaded["weights"], STATE["weights"])
    assert loaded["history"] == STATE["history"]
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("keep", [0, 10, 0.5, -1])
def test_truncated_files_are_refused(tmp_path, keep):
    content = serialise(STATE)
    (tmp_path / "state.pt").write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"state\.pt: not a whole state file"):
        load(tmp_path / "state.pt")


def test_a_flipped_bit_is_noticed(tmp_path):
    content = bytearray(serialise(STATE))
    content[len(content) // 2] ^= 1
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError):
        load(tmp_path / "state.pt")


def test_whatever_byte_is_wrong_no_other_error_comes_out(tmp_path):
    """A wrong byte in a file's name, say, is a UnicodeDecodeError of zipfile's."""
    content = serialise({"_orig_mod.model.inner.lm_head.weight": torch.zeros(2)})
    refused = 0
    for place in range(0, len(content), 3):
        (tmp_path / "state.pt").write_bytes(content[:place] + b"\x80" + content[place + 1 :])
        try:
            load(tmp_path / "state.pt")
        except CheckpointError as error:
            assert str(error).startswith(f"{tmp_path}/state.pt: ")  # noqa: PT017
            refused += 1
    assert refused > 50


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_loading_never_runs_code(tmp_path):
    evil = Evil(tmp_path / "code ran")
    torch.save({"x": evil}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(evil))
    (tmp_path / "c.pt").write_bytes(b"hello")
    torch.save([1, 2], tmp_path / "d.pt")
    for name in ("a.pt", "b.pt", "c.pt", "d.pt", "missing.pt"):
        with pytest.raises(CheckpointError, match=name):
            load(tmp_path / name)
    assert not evil.path.exists()

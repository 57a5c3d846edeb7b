"""Workers that follow the first one: on other files than were planned, or with too little memory, they say so."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from threads import two_threads
from tiny import tiny_config

from rrm.config import TrialConfig
from rrm.follow import follow
from rrm.puzzles.formats import DataError
from rrm.puzzles.sudoku import generate
from rrm.train import Trainer

CPU = torch.device("cpu")


def follower(config: TrialConfig, trial_id: str, *orders: list) -> None:
    """Run worker 1 of two, whom the first has take up a trial and then do `orders`."""
    first, other = two_threads()
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow, other, CPU, lambda config: f"raise train.shards ({config.train.shards})")
        first.tell(["take up", config.model_dump(mode="json"), trial_id, 1])
        first.gather(None)
        for order in orders:
            first.tell(order)
        following.result()


def write_csv(path: Path, split: str, puzzles: int) -> str:
    made = (generate(2, 6, split, 0, i) for i in range(puzzles))
    rows = [",".join("".join(map(str, grid.flat)).replace("0", ".") for grid in puzzle) for puzzle in made]
    path.write_text("\n".join(["question,answer", *rows]))
    return str(path)


def test_other_files_than_were_planned_are_refused_with_the_nodes_name(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "second")
    train, test = write_csv(tmp_path / "train.csv", "train", 6), write_csv(tmp_path / "test.csv", "test", 40)
    config = tiny_config(task={"generate": None, "train": train, "test": test}, train={"shards": 2})
    planned = config.trial_id()
    follower(config, planned, ["end"])
    write_csv(tmp_path / "train.csv", "train", 5)
    with pytest.raises(
        DataError, match=r"node second: the files here are not those the sweep was planned with: .*train"
    ):
        follower(config, planned)
    (tmp_path / "train.csv").unlink()
    with pytest.raises(DataError, match=r"node second: .*train\.csv: No such file"):
        follower(config, planned)


def test_out_of_memory_is_said_with_its_mend(monkeypatch):
    def train_step(self):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Trainer, "train_step", train_step)
    config = tiny_config(train={"shards": 2})
    with pytest.raises(torch.OutOfMemoryError, match=r"^out of memory \(2.00 GiB .*\): raise train.shards \(2\)$"):
        follower(config, config.trial_id(), ["train_step"])

"""What stands in W&B's and TensorBoard's files, read record by record."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32768


def wandb_records(path: Path) -> Iterator[Any]:
    """The protobuf records of a .wandb file: a header of 7 bytes, then LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = _BLOCK - at % _BLOCK
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        if left < 7 or kind == 0:  # the rest of a block is zeros
            at += left
            continue
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""


def wandb_history(path: Path) -> tuple[Any, list[dict[str, Any]]]:
    """The run of a .wandb file, and what it logged, a mapping a step, once W&B's own process has written its end."""
    until = time.monotonic() + 30
    while not any(record.HasField("exit") for record in wandb_records(path)):
        assert time.monotonic() < until, f"{path}: has no end"
        time.sleep(0.1)
    records = list(wandb_records(path))
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    return next(record.run for record in records if record.HasField("run")), rows


def tensorboard_scalars(path: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of every scalar in an event file, in TFRecord format."""
    from tensorboardX.proto.event_pb2 import Event

    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        (size,) = struct.unpack("<Q", data[at : at + 8])
        event = Event.FromString(data[at + 12 : at + 12 + size])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        at += size + 16
    return found

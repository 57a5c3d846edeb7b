"""What a save of a 27M-parameter model costs, in a folder and on S3 on loopback: `python tests/benchmarks/saves.py`."""

import logging
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from tiny import tiny_config

from results.storage import location
from tune.job import TrialJob
from tune.trial import TrialRun

MODEL = {
    "arch": "hrm",
    "hidden_size": 512,
    "num_heads": 8,
    "expansion": 4.0,
    "H_cycles": 1,
    "L_cycles": 1,
    "H_layers": 4,
    "L_layers": 4,
    "pos_encodings": "rope",
    "mlp_t": None,
    "puzzle_emb_ndim": 512,
    "halt_max_steps": 1,
}


def measure(place: str) -> None:
    """Print the seconds that a save takes: by time, and at a best evaluation."""
    config = tiny_config(
        model=MODEL, train={"steps": 1000, "batch_size": 1}, eval={"every": 500, "n": 2, "rollouts": 1}
    )
    job = TrialJob("a", 0, config.trial_id(), config.model_dump(mode="json"), place, 1, 1e9)
    started = time.perf_counter()
    run = TrialRun(job, torch.device("cpu"))
    print(f"{place}: {sum(p.numel() for p in run.trainer.model.parameters()) / 1e6:.1f}M parameters")
    print(f"  opened in {time.perf_counter() - started:.2f} s")
    run.advance(seconds=0.0)
    for kind in ("by time", "by time", "by time", "best"):
        run.trainer.train_step()
        if kind == "best" and run.trainer.best:
            run.trainer.best["step"] = run.trainer.step
        started = time.perf_counter()
        run.save()
        print(f"  save, {kind}: {time.perf_counter() - started:.2f} s")
    size = len((location(place) / "latest_state.pt").read_bytes()) / 1e6
    run._held.release()
    started = time.perf_counter()
    TrialRun(job, torch.device("cpu"))._held.release()
    print(f"  state of {size:.0f} MB, resumed in {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    from moto.server import ThreadedMotoServer
    from pyarrow import fs

    with tempfile.TemporaryDirectory() as folder:
        measure(folder)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    os.environ["AWS_ENDPOINT_URL"] = "http://{}:{}".format(*server.get_host_and_port())
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    fs.S3FileSystem(endpoint_override=endpoint, allow_bucket_creation=True).create_dir("bucket")
    measure("s3://bucket/saves")
    server.stop()

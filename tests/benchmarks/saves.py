"""What a save costs, in a folder and on S3 on loopback: `python tests/benchmarks/saves.py [model] [history]`.

`model`: of one of 27M parameters, by time and at a best evaluation. `history`: of a tiny one with 10, 100 and 1,000
evaluations behind it, each of the published size (1,024 puzzles, two splits, clean and perturbed): seconds, and MB of
the state and of the table.
"""

import logging
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from tiny import tiny_config

from results.storage import location, sizes
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


def measure_history(place: str) -> None:
    """Print what a save at an evaluation costs after so many others."""
    config = tiny_config(train={"steps": 2000, "batch_size": 1}, eval={"every": 1, "n": 8, "rollouts": 4})
    job = TrialJob("a", 0, config.trial_id(), config.model_dump(mode="json"), place, 1, 1e9)
    run = TrialRun(job, torch.device("cpu"))
    run.advance(seconds=0.0)
    rows = list(run.trainer.history)
    bits = {"correct": 512, "best_q_correct": 128, "majority_correct": 128, "most_settled_correct": 128}
    for step in range(1, 1001):
        run.trainer.step = step
        at = {"step": step, "n": 1024}
        run.trainer.history += [row | at | {name: os.urandom(size) for name, size in bits.items()} for row in rows]
        if step % 64 and step not in (10, 100, 1000):
            continue
        started = time.perf_counter()
        run.save()
        if step in (10, 100, 1000):
            now = sizes(location(place))
            print(
                f"  {step} evaluations: {time.perf_counter() - started:.3f} s, state of "
                f"{now['latest_state.pt'] / 1e6:.2f} MB, evals.parquet of {now['evals.parquet'] / 1e6:.2f} MB"
            )
    run._held.release()


MEASURES = {"model": measure, "history": measure_history}

if __name__ == "__main__":
    names = sys.argv[1:] or list(MEASURES)
    from moto.server import ThreadedMotoServer
    from pyarrow import fs

    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            MEASURES[name](f"{folder}/trials/{name}")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    os.environ["AWS_ENDPOINT_URL"] = "http://{}:{}".format(*server.get_host_and_port())
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    fs.S3FileSystem(endpoint_override=endpoint, allow_bucket_creation=True).create_dir("bucket")
    for name in names:
        MEASURES[name](f"s3://bucket/sweep/trials/{name}")
    server.stop()

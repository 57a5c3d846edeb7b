"""Evaluation of a checkpoint without training, in chunks: what is done is written down, and a killed one goes on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from results.schema import EVALS, EVALS_SCHEMA
from results.storage import Location, write_atomically
from results.trial_files import table_bytes
from rrm.config import TrialConfig
from rrm.evaluate import Chunk, evaluate_split
from rrm.torch_setup import set_up_torch
from rrm.workers import Work, Workers
from tune.diagnose import Progress, subject_of
from tune.parts import Parts


class KeptChunks(Workers):
    """A worker alone that keeps the answers to each chunk in a file, and takes those that are there."""

    def __init__(self, parts: Parts, config: TrialConfig, progress: Progress):
        self.parts, self.config, self.progress = parts, config, progress

    def share_out(self, work: Sequence[Work], do: Callable[[Work], Any]) -> list[Any]:
        """What `do` returns for each chunk, in order."""
        found, evaluation = [], self.config.eval
        for done, chunk in enumerate(work):
            assert isinstance(chunk, Chunk)
            level = chunk.level
            name = f"{level.when} {level.sigma:g}" if level else "clean"
            asked = {"seed": self.config.seed, "rollouts": evaluation.rollouts, "depths": evaluation.depths}
            asked |= {
                "noise": level.model_dump(mode="json") if level else None,
                "token_loss": self.config.model.token_loss,
            }
            self.progress(name, done, len(work))
            part = self.parts.read("answers", chunk.rows, asked)
            if part is None:
                part = do(chunk)
                self.parts.write("answers", chunk.rows, asked, part)
            found.append(part)
            self.progress(name, done + 1, len(work))
        return found


def evaluate_checkpoint(
    checkpoint: Path,
    config: TrialConfig,
    folder: Location,
    *,
    key: str | None = None,
    threads: int,
    trial_id: str,
    fewer: tuple[int, ...] = (),
    progress: Progress = lambda name, done, of: None,
) -> pa.Table:
    """Rows of results.schema.EVALS_SCHEMA on the first config.eval.n test puzzles, also in `folder`/evals.parquet.

    `trial_id` is that of the trial whose checkpoint it is. As `config.eval` asks, with the noise that the trial is
    evaluated with; `fewer` rollouts have rows of their own. Chunks that an earlier call left in the folder are not
    computed again. Raises CheckpointError if the file does not fit the config's model, DataError for its puzzles.
    """
    set_up_torch(threads)
    subject = subject_of(checkpoint, key, config, config.eval.n)
    rows = evaluate_split(
        subject.model,
        subject.batch,
        config.eval,
        subject.task,
        token_loss=subject.token_loss,
        seed=config.seed,
        split="test",
        workers=KeptChunks(Parts(folder, checkpoint, key, config, threads), config, progress),
        fewer=fewer,
    )
    table = pa.Table.from_pylist([{"trial_id": trial_id} | row for row in rows], schema=EVALS_SCHEMA)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / EVALS, table_bytes(table))
    return table

"""Diagnosis of a checkpoint, part by part: what is done is written down, and a killed one goes on to the same bits."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import torch
from pydantic import ValidationError

from results.diagnosis_schema import DIAGNOSIS_SCHEMAS
from results.schema import TRIAL
from results.storage import Location, write_atomically
from results.trial_files import DamagedFileError, read_json, table_bytes
from rrm.config import TrialConfig
from rrm.diagnose import DiagnosisConfig, asked_kinds, depends_on, diagnose_parts, find
from rrm.diagnosis_tables import tables
from rrm.dynamics import Found, Subject
from rrm.models import build_model
from rrm.models.published import initial_state
from rrm.puzzles.dataset import load_task
from rrm.streams import torch_generator
from rrm.torch_setup import set_up_torch
from tune.parts import Parts
from tune.puzzle_table import difficulty

# Is told the name of a kind of parts, how many of the kind are done, and how many there are.
Progress = Callable[[str, int, int], None]


def config_beside(checkpoint: Path) -> TrialConfig | None:
    """The config of the trial whose folder a checkpoint stands in; None if it stands in no trial's folder.

    Raises DamagedFileError.
    """
    record = read_json(checkpoint.parent / TRIAL)
    try:
        return TrialConfig.model_validate_json(json.dumps(record["config"])) if record else None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, ("config", *first["loc"])))
        raise DamagedFileError(
            f"{checkpoint.parent / TRIAL}: {field}: {first['msg']}; give a sweep file with --spec"
        ) from error


def subject_of(checkpoint: Path, key: str | None, config: TrialConfig, n: int) -> Subject:
    """The checkpoint's model and the first n test puzzles, on a GPU where there is one.

    `key` says where in the file the weights stand, if in several places.

    Raises CheckpointError if the file does not fit the config's model, DataError for its puzzles.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = config.task
    model = build_model(
        config.model,
        seq_len=task.seq_len,
        vocab_size=task.vocab_size,
        num_puzzles=1,
        generator=torch_generator(config.seed, "init"),
    )
    model.load_state_dict(initial_state(checkpoint, config.model, model.state_dict(), key))
    model.forward_dtype = config.train.forward_dtype
    batch = load_task(task, n).eval_batch("test", n).to(device)
    return Subject(model.to(device).eval(), batch, task, config.model.token_loss)


def diagnose_checkpoint(
    checkpoint: Path,
    config: TrialConfig,
    asked: DiagnosisConfig,
    folder: Location,
    *,
    key: str | None = None,
    threads: int,
    workers: int = 0,
    progress: Progress = lambda kind, done, of: None,
) -> dict[str, pa.Table]:
    """The tables of a diagnosis (results.diagnosis_schema), which are written into `folder`, too; parts on the way.

    Parts that an earlier call left in the folder are not computed again. So many `workers` of a Ray cluster compute
    them, to the same bits with as many threads each; without any, this process does. Raises CheckpointError if the
    file does not fit the config's model, DataError for its puzzles, ValueError if k is more than the size of the state,
    WorkersError without workers.
    """
    set_up_torch(threads)
    subject = subject_of(checkpoint, key, config, asked.n)
    parts = Parts(folder, checkpoint, key, config, threads)

    def share_out(kind: str, work: Sequence[range], examples: Found) -> list[Found]:
        of = depends_on(asked, kind)
        known = {rows: part for rows in work if (part := parts.read(kind, rows, of)) is not None}
        progress(kind, len(known), len(work))
        for rows, part in compute(kind, [rows for rows in work if rows not in known], examples):
            parts.write(kind, rows, of, part)
            known[rows] = part
            progress(kind, len(known), len(work))
        return [known[rows] for rows in work]

    def here(kind: str, work: Sequence[range], examples: Found) -> Iterator[tuple[range, Found]]:
        return ((rows, find(subject, asked, kind, rows, examples)) for rows in work)

    if workers:
        from tune.diagnose_workers import on_workers  # Ray takes seconds to import

        with on_workers(subject, asked, workers, threads) as compute:
            found = diagnose_parts(asked, asked.n, asked_kinds(asked), share_out)
    else:
        compute = here
        found = diagnose_parts(asked, asked.n, asked_kinds(asked), share_out)
    made = tables(found, subject.model.sub_updates)
    hard = difficulty(config.task, subject.batch)
    made["diagnostics"] |= {name: [row[name] for row in hard] for name in hard[0]}
    written = {name: _table(columns, config.trial_id(), DIAGNOSIS_SCHEMAS[name]) for name, columns in made.items()}
    for name in DIAGNOSIS_SCHEMAS:
        path = folder / f"{name}.parquet"
        if name not in written:
            path.unlink(missing_ok=True)  # of an earlier diagnosis, which asked for more
            continue
        write_atomically(path, table_bytes(written[name]))
    return written


def _table(columns: dict[str, object], trial_id: str, schema: pa.Schema) -> pa.Table:
    """Columns as a table of the schema: trial_id the same in each row, null where there is no such column."""
    n = len(columns["example"])  # pyright: ignore[reportArgumentType]
    known = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    known["trial_id"] = pa.array([trial_id] * n, pa.string())
    return pa.table([known.get(field.name, pa.nulls(n, field.type)) for field in schema], schema=schema)

"""The test puzzles as a table: joined to what was solved by digest and example."""

import numpy as np
import torch
from tiny import tiny_config, tiny_sweep, write_spec

import results
from results.gather import gather
from rrm.puzzles.tasks import MazeTask
from tune.plan import write_manifest
from tune.puzzle_table import puzzle_rows
from tune.spec import load_sweep
from tune.trial import TrialJob, TrialRun


def test_puzzles_join_to_what_was_solved(tmp_path):
    sweep = load_sweep(write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "runs"), base={"train": {"steps": 4}})))
    write_manifest(sweep)
    for cell in sweep.cells[:2]:
        folder = str(sweep.folder / "trials" / cell.trial_id)
        run = TrialRun(
            TrialJob(cell.arm, cell.seed, cell.trial_id, cell.config.model_dump(mode="json"), folder, 1, 60),
            torch.device("cpu"),
        )
        while not run.advance(seconds=1.0).finished:
            pass
        run.close()
    gather(sweep.folder)
    trials, evals, puzzles = (results.load(table, tmp_path / "runs") for table in ("trials", "evals", "puzzles"))
    assert len(puzzles) == 8  # once for both trials, and all of eval.n
    assert puzzles.example.tolist() == list(range(8))
    last = evals[(evals.split == "test") & (evals.step == 4) & (evals.sigma == 0)]
    joined = results.unpack(last).merge(trials[["trial_id", "test_digest"]]).merge(puzzles)
    assert len(joined) == 2 * 8
    assert (joined.givens == joined.question.str.count("[1-4]")).all()
    assert joined.givens.between(1, 15).all()
    unrolled = results.unroll(tmp_path / "runs", "tiny", sweep.cells[0].trial_id)
    assert unrolled.question[0] == puzzles.question[0]
    (path,) = (sweep.folder / "puzzles").glob("*.parquet")
    path.write_bytes(b"PAR1")
    tables = gather(sweep.folder)
    assert [problem.partition(": ")[0] for problem in tables.problems] == [str(path)]
    assert len(tables.comparison)


def test_ratings_come_from_the_csv_and_mazes_have_lengths(tmp_path):
    rows = [
        "source,question,answer,rating",
        "a,1234341221434.2.,1234341221434321,2.5",
        "b,0234341221434321,1234341221434321,x",
    ]
    (tmp_path / "test.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "train.csv").write_text("\n".join([rows[0], "c,43211234.1433412,4321123421433412,1"]) + "\n")
    task = tiny_config(
        task={"generate": None, "train": str(tmp_path / "train.csv"), "test": str(tmp_path / "test.csv")}
    ).task
    found = puzzle_rows(task, *(task.read(str(tmp_path / "test.csv"))[part].reshape(2, -1) for part in (0, 1)))
    assert [(row["question"], row["rating"], row["givens"]) for row in found] == [
        ("1234341221434.2.", 2.5, 14),
        (".234341221434321", None, 15),
    ]
    questions, answers = (np.array([["# SGo".index(cell) for cell in text]]) for text in ("S   G    ", "Soo G oo "))
    (maze,) = puzzle_rows(MazeTask(name="maze", side=3, generate={"puzzles": 10, "min_path": 2}), questions, answers)
    assert (maze["path_length"], maze["rating"], "givens" in maze) == (6, None, False)

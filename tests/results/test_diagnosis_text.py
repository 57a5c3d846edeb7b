"""A diagnosis in a terminal: every case has its sentence, and no line is wider than asked."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from results import diagnosis
from results.diagnosis_text import told
from results.text import show

from .test_diagnosis import diagnosed
from .test_view import tables_of as sweep_tables


def tables_of(n: int, failed: int, **columns) -> dict[str, pd.DataFrame]:
    """n puzzles of which the last ones fail: these have a larger lambda_1, and one in two escapes by ACT step 8."""
    solved = np.arange(n) < n - failed
    rows = diagnosed(n, solved=solved, lambda_1=np.where(solved, -1.0, 1.0), drift_threshold=0.5, depth=16)
    since = np.where(solved, 1.0, np.where(np.arange(n) % 2 == 0, 8.0, math.nan))
    rows = rows.assign(solved_from=since, far_settled=True, **columns)
    key = rows[["sweep", "trial_id", "step", "example"]]
    depths = [key.assign(depth=at, solved=solved | (since <= at), drift=1.0 / at) for at in range(1, 17)]
    windows = key.assign(window="quarter 1", lambda_1=rows.lambda_1, drift=1.0, first_step=1, last_step=1)
    restarts = key.loc[~solved].assign(sigma=0.5, restart=0, solved=True)
    return {"diagnostics": rows, "windows": windows, "depths": pd.concat(depths), "restarts": restarts}


def test_what_failed_and_what_frees_it():
    said = told(tables_of(20, 6), 100)
    assert said.startswith("20 test puzzles, 14 solved; 4 ACT steps of 2 latent updates")
    assert "-lambda_1, quarter 1              1.000 [1.000, 1.000]" in said
    words = " ".join(said.split())
    assert "Of the 6 failed after 4: 3 have escaped after 16 (half-life" in words
    assert "0 are still moving, 3 have settled wrong; of the 14 solved, 0 are lost after 16" in words
    assert "100% [61%, 100%]" in said  # each is freed by its restart
    assert max(map(len, said.splitlines())) <= 100


def random_diagnosis(trial_id: str, n: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(int(trial_id[-1]))
    solved = rng.random(n) < 0.6
    rows = diagnosed(n, trial_id=trial_id, solved=solved, lambda_1=rng.normal(size=n) - solved, n_pos=1)
    return rows.assign(late_drift=rng.random(n), settled=rng.random(n) < 0.5, drift_threshold=0.5, step=20)


def test_what_is_printed_is_what_the_tables_say():
    """`rrm results show` of every trial, and `rrm diagnose` of one: their 2 x 2 and AUCs."""
    sweep = sweep_tables(2, diagnoses=False)
    rows = pd.concat([random_diagnosis(trial_id) for trial_id in sweep.trials.trial_id], ignore_index=True)
    shown = show(replace(sweep, diagnostics=rows, trials=sweep.trials.assign(point="")), 400)
    lines = [line.split() for line in shown.partition("Lyapunov exponents")[2].splitlines()[2:]]
    cells, areas = diagnosis.two_by_two(rows), diagnosis.auc(rows, measures=["-lambda_1", "-late_drift"])
    for line, trial in zip(lines, sweep.trials.itertuples(), strict=False):
        mine = cells[cells.trial_id == trial.trial_id]
        lambda_1, drift = areas[areas.trial_id == trial.trial_id].itertuples()
        counts = mine.set_index(["settled", "solved"]).n
        in_order = [counts[settled, solved] for settled in (True, False) for solved in (True, False)]
        assert line[:8] == [trial.arm, str(trial.seed), "20", "30", *map(str, in_order)]
        told_of = [f"{one.auc:.3f} {one.low:.3f} to {one.high:.3f}" for one in (lambda_1, drift)]
        assert line[-8:] == " ".join(told_of).split()
    one = tables_of(20, 6)
    one["diagnostics"] = one["diagnostics"].assign(settled=np.arange(20) % 3 == 0, lambda_1=np.arange(20) % 7)
    said = told(one, 160)
    for cell in diagnosis.two_by_two(one["diagnostics"]).itertuples():
        name = f"{'settled' if cell.settled else 'wandering'}, {'solved' if cell.solved else 'failed'}"
        (line,) = (line for line in said.splitlines() if line.startswith(name))
        assert line.removeprefix(name).split()[:2] == [str(cell.n), f"{cell.share:.0%}"]
    for found in diagnosis.auc(one["diagnostics"], measures=["-lambda_1", "-lambda_2", "q_halt"]).itertuples():
        assert f"\n{found.measure} " in said
        (line,) = (line for line in said.splitlines() if line.startswith(f"{found.measure} "))
        assert line.split() == [found.measure, f"{found.auc:.3f}", f"[{found.low:.3f},", f"{found.high:.3f}]"]


def test_of_puzzles_that_are_all_solved():
    said = told(tables_of(8, 0), 80)
    assert "No AUC: all puzzles are solved, or all failed" in said
    assert "None failed after 4; of the 8 solved, 0 are lost after 16" in said
    assert "none: every puzzle is solved" in said
    assert "nan" not in said


def test_mazes_are_told_as_exact_as_paths_and_as_shortest_paths():
    rows = {"valid": np.arange(20) < 16, "shortest": np.arange(20) < 15, "path_length": np.arange(20) % 3 + 4}
    tables = tables_of(20, 6, **rows, valid_from=1.0, shortest_from=1.0)
    for name in ("depths", "restarts"):
        tables[name] = tables[name].assign(valid=True, shortest=True)
    said = told(tables, 120)
    assert said.startswith("20 test puzzles, 14 exactly right, 16 a valid path, 15 a shortest path;")
    for words in ("exactly right", "a valid path", "a shortest path"):
        assert f"Otsu's threshold; solved: {words})" in said
        assert f"Far past training; solved: {words}" in said

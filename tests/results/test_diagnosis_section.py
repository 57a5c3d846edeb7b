"""The diagnoses of a sweep on its page: planted in every arm, drawn of every arm, of all seeds together."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import vl_convert

from results.diagnosis_section import diagnosis_items
from results.gather import SweepTables
from results.plots.style import Arms

from .test_comparison import trials_of, two_arms
from .test_diagnosis import diagnosed

N = 48


def planted(trial_id: str, freed: bool) -> dict[str, pd.DataFrame]:
    """Of 48 puzzles the half with the larger lambda_1 fails, as the most rated do; a restart frees all or none."""
    rng = np.random.default_rng(0)
    solved = np.arange(N) % 2 == 0
    lambda_1 = np.where(solved, -1.0, 1.0) + 0.1 * rng.random(N)
    rows = diagnosed(N, trial_id=trial_id, solved=solved, lambda_1=lambda_1, late_drift=rng.random(N), valid=True)
    rows = rows.assign(settled=rows.late_drift < 0.5, rating=np.arange(N) // 8, drift_threshold=0.5, n_pos=1)
    rows = rows.assign(
        depth=16, far_settled=True, valid_from=1.0, solved_from=np.where(solved, 1, np.where(freed, 8, math.nan))
    )
    key = rows[["sweep", "trial_id", "step", "example"]]
    windows = pd.concat(
        key.assign(window=window, first_step=1, last_step=2, drift=1.0, spectral_mean=0.0, lambda_1=values)
        for window, values in (("quarter 1", 0.0), ("quarter 4", lambda_1))
    )
    depths = pd.concat(
        key.assign(depth=at, solved=solved | (freed and at >= 8), valid=True, drift=1.0 / at) for at in range(1, 17)
    )
    failed = key.loc[~solved]
    restarts = pd.concat(
        failed.assign(sigma=sigma, restart=r, solved=freed and sigma > 0.5, valid=True, q_halt=0.0)
        for sigma in (0.1, 1.0)
        for r in range(2)
    )
    robustness = key.head(4).assign(variation="x", lambda_1=1.0, usual_lambda_1=1.5)
    tables = {"diagnostics": rows, "windows": windows, "depths": depths, "restarts": restarts, "robustness": robustness}
    return {name: table.reset_index(drop=True) for name, table in tables.items()}


@pytest.fixture(scope="module")
def items() -> dict[str, dict]:
    return items_of({name: planted(name, freed=name.startswith("multi")) for name in trials_of([0, 1]).trial_id})


def items_of(planted: dict[str, dict[str, pd.DataFrame]]) -> dict[str, dict]:
    trials, evals = trials_of([0, 1]), two_arms([0, 1])[1]
    of_trials = list(planted.values())
    tables = {name: pd.concat([one[name] for one in of_trials], ignore_index=True) for name in of_trials[0]}
    sweep = SweepTables(
        sweep="s", baseline="baseline", trials=trials, evals=evals, comparison=pd.DataFrame(),
        differences=pd.DataFrame(), files=[], problems=[], folder=Path("/nowhere"), **tables,
    )  # fmt: skip
    return {item["id"]: item for item in diagnosis_items(sweep, Arms(("baseline", "multi"), "baseline"))}


def rows_in(item: dict) -> pd.DataFrame:
    """The largest of the tables that a figure is drawn from."""
    return pd.DataFrame(max(item["spec"]["datasets"].values(), key=len))


def test_every_figure_holds_what_was_planted_and_can_be_drawn(items):
    figures = {name: item for name, item in items.items() if item["kind"] == "figure"}
    exact = ("settled", "lambda", "auc", "windows", "thresholds", "deciles", "within", "far", "fates", "restarts")
    assert {f"figure-{name}-solved" for name in exact} <= set(figures)
    assert {"figure-settled-valid", "figure-lambda-valid"} <= set(figures)  # all are valid: there is no AUC of it
    assert "figure-auc-valid" not in figures
    areas = rows_in(figures["figure-auc-solved"]).set_index(["arm", "measure"])
    assert set(areas.auc.xs("-lambda_1", level="measure")) == {1}
    assert set(areas.n) == {2 * N}
    windows = rows_in(figures["figure-windows-solved"]).set_index(["arm", "window"]).auc
    assert (windows["multi", "quarter 1"], windows["multi", "quarter 4"]) == (0.5, 1)
    assert set(rows_in(figures["figure-deciles-solved"]).auc) == {1}
    assert set(rows_in(figures["figure-within-solved"]).auc) == {1}
    far = rows_in(figures["figure-far-solved"]).set_index(["arm", "depth"]).escaped
    assert far["multi"].to_dict() == {4: 0, 8: 1, 16: 1}
    assert set(far["baseline"]) == {0}
    fates = rows_in(figures["figure-fates-solved"]).set_index(["arm", "fate"]).share
    assert fates["multi"].to_dict() == {"escaped": 1, "still moving": 0, "settled wrong": 0}
    assert fates["baseline"].to_dict() == {"escaped": 0, "still moving": 0, "settled wrong": 1}
    varied = rows_in(figures["figure-varied"])
    assert varied[["arm", "variation", "n", "mean", "largest"]].values.tolist() == [
        [arm, "x", 8, 0.5, 0.5] for arm in ("baseline", "multi")
    ]
    freed = rows_in(figures["figure-restarts-solved"]).set_index(["arm", "sigma"]).some
    assert freed.to_dict() == {("baseline", 0.1): 0, ("baseline", 1): 0, ("multi", 0.1): 0, ("multi", 1): 1}
    for name, item in figures.items():
        assert "<svg" in vl_convert.vegalite_to_svg({**item["spec"], "title": name})


def test_an_arm_that_solves_nothing_at_the_trainings_depth_is_drawn_far_past_it():
    of_trials = {name: planted(name, freed=False) for name in ("baseline0", "multi0")}
    multi = of_trials["multi0"]
    multi["diagnostics"]["solved"] = False
    multi["depths"]["solved"] = multi["depths"].depth >= 8
    of_trials["multi0"] = {
        name: multi[name] if name in ("diagnostics", "depths") else multi[name][:0] for name in multi
    }
    far = rows_in(items_of(of_trials)["figure-far-solved"]).set_index(["arm", "depth"]).escaped
    assert far["multi"].to_dict() == {4: 0, 8: 1, 16: 1}


def test_its_tables_say_for_which_outcome(items):
    cells = items["table-cells"]
    names = [column["name"] for column in cells["columns"]]
    assert len(cells["rows"]) == 2 * 2 * 4  # outcomes, arms, cells
    assert {row[names.index("solved_is")] for row in cells["rows"]} == {"exactly right", "a valid path"}
    fates = items["table-fates"]
    columns = [column["name"] for column in fates["columns"]]
    escaped = [row[columns.index("escaped")]["text"] for row in fates["rows"]]
    assert escaped == ["0", str(N), "0", "0"]
    assert len(items["table-diagnoses"]["rows"]) == 4 * 2
    areas = items["table-auc"]
    measure = [column["name"] for column in areas["columns"]].index("measure")
    k = len(planted("baseline0", freed=False)["diagnostics"].exponents[0])
    assert {f"-lambda_{i + 1}" for i in range(k)} <= {row[measure] for row in areas["rows"]}
    assert {"table-freed", "table-robustness"} <= set(items)

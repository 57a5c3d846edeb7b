"""Charts on tables whose content is known: which arms, rows and numbers they hold, and how they look."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import vl_convert

import results
from results.comparison import compare
from results.curves import curve, seed_curves, snapshot
from results.depths import escape
from results.difficulty import by_difficulty
from results.plots import (
    accuracy_against_compute,
    accuracy_curves,
    auc_by_measure,
    auc_by_window,
    difference_map,
    escape_by_depth,
    freed_by_restart,
    lambda_by_outcome,
    paired_differences,
    settled_by_outcome,
    sigma_ladder,
    solved_by_difficulty,
    solving,
    training_sigma,
    varied_estimates,
)
from results.plots.puzzles import cell_kinds
from results.plots.style import COLOURS, CONFIG, DASHES, Arms, log_ticks, titles

from .test_comparison import diagnoses_of, evals_of, trials_of

SUDOKU = {"question": "1..33.1..1.4432.", "answer": "1243341221344321"}
MAZE = {"question": "S    # #G    # #", "answer": "S   o# #G    # #"}
MANY = ("baseline", *(f"arm{number}" for number in range(9)))


def tables_of(arms=("baseline", "multi"), seeds=(0, 1, 2), **changes):
    trials = trials_of(seeds, arms, **changes)
    evals = pd.DataFrame(
        [row for name in trials.trial_id for row in evals_of(name, [0.0, 0.2, 0.4 + 0.1 * len(name) / 9])]
    )
    return trials, evals, compare(trials, evals, baseline="baseline")


def data_of(chart) -> pd.DataFrame:
    """All rows that a chart holds, its layers' own too."""
    return pd.DataFrame([row for rows in chart.to_dict()["datasets"].values() for row in rows])


def colours_of(chart) -> dict[str, str]:
    """The colour of each arm, by the first scale of it that a chart has."""
    found = {}

    def walk(part):
        if isinstance(part, dict):
            colour = part.get("color")
            if isinstance(colour, dict) and colour.get("field") == "arm":
                found.setdefault("scale", dict(zip(colour["scale"]["domain"], colour["scale"]["range"], strict=True)))
            for value in part.values():
                walk(value)
        elif isinstance(part, list):
            for value in part:
                walk(value)

    walk(chart.to_dict())
    return found["scale"]


def test_every_arm_is_in_every_chart_however_many_there_are():
    trials, evals, comparison = tables_of(MANY)
    shown = snapshot(trials, evals)
    charts = [
        accuracy_curves(curve(trials, evals), shown, seed_curves(trials, evals)),
        accuracy_against_compute(shown),
        paired_differences(comparison),
        difference_map(comparison),
    ]
    for chart in charts:
        assert set(MANY[1:]) <= set(data_of(chart).arm)


def test_an_arm_has_one_colour_in_all_charts_and_the_baseline_is_black():
    trials, evals, comparison = tables_of(("baseline", "b", "a"))
    comparison = comparison.assign(perturb='{"sigma": 0.1}')
    shown = snapshot(trials, evals)
    charts = [
        accuracy_curves(curve(trials, evals), shown),
        accuracy_against_compute(shown),
        paired_differences(comparison),
        sigma_ladder(comparison, training_sigma(comparison)),
    ]
    assert [colours_of(chart) for chart in charts] == [
        {"baseline": "currentColor", "b": COLOURS[0], "a": COLOURS[1]}
    ] * len(charts)


def test_colours_of_more_than_six_arms_come_again_in_other_dashes():
    arms = Arms(MANY, "baseline")
    looks = {(arms.colours[name], tuple(arms.dashes[name])) for name in arms.names}
    assert len(looks) == len(MANY)
    assert arms.dash().to_dict()["scale"] == {"domain": list(MANY), "range": list(arms.dashes.values())}
    assert arms.colours["baseline"] == "currentColor"


def test_the_page_knows_the_dashes_and_the_blues_that_it_makes_lighter_on_dark():
    css = Path(results.__file__).with_name("page").joinpath("style.css").read_text()
    parts = [f'.swatch[data-dash="{on},{off}"]' for on, off in DASHES[1:]]
    for blue in (COLOURS[0], COLOURS[4]):
        parts += [f'[fill="{blue}"]', f'[stroke="{blue}"]', f'[style*="{blue}"]']
    assert [part for part in parts if part not in css] == []


def test_curves_of_up_to_six_arms_share_a_panel_and_more_are_small_multiples_with_the_baseline_in_each():
    trials, evals, _ = tables_of(MANY[:6])
    assert "facet" not in accuracy_curves(curve(trials, evals)).to_dict()
    trials, evals, _ = tables_of(MANY[:8])
    chart = accuracy_curves(curve(trials, evals))
    assert chart.to_dict()["facet"]["sort"] == list(MANY[1:8])
    panels = data_of(chart).groupby("panel").arm.agg(set)
    assert all(held == {"baseline", panel} for panel, held in panels.items())


def test_an_arm_of_another_training_depth_has_its_curve_at_its_own():
    """halt_max_steps 8 against 4, both read deeper, too."""
    trials, evals, _ = tables_of(("baseline", "deep"))
    evals["depth"] = evals.depth.where(evals.trial_id.str.startswith("baseline"), 8)
    deeper = evals.assign(depth=16, exact_accuracy=0.99)
    rows = data_of(accuracy_curves(curve(trials, pd.concat([evals, deeper], ignore_index=True))))
    means = {arm: mine["mean"].tolist() for arm, mine in rows.groupby("arm")}
    assert means == {"baseline": [0, 0.2, pytest.approx(0.4 + 0.1)], "deep": [0, 0.2, pytest.approx(0.45)]}
    final = compare(trials, evals, baseline="baseline").query("metric == 'final'")
    assert final[["depth", "baseline_depth"]].values.tolist() == [[8, 4]]
    assert "deep" in set(data_of(paired_differences(final)).arm)


def test_other_charts_of_more_than_six_arms_are_small_multiples_too():
    trials, evals, _ = tables_of(MANY[:8])
    deeper = pd.concat([evals, evals.assign(depth=8)], ignore_index=True)
    puzzles = pd.DataFrame({"test_digest": "d", "example": range(40), "givens": np.arange(40) // 10})
    some = pd.DataFrame({"arm": MANY[:8], "low": 0.6, "high": 0.8, "n": 40})
    areas = some.assign(auc=0.7, n_solved=20, measure="-lambda_1")
    changes = some.assign(variation="float64", order=0.9, mean=0.01, largest=0.02)
    charts = [
        accuracy_against_compute(snapshot(trials, evals)),
        escape_by_depth(escape(trials, deeper)),
        solved_by_difficulty(by_difficulty(trials, evals, puzzles)),
        auc_by_measure(areas.assign(window="all")),
        auc_by_window(areas.assign(window="late")),
        varied_estimates(changes),
        freed_by_restart(some.assign(sigma=0.1, some=0.7, restarts=8)),
    ]
    for chart in charts:
        drawn = chart.to_dict()
        assert drawn["facet"]["sort"] == list(MANY[1:8])
        panels = data_of(chart).groupby("panel").arm.agg(set)
        assert all(held == {"baseline", panel} for panel, held in panels.items())
        # Seven panels fill no rows of two, three or four: an axis stands where a panel does.
        assert drawn["resolve"]["axis"] == {"x": "independent"}


def test_how_many_columns_a_legend_has_is_for_the_look_to_say_which_a_page_fits():
    trials, evals, _ = tables_of()
    assert '"columns"' not in accuracy_curves(curve(trials, evals)).properties(config={}).to_json()
    assert CONFIG["legend"]["columns"] == 3


@pytest.mark.parametrize(
    ("found", "ticks"),
    [
        ([1e-4, 0.02, 1], [1e-4, 1e-3, 0.01, 0.1, 1]),
        ([np.exp(np.log(1e-4)), 0.02], [1e-4, 1e-3, 0.01]),
        ([0.1, 1], [0.1, 0.2, 0.5, 1]),
        ([7.8e11, 3.1e12], [1e12, 2e12]),
        ([3.1, 3.2], [3.1, 3.2]),
        ([3.1], [3.1]),
    ],
)
def test_a_log_axis_has_few_ticks(found, ticks):
    assert log_ticks(found) == ticks


def test_whole_numbers_of_givens_have_whole_ticks():
    solved = pd.DataFrame({"arm": "a", "difficulty": [6, 9.5], "n": 9, "share": 0.5, "low": 0.4, "high": 0.6})
    step = [
        solved_by_difficulty(solved.assign(measure=measure)).to_dict()["layer"][-1]["encoding"]["x"]["axis"]
        for measure in ("givens", "rating")
    ]
    assert step == [{"tickMinStep": 1}, {}]


def test_a_grid_has_a_panel_a_point_in_the_order_of_their_values():
    trials, evals, _ = tables_of(("baseline", "multi"))
    points = ["s=1e-05", "s=0.3", "s=2", "s=10"]
    trials["points"] = [
        points if arm == "baseline" else [points[seed]] for arm, seed in zip(trials.arm, trials.seed, strict=True)
    ]
    line = curve(trials, evals)
    assert list(dict.fromkeys(line.point[line.arm == "baseline"])) == points
    assert accuracy_curves(line).to_dict()["facet"]["sort"][-3:] == [f"multi, {point}" for point in points[:3]]


def test_bands_stay_among_accuracies_and_tell_how_many_seeds_they_are_of():
    trials, evals, _ = tables_of(("baseline", "multi"), seeds=(0, 1))
    evals.loc[(evals.trial_id == "multi0") & (evals.step == 20), "exact_accuracy"] = 1.0
    rows = data_of(accuracy_curves(curve(trials, evals))).query("part == 'line'")
    assert rows.low.min() >= 0
    assert rows.high.max() <= 1
    assert set(rows.n_seeds) == {2}
    alone = data_of(accuracy_curves(curve(*tables_of(seeds=(0,))[:2])))
    assert "low" not in alone, "one seed has no interval, and no band of width 0"


def test_rings_are_the_best_steps_by_seed_and_thin_lines_the_seeds():
    trials, evals, _ = tables_of()
    chart = accuracy_curves(curve(trials, evals), snapshot(trials, evals), seed_curves(trials, evals))
    rows = data_of(chart)
    best = rows.query("part == 'best'")
    assert sorted(best.trial_id) == sorted(trials.trial_id)
    assert set(best.step) == {20}
    assert set(rows.query("part == 'seed'").trial_id) == set(trials.trial_id)
    assert [param["name"] for param in chart.to_dict()["params"]] == ["seeds"]


def test_the_pointer_finds_a_seed_only_where_it_is_shown_and_no_mark_above_the_means():
    """By the picture: what comes later in it is above, and each mark says what it is of."""
    trials, evals, _ = tables_of()
    chart = accuracy_curves(curve(trials, evals), snapshot(trials, evals), seed_curves(trials, evals)).to_dict()

    def marks() -> list[str]:
        found = re.findall(r'aria-label="(batches trained: [^"]*)"', vl_convert.vegalite_to_svg(chart))
        return ["best" if "best step" in said else "seed" if "trial" in said else "mean" for said in found]

    hidden = marks()
    assert "seed" not in hidden
    chart["params"][0]["value"] = True
    shown = marks()
    assert shown.count("seed") >= len(trials)
    assert hidden[-1] == shown[-1] == "mean"
    told = [tip["field"] for tip in chart["layer"][-1]["encoding"]["tooltip"]]
    assert told == ["arm", "step", "mean", "n_seeds"]  # no grid, no point; equal seeds, no interval


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (["done", "done"], "over all seeds (1 to 2)."),
        (["done", "failed"], "over all seeds (1 to 2, fewer where a trial failed)."),
        (["stopped", "failed"], "over all seeds (1 to 2, fewer where a trial failed or was stopped)."),
        (["failed", "running"], "over all seeds (1 to 2, as many as have come so far)."),
    ],
)
def test_the_caption_says_why_some_steps_have_fewer_seeds(states, said):
    trials, evals, _ = tables_of(("baseline",), seeds=(0, 1))
    evals = evals.loc[(evals.trial_id == "baseline0") | (evals.step < 20)]
    shown = snapshot(trials, evals).assign(status=states)
    title = accuracy_curves(curve(trials, evals), shown).to_dict()["title"]
    assert said in " ".join(title["subtitle"])


def test_differences_are_in_points_with_their_seeds_as_dots():
    _, _, comparison = tables_of()
    final = comparison.loc[(comparison.metric == "final") & (comparison.depth == 4)]
    seeds = final[["arm", "point", "metric", "sigma", "depth"]].merge(
        pd.DataFrame({"seed": [0, 1], "trial_id": ["a", "b"], "difference": [-0.1, 0.2]}), how="cross"
    )
    rows = data_of(paired_differences(comparison, seeds))
    effect = rows.query("part == 'effect' and metric == 'final'")
    assert effect.difference.tolist() == pytest.approx((100 * final.difference).tolist(), rel=1e-4)
    assert rows.query("part == 'seed'").difference.tolist() == pytest.approx([-10, 20])


def test_the_ladder_has_a_panel_a_metric_and_the_baseline_as_a_band():
    _, _, comparison = tables_of(seeds=(0, 1, 2))
    low, high = (comparison.assign(perturb=f'{{"sigma": {sigma}}}', point=str(sigma)) for sigma in (0.1, 1.0))
    comparison = pd.concat([low, high], ignore_index=True)
    comparison["baseline_sd"] = 0.1
    chart = sigma_ladder(comparison, training_sigma(comparison))
    rows = data_of(chart)
    assert {"clean accuracy (final)", "perturbed success at sigma 0.3"} <= set(rows.what)
    assert set(rows.ladder) == {0.1, 1.0}
    assert ((rows.base_low < rows.baseline_mean) & (rows.baseline_mean < rows.base_high)).all()


def test_a_ladder_with_another_field_beside_sigma_has_a_panel_for_each_of_its_values():
    """In one panel a line would run through all points of a sigma, up and down."""
    _, _, comparison = tables_of()
    on = [
        comparison.assign(perturb=f'{{"sigma": {sigma}}}', point=f"optim.lr={rate} perturb.sigma={sigma}")
        for rate in (1, 2)
        for sigma in (0.1, 1.0)
    ]
    comparison = pd.concat(on, ignore_index=True)
    rows = data_of(sigma_ladder(comparison, training_sigma(comparison)))
    assert not rows.duplicated(["panel", "arm", "ladder"]).any()
    assert {"clean accuracy (final): lr=1", "clean accuracy (final): lr=2"} <= set(rows.panel)


def test_the_map_of_a_ladder_is_arms_by_sigma_with_a_panel_a_metric():
    """An arm without noise stands before the sigmas; where sigmas are no ladder the map has a row an arm and point."""
    _, _, comparison = tables_of(("baseline", "multi", "plain"))
    on = [
        comparison.assign(perturb=f'{{"sigma": {sigma}}}', point=f"s={sigma}").query("arm == 'multi'")
        for sigma in (10, 0.5)
    ]
    plain = comparison.assign(perturb=None, point="").query("arm == 'plain'")
    chart = difference_map(pd.concat([*on, plain], ignore_index=True))
    rows = data_of(chart)
    assert chart.to_dict()["facet"]["sort"][:2] == ["clean accuracy (best)", "clean accuracy (final)"]
    assert chart.to_dict()["spec"]["layer"][0]["encoding"]["x"]["sort"] == ["none", "0.5", "10"]
    assert set(zip(rows.row, rows.ladder, strict=True)) == {("multi", "10"), ("multi", "0.5"), ("plain", "none")}
    twice = pd.concat([*on, on[0].assign(point="lr=1")], ignore_index=True)
    assert set(data_of(difference_map(twice)).row) == {"multi, s=10", "multi, s=0.5", "multi, lr=1"}


@pytest.mark.parametrize(
    ("perturb", "sigma"),
    [
        (None, np.nan),
        ('{"sigma": 0.3}', 0.3),
        ('{"sigma": 0}', np.nan),
        ('{"sigma": [0.01, 1.0]}', 0.1),
    ],
)
def test_the_sigma_of_a_training(perturb, sigma):
    found = training_sigma(pd.DataFrame({"perturb": [perturb]}))
    assert found.iloc[0] == pytest.approx(sigma, nan_ok=True)


def test_exponents_are_summed_up_by_arm_and_outcome_of_the_last_diagnosis():
    trials = trials_of([0, 1])
    diagnosed = diagnoses_of(trials.trial_id, lambda name: 1).assign(settled=True)
    diagnosed["solved"] = diagnosed.example < 6
    diagnosed["lambda_1"] = np.where(diagnosed.solved, -0.1, 0.2)
    early = diagnosed.assign(step=diagnosed.step - 1, lambda_1=9.0)
    both = pd.concat([early, diagnosed], ignore_index=True)
    boxes = data_of(lambda_by_outcome(trials, both)).dropna(subset=["arm"])
    assert dict(zip(boxes.outcome, boxes["median"], strict=True)) == {"solved": -0.1, "failed": 0.2}
    assert boxes.puzzles.sum() == len(diagnosed)
    cells = data_of(settled_by_outcome(trials, both))
    assert cells.groupby("arm").share.sum().tolist() == pytest.approx([1.0, 1.0])


def in_two_sweeps(trials: pd.DataFrame, evals: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same trials in another sweep, too, which trained them for twice as many steps."""
    others = trials.assign(sweep="other"), evals.assign(sweep="other", step=2 * evals.step)
    return pd.concat([trials, others[0]]), pd.concat([evals, others[1]])


def test_escape_is_of_the_puzzles_failed_at_the_trainings_depth():
    trials = trials_of([0], ("baseline",))
    rows = evals_of("baseline0", [0.5])
    deep = [row | {"depth": 8} for row in evals_of("baseline0", [0.75])]
    found = escape(trials, pd.DataFrame(rows + deep))
    assert found.to_dict("list") == {
        "arm": ["baseline"] * 2,
        "depth": [4, 8],
        "failed": [20, 20],
        "escaped": [0.0, 0.5],
        "solved": [0.5, 0.75],
    }
    assert len(data_of(escape_by_depth(found))) == 2
    # Of a maze's answers at the training's depth, all that are right and ten more are a path.
    bits = {"valid_correct": np.packbits(np.arange(40) < 30).tobytes(), "shortest_correct": None}
    of_maze = pd.DataFrame([row | bits for row in rows + deep])
    assert (
        escape(trials, of_maze, outcome="valid")[["failed", "escaped", "solved"]].values.tolist() == [[10, 0, 0.75]] * 2
    )
    assert len(escape(trials, of_maze, outcome="shortest")) == 0
    later = escape(*in_two_sweeps(trials, pd.DataFrame(rows + deep)))
    assert later[["failed", "escaped", "solved"]].values.tolist() == [[40, 0, 0.5], [40, 0.5, 0.75]]
    assert len(escape(trials, pd.DataFrame(rows))) == 0


def test_the_share_solved_is_binned_by_the_measure_that_there_is():
    trials = trials_of([0, 1], ("baseline",))
    evals = pd.DataFrame([row for name in trials.trial_id for row in evals_of(name, [0.5])])  # the first half is solved
    puzzles = pd.DataFrame({"test_digest": "d", "example": range(40), "rating": np.nan, "givens": np.arange(40) // 10})
    found = by_difficulty(trials, evals, puzzles)
    assert found[["difficulty", "n", "share"]].to_numpy().tolist() == [[0, 20, 1], [1, 20, 1], [2, 20, 0], [3, 20, 0]]
    assert set(found.measure) == {"givens"}
    assert found.low[0] == pytest.approx(0.8389, abs=1e-4)  # Wilson's: 20 of 20
    assert len(data_of(solved_by_difficulty(found))) == 4
    later = by_difficulty(*in_two_sweeps(trials, evals), puzzles)
    assert later[["n", "share"]].to_numpy().tolist() == [[40, 1], [40, 1], [40, 0], [40, 0]]
    of_maze = evals.assign(valid_correct=np.packbits(np.arange(40) < 30).tobytes())
    valid = by_difficulty(trials, of_maze, puzzles, outcome="valid")
    assert valid.share.tolist() == [1, 1, 1, 0]
    assert solved_by_difficulty(valid, more=" (x)").to_dict()["title"]["text"] == "Solved against difficulty (x)"
    assert len(by_difficulty(trials, evals, puzzles.assign(givens=5))) == 0, "all alike"
    assert len(by_difficulty(trials, evals, pd.DataFrame())) == 0


def unrolls_of(puzzle: dict[str, str], *texts: list[str]) -> pd.DataFrame:
    """The table of one example: the clean run, then perturbed ones."""
    row = {"trial_id": "x", "step": 50, "example": 0} | puzzle
    sigmas = [0.3 * at for at in range(len(texts))]
    return pd.DataFrame(
        [
            row | {"sigma": sigma, "predicted": shown, "q_halt": np.linspace(-1, 2, len(shown))}
            for sigma, shown in zip(sigmas, texts, strict=True)
        ]
    )


def test_a_puzzles_panels_say_how_many_cells_are_wrong():
    wrong = "13" + SUDOKU["answer"][2:-1] + "?"
    chart = solving(unrolls_of(SUDOKU, [wrong, SUDOKU["answer"]], [SUDOKU["question"], "3" * 16]), name="a")
    spec = chart.to_dict()
    assert spec["title"]["text"] == "a: test puzzle 0 after 50 batches"
    assert spec["facet"]["sort"] == [
        "clean, ACT step 1: 2 wrong, q -1.0",
        "clean, ACT step 2: solved, q +2.0",
        "sigma 0.3, ACT step 1: 7 wrong, q -1.0",
        "sigma 0.3, ACT step 2: 12 wrong, q +2.0",
    ]
    first = data_of(chart).query("panel == 'clean, ACT step 1: 2 wrong, q -1.0'")
    assert first.loc[first.kind == "wrong", ["row", "column"]].to_numpy().tolist() == [[0, 1], [3, 3]]
    with pytest.raises(ValueError, match=r"example: 7 is not unrolled here; give one of \[0\]"):
        solving(unrolls_of(SUDOKU, [wrong]), 7)


def test_the_cells_of_a_maze():
    shown = "So  ##o#G    # #"
    kinds = cell_kinds(MAZE["question"], MAZE["answer"], shown)
    assert kinds[1] == kinds[6] == "no path, marked"
    assert kinds[4] == "path, missing"
    assert kinds[0] == kinds[2] == "free"
    assert kinds[5] == "wall"
    assert cell_kinds(MAZE["question"], MAZE["answer"], "?" + MAZE["answer"][1:])[0] == "other cell wrong"
    assert cell_kinds(MAZE["question"], MAZE["answer"], MAZE["answer"])[4] == "path, right"


def test_a_chart_is_a_picture_without_a_browser(tmp_path):
    trials, evals, _ = tables_of()
    accuracy_curves(curve(trials, evals)).save(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_a_grid_point_is_named_by_the_ends_of_its_fields_where_these_differ():
    points = ["perturb.sigma=0.1 optim.lr=1", "perturb.sigma=0.2 optim.lr=2", None]
    assert titles(pd.DataFrame({"arm": ["a", "a", "b"], "point": points})) == [
        *("a, sigma=0.1 lr=1", "a, sigma=0.2 lr=2", "b")
    ]
    alike = pd.DataFrame({"arm": ["a"], "point": ["optim.lr=1 head.lr=2 perturb.sigma=3"]})
    assert titles(alike) == ["a, optim.lr=1 head.lr=2 sigma=3"]

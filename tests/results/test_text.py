"""What `rrm results show` prints: the answer first, at any width, with nothing cut."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulated import sweep_of

from results.comparison import compare_by_seed
from results.gather import SweepTables
from results.layout import Column, latex, lines, markdown
from results.looks import Look
from results.text import export, show

BASE = {"final": 0.6, "best": 0.62, "perturbed": {0.3: 0.4}}
LADDER = tuple(f"perturb.sigma={sigma}" for sigma in (1e-05, 2e-05, 0.0005, 0.001, 0.01, 0.1, 1.0))


def tables_of(arms, **how) -> SweepTables:
    trials, evals, diagnoses = sweep_of({"baseline": BASE, **arms}, **how)
    compared = compare_by_seed(trials, evals, diagnoses, baseline="baseline")
    return SweepTables("s", "baseline", trials, evals, diagnoses, *compared, [Path("x.parquet")], [], Path("s"))


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_answer_comes_first_and_every_number_is_whole(width):
    arms = {"multi4": BASE | {"final": 0.7, "best": 0.72}, "a-much-longer-name-of-an-arm": BASE}
    tables = tables_of(arms, points=LADDER)
    printed = show(tables, width)
    shown = printed.splitlines()
    assert shown[2] == "Against baseline: clean accuracy (best), in points of accuracy"
    assert "…" not in printed
    assert max(len(line) for line in shown if "x.parquet" not in line) <= width
    answer = printed[: printed.index("±: 95 %")]
    for row in tables.comparison[tables.comparison.primary].itertuples():
        value = row.point.partition("=")[2]
        place = rf"{row.arm} +{re.escape(value)}\s"
        numbers = f"{row.baseline_mean:.4f}  {row.arm_mean:.4f}  {100 * row.difference:+5.1f} ±"
        assert re.search(rf"^{place}[^\n]*\n?[^\n]*{re.escape(numbers)}", answer, re.MULTILINE), place
    places = re.findall(r"^multi4 +(\S+)", answer, re.MULTILINE)
    assert places == [point.partition("=")[2] for point in LADDER]  # as the spec has them, no two alike


def test_at_80_columns_a_line_is_an_arm_and_point():
    printed = show(tables_of({"multi4": BASE | {"final": 0.7, "best": 0.72}}, points=LADDER), 80)
    answer = printed[: printed.index("±: 95 %")].splitlines()[2:]
    assert answer[1].split() == ["arm", "sigma", "baseline", "arm", "difference", "p", "cost", "verdict"]
    assert len(answer) == 2 + len(LADDER)


def test_a_large_sweep_lists_its_trials_on_request():
    tables = tables_of({"multi4": BASE}, points=LADDER)  # 8 + 7 * 8 trials
    assert "--all lists the 64 trials and their diagnoses" in show(tables, 80)
    everything = show(tables, 80, everything=True)
    assert "Exact accuracy on test" in everything
    assert "exploratory" in everything
    assert "exploratory" not in show(tables, 80)


def test_a_verdict_that_rests_on_another_metric_says_on_which():
    printed = show(tables_of({"multi4": BASE | {"equal": 0.4, "flops": 2}}), 80)
    (line,) = [line for line in printed.splitlines()[:6] if line.startswith("multi4")]
    assert line.endswith("  2.0x  harms (equal cost)")
    printed = show(tables_of({"multi4": BASE | {"final": 0.8, "best": 0.8}}), 80)
    assert "  1.0x  helps\n" in printed


def test_the_answer_line_says_of_which_sigma_it_speaks():
    trials, evals, diagnoses = sweep_of({"baseline": BASE, "multi4": BASE | {"perturbed": {0.1: 0.4, 0.3: 0.6}}})
    baseline = sweep_of({"baseline": BASE | {"perturbed": {0.1: 0.4, 0.3: 0.4}}})[1]
    evals = pd.concat([baseline, evals[evals.trial_id.str.startswith("multi4")]])
    compared = compare_by_seed(trials, evals, diagnoses, baseline="baseline", primary=("perturbed", 0.1))
    printed = show(SweepTables("s", "baseline", trials, evals, diagnoses, *compared, [], [], Path("s")), 100)
    (line,) = [line for line in printed.splitlines()[:6] if line.startswith("multi4")]
    assert line.endswith("  1.0x  helps (perturbed 0.3)")


def test_what_a_ladder_could_find_names_its_metric_and_leaves_out_what_is_at_its_floor():
    printed = show(tables_of({"multi4": BASE}, points=LADDER), 200)
    (line,) = [line for line in printed.splitlines() if line.endswith(" with 80 % power") and "detect" in line]
    sizes = re.fullmatch(r"(\d+) seeds detect (.+) to (.+) points of clean accuracy \(best\) with 80 % power", line)
    assert sizes is not None
    assert (int(sizes[1]), 0.5 < float(sizes[2]) < float(sizes[3]) < 10) == (11, True)
    floor = {"final": [0.0025 * (seed % 2) for seed in range(8)]}
    trials, evals, diagnoses = sweep_of({"baseline": floor, "multi4": floor | {"final": [0.0] * 8}}, points=LADDER)
    compared = compare_by_seed(trials, evals, diagnoses, baseline="baseline")
    assert compared.comparison.detectable.notna().any()
    assert "power" not in show(
        SweepTables("s", "baseline", trials, evals, diagnoses, *compared, [], [], Path("s")), 200
    )


def test_the_warnings_of_a_ladder_are_not_lost():
    """Of more places than have a sentence: the worst seeds, the noise that drowns, seeds that have no partner."""
    arm = BASE | {"best": tuple([0.62] * 7 + [0.3] if at == 2 else 0.62 for at in range(len(LADDER)))}
    trials, evals, diagnoses = sweep_of({"baseline": BASE | {"best": [0.62] * 8}, "multi4": arm}, points=LADDER)
    evals["noise_fidelity"] = np.where(evals.trial_id.str.startswith(f"multi4{LADDER[0]}"), 0.24, np.nan)
    trials = trials.loc[trials.trial_id != f"multi4{LADDER[1]}3"]
    compared = compare_by_seed(trials, evals, diagnoses, baseline="baseline")
    printed = show(SweepTables("s", "baseline", trials, evals, diagnoses, *compared, [], [], Path("s")), 400)
    assert f"\nworst seeds: multi4 {LADDER[2]} seed 7: -32.0, multi4 " in printed
    assert f"\nthis precision drowns the noise of (noise_fidelity): multi4 {LADDER[0]} (0.24)\n" in printed
    assert f"multi4 {LADDER[1]}: clean accuracy (best)" in printed
    assert "not paired: seed 3, which one side lacks" in printed


def test_the_note_on_p_says_how_it_was_computed():
    trials, evals, diagnoses = sweep_of({"baseline": BASE, "multi4": BASE, "new": BASE}, seeds=10)
    looks = [Look("multi4", "", frozenset((f"baseline{seed}", f"multi4{seed}") for seed in range(8)), 0.02, 8, 6)]

    def note(arms: list[str], looks: list[Look]) -> str:
        mine = trials[trials.arm.isin(["baseline", *arms])]
        compared = compare_by_seed(mine, evals, diagnoses, baseline="baseline", looks=looks)
        printed = show(SweepTables("s", "baseline", mine, evals, diagnoses, *compared, [], [], Path("s")), 400)
        return printed.partition("p: of no difference, ")[2].partition(", corrected")[0]

    assert note(["multi4"], []) == "by sign flips of seeds"
    assert "p: of no" not in show(tables_of({"multi4": BASE}, multi40={"status": "waiting"}), 400)
    assert note(["multi4"], looks) == "valid at every look (always-valid p)"
    assert note(["multi4", "new"], looks) == "by sign flips of seeds, or always valid where it is for several looks"


def test_failures_are_named():
    tables = tables_of({"multi4": BASE}, multi43={"status": "failed", "reason": "loss is NaN at step 7"})
    printed = show(tables, 80)
    assert "multi4 seed=3 failed: loss is NaN at step 7" in printed
    assert "failed: seed 3" in printed.replace("\n  ", " ")


def test_a_sweep_of_one_arm_says_that_there_is_nothing_to_compare():
    assert "baseline is the only arm: there is nothing to compare it with" in show(tables_of({}), 80)


def test_formats_for_a_paper_and_for_a_script():
    tables = tables_of({"multi_4": BASE | {"final": 0.7, "best": 0.72}}, points=LADDER[:2])
    rows = list(csv.DictReader(io.StringIO(export(tables, "csv"))))
    assert [row["point"] for row in rows] == list(LADDER[:2])
    assert float(rows[0]["difference"]) == tables.comparison.difference.iloc[0]
    records = json.loads(export(tables, "json"))
    assert records[0]["arm"] == "multi_4"
    assert records[0]["difference"] == pytest.approx(tables.comparison.difference.iloc[0])
    assert len(json.loads(export(tables, "json", everything=True))) == len(tables.comparison)
    head, rule, *body = export(tables, "markdown").splitlines()
    assert head == "| arm | sigma | baseline | arm | difference | p | cost | verdict |"
    assert rule.startswith("| --- | --- | ---: |")
    assert len(body) == 2
    page = export(tables, "latex")
    assert page.startswith("\\begin{tabular}{llrrrrrl}\n\\toprule\narm & sigma & ")
    assert "multi\\_4 & 1e-05 & " in page
    assert "$\\pm$" in page


def test_a_table_that_is_too_wide_puts_values_below_their_keys():
    table = [
        Column("name", ["a" * 30, "b"], number=False, key=True),
        *(Column(f"v{i}", ["1.2345", "2"]) for i in range(5)),
    ]
    assert lines(table, 80)[1] == "a" * 30 + "  1.2345" * 5
    narrow = lines(table, 30)
    assert narrow[3:6] == ["a" * 30, "  1.2345  1.2345  1.2345", "  1.2345  1.2345"]
    assert lines([Column("empty", ["", ""])], 80) == []


def test_what_a_format_reads_as_its_own_is_text():
    table = [Column("a|b", ["x_y & 50 % of $z$ \\ {w}"], number=False)]
    assert next(iter(markdown(table))) == "| a\\|b |"
    assert "x\\_y \\& 50 \\% of \\$z\\$ \\textbackslash{} \\{w\\} \\\\" in list(latex(table))

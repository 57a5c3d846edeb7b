"""A sweep's results as a person reads them in a terminal: the answer first, then what it rests on."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import pandas as pd

from results.curves import snapshot
from results.diagnosed import judged_by
from results.diagnostics import summary
from results.gather import SweepTables
from results.layout import Column, latex, lines, markdown, paragraph
from results.points import point_fields
from results.rows import counted, rows_of
from results.signals import FOUND, SCALES, at_floor, difference, drowns, metric_name, short_verdict, verdicts

Format = Literal["csv", "json", "markdown", "latex"]
TRIALS_SHOWN = 40  # more are shown with everything
HEADLINES_SHOWN = 4  # of more arms and points only those that something was found of, or whose seeds are not all there
WORST_SHOWN = 3  # of so many, whose sentences are not all there


def show(tables: SweepTables, width: int, everything: bool = False) -> str:
    """The answer, the signals it is made of, then trials, diagnoses and the files that were written.

    `everything`: all metrics of the comparison, each arm's sentence, and all trials of a large sweep.
    """
    trials = snapshot(tables.trials, tables.evals)
    parts = [f"{tables.sweep}: {len(trials)} trials, {counted(trials.status)}", ""]
    parts += _answer(tables, width, everything)
    parts += _below(tables.comparison, width, everything)
    parts += [line for failure in _failures(trials) for line in paragraph(failure, width)]
    parts += [f"left out: {problem}" for problem in tables.problems]
    if len(trials) <= TRIALS_SHOWN or everything:
        parts += ["", "Exact accuracy on test", *lines(_trials(trials), width)]
        if len(tables.diagnostics):
            parts += ["", "Lyapunov exponents on test, nats a sub-update", *lines(_diagnoses(tables), width)]
    else:
        parts += ["", f"--all lists the {len(trials)} trials and their diagnoses"]
    written = [f"Not written: {tables.unwritten}"] if tables.unwritten else ["Written:"]
    return "\n".join([*parts, "", *written, *(f"  {path}" for path in tables.files if not tables.unwritten)])


def export(tables: SweepTables, how: Format, everything: bool = False) -> str:
    """The answer, or with `everything` the whole comparison: as data (csv, json), or as it is printed."""
    if how in ("markdown", "latex"):
        columns = _metrics(tables.comparison) if everything else _answers(verdicts(tables.comparison))
        return "\n".join((markdown if how == "markdown" else latex)(columns))
    data = tables.comparison if everything else verdicts(tables.comparison)
    data = data.assign(point=data.point.astype("str"))
    if how == "csv":
        return data.to_csv(index=False).rstrip("\n")
    return str(data.to_json(orient="records", indent=1, double_precision=15))


def no_answer(tables: SweepTables) -> str:
    """Why there is no comparison."""
    if set(tables.trials.arm) - {tables.baseline}:
        return "No comparison could be made"
    return f"{tables.baseline} is the only arm: there is nothing to compare it with"


def _answer(tables: SweepTables, width: int, everything: bool) -> list[str]:
    """A line an arm and point, and the sentence of each that has something to say."""
    found = verdicts(tables.comparison)
    if not len(found):
        return [no_answer(tables)]
    first = rows_of(tables.comparison.loc[tables.comparison.primary])[0]
    title = f"Against {first.baseline}: {metric_name(first)}, in points of accuracy"
    if first.unit != "share":
        title = f"Against {first.baseline}: {metric_name(first)}"
    parts = [*paragraph(title, width), *lines(_answers(found), width)]
    parts += [line for note in _footnotes(tables.comparison) for line in paragraph(note, width, "")]
    told = found
    if len(found) > HEADLINES_SHOWN and not everything:
        told = found.loc[found.verdict.isin(FOUND) | found.headline.str.contains("failed: |not paired: ")]
    for row in rows_of(told):
        parts += ["", *paragraph(f"{' '.join(filter(None, (row.arm, row.point)))}: {row.headline}", width)]
    return parts


def _footnotes(comparison: pd.DataFrame) -> list[str]:
    """How to read the answer's numbers."""
    primary, notes = comparison.loc[comparison.primary], []
    if (primary.paired_by == "seed and puzzle").any():
        told = ["\N{PLUS-MINUS SIGN}: 95 % interval over seeds and puzzles"]
        if primary.p_adjusted.notna().any():
            how = f"{_how_tested(primary)}, corrected for an arm's signals{_places_compared(primary)}"
            told.append(f"p: of no difference, {how}")
        told += ["cost: in FLOPs, of the baseline's"] if primary.compute_ratio.notna().any() else []
        notes.append("; ".join(told))
    planned = [row for row in rows_of(primary) if pd.notna(row.detectable) and not at_floor(row)]
    if len(primary) > HEADLINES_SHOWN and planned:
        scale, unit = SCALES[planned[0].unit]
        seeds = _span([row.detectable_seeds for row in planned], "d")
        size = _span([scale * row.detectable for row in planned], ".1f")
        notes.append(f"{seeds} seeds detect {size}{unit} of {metric_name(planned[0])} with 80 % power")
    if len(primary) > HEADLINES_SHOWN:
        notes += _warnings(rows_of(primary))
    if (primary.paired_by == "puzzle").any():
        notes.append("One pair of runs: the interval is over puzzles alone, and another seed may differ by more")
    return notes


def _warnings(rows: list[Any]) -> list[str]:
    """What the sentences of so many places would say beside their means: the worst seeds, and noise that drowns."""
    notes = []
    worst = [row for row in rows if row.n_seeds > 1 and pd.notna(row.worst_difference)]
    worst = sorted(worst, key=lambda row: row.worst_difference)[:WORST_SHOWN]
    if worst:
        scale = SCALES[worst[0].unit][0]
        told = [f"{_place(row)} seed {row.worst_seed}: {scale * row.worst_difference:+.1f}" for row in worst]
        notes.append(f"worst seeds: {', '.join(told)}")
    drowned = [f"{_place(row)} ({row.noise_fidelity:.2f})" for row in rows if drowns(row)]
    if drowned:
        notes.append(f"this precision drowns the noise of (noise_fidelity): {', '.join(drowned)}")
    return notes


def _place(row: Any) -> str:
    return " ".join(filter(None, (row.arm, str(row.point))))


def _how_tested(primary: pd.DataFrame) -> str:
    """By what the p-values are: seeds that were added after a look have one that holds at every look."""
    again = primary.looks[primary.p_adjusted.notna()] > 0
    if again.all():
        return "valid at every look (always-valid p)"
    return f"by sign flips of seeds{', or always valid where it is for several looks' if again.any() else ''}"


def _span(values: list[float], how: str) -> str:
    least, most = (format(end(values), how) for end in (min, max))
    return least if least == most else f"{least} to {most}"


def _places_compared(primary: pd.DataFrame) -> str:
    count = primary.comparisons.max()
    return "" if pd.isna(count) or count == 1 else f" and for {count} arms and points"


def _answers(found: pd.DataFrame) -> list[Column]:
    rows = rows_of(found)
    return [
        *_places(rows),
        Column("baseline", [_score(row, row.baseline_mean) for row in rows]),
        Column("arm", [_score(row, row.arm_mean) for row in rows]),
        Column("difference", ["" if pd.isna(row.difference) else difference(row) for row in rows]),
        Column("p", [_probability(row.p_adjusted) for row in rows]),
        Column("cost", ["" if pd.isna(row.compute_ratio) else f"{row.compute_ratio:.1f}x" for row in rows]),
        Column("verdict", [_short(row) for row in rows], number=False),
    ]


def _short(row: Any) -> str:
    """A verdict that leaves room for numbers, the headline has it whole."""
    return short_verdict(row).removesuffix(" seeds").replace("too few seeds", "too few").removeprefix("level; ")


def _places(rows: list[Any], more: Iterable[tuple[str, Callable[[Any], str]]] = ()) -> list[Column]:
    """The columns that tell rows apart: the arm, each field of the grid that varies, and `more`."""
    points = [point_fields(str(row.point)) for row in rows]
    fields = dict.fromkeys(field for point in points for field in point)
    leaves = [field.rpartition(".")[2] for field in fields]
    columns = [Column("arm", [row.arm for row in rows], number=False, key=True)]
    for field, leaf in zip(fields, leaves, strict=True):
        heading = leaf if leaves.count(leaf) == 1 and leaf not in ("arm", "seed", "p") else field
        columns.append(Column(heading, [point.get(field, "") for point in points], number=False, key=True))
    for heading, of in more:
        columns.append(Column(heading, [of(row) for row in rows], number=False, key=True))
    return columns


def _below(comparison: pd.DataFrame, width: int, everything: bool) -> list[str]:
    """What the answer rests on: the signals, or all metrics."""
    if not len(comparison):
        return []
    title = "All metrics; exploratory ones are not tested" if everything else "Signals, all of them tested together"
    shown = comparison if everything else comparison.loc[comparison.role == "signal"]
    return ["", f"{title} (accuracies in points)", *lines(_metrics(shown), width)]


def _metrics(comparison: pd.DataFrame) -> list[Column]:
    rows = rows_of(comparison)
    return [
        *_places(rows, [("metric", metric_name)]),
        Column("baseline", [_score(row, row.baseline_mean) for row in rows]),
        Column("arm", [_score(row, row.arm_mean) for row in rows]),
        Column("difference", ["" if pd.isna(row.difference) else difference(row) for row in rows]),
        Column("p", [_probability(row.p_adjusted) for row in rows]),
        Column("verdict", [row.verdict for row in rows], number=False),
    ]


def _failures(trials: pd.DataFrame) -> list[str]:
    failed = rows_of(trials.loc[trials.status == "failed"])
    named = [f"{' '.join(filter(None, (t.arm, t.point)))} seed={t.seed} failed: {t.reason}" for t in failed]
    return ["", *named] if named else []


def _trials(trials: pd.DataFrame) -> list[Column]:
    rows = rows_of(trials)

    def status(row: Any) -> str:
        on_the_way = row.status in ("running", "unfinished", "stopped") and not pd.isna(row.final_step)
        return f"{row.status} @ {row.final_step}" if on_the_way else row.status

    mazes = ("valid", "shortest") if trials.final_valid.notna().any() else ()
    return [
        Column("arm", [row.arm for row in rows], number=False, key=True),
        Column("point", [row.point for row in rows], number=False, key=True),
        Column("status", [status(row) for row in rows], number=False, key=True),
        Column("seed", [str(row.seed) for row in rows], key=True),
        Column("initial", [_number(row.initial, ".4f") for row in rows]),
        Column("best @ step", ["" if pd.isna(row.best) else f"{row.best:.4f} @ {row.best_step}" for row in rows]),
        Column("final", [_number(row.final, ".4f") for row in rows]),
        Column("final cells", [_number(row.final_tokens, ".4f") for row in rows]),
        *(Column(f"final {kind}", [_number(getattr(row, f"final_{kind}"), ".4f") for row in rows]) for kind in mazes),
        Column("GFLOP a step", [_number(row.flops_per_step / 1e9, ".3g") for row in rows]),
        Column("minutes", [_number(row.minutes, ".1f") for row in rows]),
    ]


def _diagnoses(tables: SweepTables) -> list[Column]:
    """The last diagnosis of each trial."""
    last = tables.diagnostics.loc[
        tables.diagnostics.step == tables.diagnostics.groupby("trial_id").step.transform("max")
    ]
    of_trial = dict(iter(last.groupby("trial_id")))
    found = [
        (trial, outcome, of_trial[trial.trial_id], summary(of_trial[trial.trial_id], outcome))
        for trial in rows_of(tables.trials)
        if trial.trial_id in of_trial
        for outcome in judged_by(of_trial[trial.trial_id])
    ]
    trials, named, diagnosed, of = zip(*found, strict=True)
    return [
        Column("arm", [trial.arm for trial in trials], number=False, key=True),
        Column("point", [str(trial.point) for trial in trials], number=False, key=True),
        Column("seed", [str(trial.seed) for trial in trials], key=True),
        Column("solved is", [name if len(set(named)) > 1 else "" for name in named], number=False, key=True),
        Column("step", [str(rows.step.iloc[0]) for rows in diagnosed]),
        Column("puzzles", [str(one.n) for one in of]),
        Column("settled solved", [str(one.settled_solved) for one in of]),
        Column("failed", [str(one.settled_failed) for one in of]),
        Column("wandering solved", [str(one.wandering_solved) for one in of]),
        Column("failed", [str(one.wandering_failed) for one in of]),
        Column("lambda_1 solved", [_number(one.lambda_1_solved, "+.4f") for one in of]),
        Column("failed", [_number(one.lambda_1_failed, "+.4f") for one in of]),
        Column("positive modes", [f"{one.n_pos:.2f}" for one in of]),
        Column("AUC of -lambda_1", [_number(one.lambda_1_auc, ".3f") for one in of]),
        Column("95 %", [_interval(one.lambda_1_auc_low, one.lambda_1_auc_high) for one in of], number=False),
        Column("-late drift", [_number(one.late_drift_auc, ".3f") for one in of]),
        Column("95 %", [_interval(one.late_drift_auc_low, one.late_drift_auc_high) for one in of], number=False),
    ]


def _interval(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"{low:.3f} to {high:.3f}"


def _score(row: Any, value: float) -> str:
    return _number(value, {"share": ".4f", "modes": ".2f", "ACT steps": ".2f", "nats": ".2f"}.get(row.unit, "+.4f"))


def _probability(value: float) -> str:
    return "<0.001" if value < 0.001 else _number(value, ".3f")


def _number(value: float, how: str) -> str:
    return "" if pd.isna(value) else format(value, how)

"""A diagnosis as a person reads it in a terminal: what failed, how, and whether more compute or a restart frees it."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from results import diagnosis
from results.layout import Column, lines, paragraph
from results.metrics import RIGHT
from results.rows import rows_of

_MEASURES: dict[str, str] = {"-late_lambda_1": "-lambda_1, first eighth left out", "-late_drift": "-late drift"}
_MEASURES |= {"-spectral_mean": "-spectral mean", "-positive_sum": "-sum of the positive"}


def told(tables: dict[str, pd.DataFrame], width: int) -> str:
    """The tables of one diagnosis, by name (results.diagnosis_schema), in words and numbers: lines of `width`."""
    examples = tables["diagnostics"]
    outcomes = diagnosis.judged_by(examples)
    first = rows_of(examples)[0]
    right: Any = examples[outcomes].sum()
    words = {"solved": "solved"} if len(outcomes) == 1 else RIGHT
    counts = ", ".join(f"{right[name]} {words[name]}" for name in outcomes)
    about = f"{len(examples)} test puzzles, {counts}; {first.act_steps} ACT steps of {first.sub_updates} latent updates"
    parts = [*paragraph(about, width)]
    for name in outcomes:
        parts += ["", *_two_by_two(examples, name, "" if len(outcomes) == 1 else f"; solved: {RIGHT[name]}", width)]
    parts += ["", *_areas(tables, outcomes, width)]
    for name in outcomes:
        more = "" if len(outcomes) == 1 else f"; solved: {RIGHT[name]}"
        parts += [line for part in _more(tables, name, more, width) for line in ("", *part)]
    if "robustness" in tables:
        parts += ["", *_robustness(tables["robustness"], width)]
    return "\n".join(parts)


def _two_by_two(examples: pd.DataFrame, outcome: str, more: str, width: int) -> list[str]:
    cells = rows_of(diagnosis.two_by_two(examples, outcome=outcome))
    k = len(examples.exponents.iloc[0])
    threshold = number(float(examples.drift_threshold.astype(float).iloc[0]), ".3g")
    settled = f"late drift below {threshold}, Otsu's threshold" if threshold else "of one puzzle no threshold is known"
    columns = [
        Column("", [_cell(cell) for cell in cells], number=False, key=True),
        Column("puzzles", [str(cell.n) for cell in cells]),
        Column("share", [f"{cell.share:.0%}" for cell in cells]),
        Column("lambda_1", [number(cell.lambda_1, "+.4f") for cell in cells]),
        *([Column(f"lambda_{k}", [number(cell.lambda_k, "+.4f") for cell in cells])] if k > 1 else []),
        Column("late drift", [number(cell.late_drift, ".3g") for cell in cells]),
        Column("cells right", [number(cell.token_accuracy, ".1%") for cell in cells]),
        Column("halts at", [number(cell.halt_step, "g") for cell in cells]),
        Column("q_halt", [number(cell.q_halt, "+.1f") for cell in cells]),
        *(
            Column(name.replace("_", " "), [number(getattr(cell, name), "g") for cell in cells])
            for name in diagnosis.HARD
        ),
    ]
    title = f"Settled and solved, medians of each cell (settled: {settled}{more})"
    found = [*paragraph(title, width), *lines(columns, width)]
    for row in rows_of(diagnosis.smallest_failure(examples, outcome=outcome)):
        said = (
            f"The failure that drifts least, {row.late_drift:.3g}: {row.below:.0%} of the solved drift less "
            f"(their median {row.solved_median:.3g}, largest {row.solved_max:.3g})"
        )
        found += paragraph(said, width)
    return found


def _cell(cell: Any) -> str:
    return f"{'settled' if cell.settled else 'wandering'}, {'solved' if cell.solved else 'failed'}"


def _areas(tables: dict[str, pd.DataFrame], outcomes: list[str], width: int) -> list[str]:
    """The AUCs, a column an outcome."""
    found = {name: rows_of(diagnosis.auc(tables["diagnostics"], tables["windows"], outcome=name)) for name in outcomes}
    outcomes = [name for name in outcomes if any(not math.isnan(row.auc) for row in found[name])]
    if not outcomes:
        return paragraph("No AUC: all puzzles are solved, or all failed", width)
    rows = found[outcomes[0]]
    names = [
        f"{_MEASURES.get(row.measure, row.measure)}{'' if row.window == 'all' else f', {row.window}'}" for row in rows
    ]
    columns = [Column("AUC, 95 % interval", names, number=False, key=True)]
    for name in outcomes:
        columns.append(Column(name, [area(row) for row in found[name]], number=False))
    return ["How well it tells the solved from the failed", *lines(columns, width)]


def area(row: Any) -> str:
    """An AUC with its interval."""
    return "none" if math.isnan(row.auc) else f"{row.auc:.3f} [{row.low:.3f}, {row.high:.3f}]"


def _more(tables: dict[str, pd.DataFrame], outcome: str, more: str, width: int) -> Iterator[list[str]]:
    """What the tables have beside: deciles, difficulty, far depths, restarts."""
    examples = tables["diagnostics"]
    deciles = [row for row in rows_of(diagnosis.by_decile(examples, outcome=outcome)) if not math.isnan(row.auc)]
    if len(deciles) > 1:
        ranges = [f"{row.drift_from:.3g} to {row.drift_to:.3g}" for row in deciles]
        columns = [Column("late drift", ranges, number=False, key=True), *_counted(deciles)]
        yield [
            *paragraph(f"AUC of -lambda_1 among the unsettled, by deciles of late drift{more}", width),
            *lines(columns, width),
        ]
    bins = rows_of(diagnosis.by_difficulty(examples, outcome=outcome))
    if bins:
        columns = [
            Column(bins[0].measure.replace("_", " "), [f"{row.difficulty:.3g}" for row in bins], key=True),
            Column("settled", [f"{row.settled:.0%}" for row in bins]),
            Column("lambda_1", [f"{row.lambda_1:+.4f}" for row in bins]),
            *_counted(bins),
        ]
        yield [*paragraph(f"By difficulty, in bins of about as many puzzles{more}", width), *lines(columns, width)]
    for row in rows_of(diagnosis.fates(examples, outcome=outcome)):
        yield _fates(tables, row, outcome, more, width)
    if "restarts" in tables:
        rows = rows_of(diagnosis.restarts(tables["restarts"], examples, outcome=outcome))
        yield _restarts(rows, more, width)


def _counted(rows: list[Any]) -> list[Column]:
    return [
        Column("puzzles", [str(row.n) for row in rows]),
        Column("solved", [f"{row.n_solved / row.n:.0%}" for row in rows]),
        Column("AUC of -lambda_1", [area(row) for row in rows], number=False),
    ]


def _fates(tables: dict[str, pd.DataFrame], row: Any, outcome: str, more: str, width: int) -> list[str]:
    examples = tables["diagnostics"]
    depth, trained = int(examples.depth.max()), int(examples.act_steps.max())
    curve = {int(at.depth): at for at in rows_of(diagnosis.escape(tables["depths"], examples, outcome=outcome))}
    shown = doublings(trained, depth)
    half = (
        "none escapes"
        if math.isinf(row.half_life)
        else f"half-life {row.half_life:.3g} ACT steps [{row.low:.3g}, {row.high:.3g}]"
    )
    failed = (
        f"Of the {row.failed} failed after {trained}: {row.escaped} have escaped after {depth} ({half}), "
        f"{row.moving} are still moving, {row.settled_wrong} have settled wrong"
    )
    failed = failed if row.failed else f"None failed after {trained}"
    said = f"{failed}; of the {row.n - row.failed} solved, {row.lost} are lost after {depth}"
    columns = [
        Column("ACT steps", [str(at) for at in shown], key=True),
        Column("solved", [f"{curve[at].solved:.1%}" for at in shown]),
        Column("of the failed", [number(curve[at].escaped, ".1%") for at in shown]),
        Column("drift, solved", [number(curve[at].drift_solved, ".3g") for at in shown]),
        Column("drift, failed", [number(curve[at].drift_failed, ".3g") for at in shown]),
    ]
    return [*paragraph(f"Far past training{more}", width), *paragraph(said, width), *lines(columns, width)]


def _restarts(rows: list[Any], more: str, width: int) -> list[str]:
    title = f"Restarts of the failed from z0 + sigma xi{more}"
    if not rows:
        return [*paragraph(title, width), "none: every puzzle is solved"]
    columns = [
        Column("sigma", [f"{row.sigma:g}" for row in rows], key=True),
        Column("puzzles", [str(row.puzzles) for row in rows]),
        Column("restarts", [str(row.restarts) for row in rows]),
        Column("solve it", [f"{row.share:.1%}" for row in rows]),
        Column("puzzles some restart solves", [f"{row.some:.0%} [{row.low:.0%}, {row.high:.0%}]" for row in rows]),
        Column("every", [f"{row.all:.0%}" for row in rows]),
    ]
    return [*paragraph(title, width), *lines(columns, width)]


def _robustness(table: pd.DataFrame, width: int) -> list[str]:
    rows = rows_of(diagnosis.robustness(table))
    columns = [
        Column("lambda_1 with", [row.variation for row in rows], number=False, key=True),
        Column("puzzles", [str(row.n) for row in rows]),
        Column("largest change", [f"{row.largest:.2g}" for row in rows]),
        Column("mean", [f"{row.mean:.2g}" for row in rows]),
        Column("rank correlation", [number(row.order, ".3f") for row in rows]),
    ]
    return ["Robustness of the estimator, nats a sub-update", *lines(columns, width)]


def doublings(first: int, last: int) -> list[int]:
    """From the first number, twice as large each time, to the last."""
    return [at for at in (first * 2**i for i in range(last.bit_length())) if at < last] + [last]


def number(value: float, how: str) -> str:
    """A number as text; nothing where there is none."""
    return "" if pd.isna(value) else format(value, how)

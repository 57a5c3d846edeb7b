"""The tables as a person reads them in a terminal."""

import pandas as pd
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from results.curves import snapshot
from results.diagnostics import summary
from results.gather import SweepTables
from results.rows import counted, rows_of
from results.signals import verdicts

# The metrics of the comparison that a terminal has room for; the table holds all.
_METRICS = {
    "final": "clean, final",
    "best": "clean, best on validation",
    "equal_compute": "clean, equal compute",
    "perturbed": "perturbed, sigma {:g}",
    "perturbed_all": "every rollout, sigma {:g}",
    "positive_modes": "positive modes",
}


def show(tables: SweepTables) -> Group:
    """The sweep's trials, its comparison, what could not be read, and the files that were written."""
    trials = snapshot(tables.trials, tables.evals)
    headline = Text(f"{tables.sweep}: {len(trials)} trials, {counted(trials.status)}\n")
    parts: list[RenderableType] = [headline, _trials_table(trials)]
    parts += [Text(line, style="red") for line in _failures(trials)]
    parts += [Text(f"left out: {problem}", style="yellow") for problem in tables.problems]
    if len(tables.diagnostics):
        parts += [Text(), _diagnostics_table(tables)]
    parts.append(Text())
    if len(tables.comparison):
        parts += [_comparison_table(tables.comparison, tables.baseline), *_footnotes(tables.comparison), Text()]
        parts += [Text(line) for line in _verdicts(tables.comparison)] + [Text()]
    else:
        parts.append(Text(f"No comparison yet: no seed is done in both {tables.baseline} and another arm.\n"))
    return Group(*parts, "Written:", *(Text(f"  {path}") for path in tables.files))


def _failures(trials: pd.DataFrame) -> list[str]:
    failed = trials.loc[trials.status == "failed"]
    return [f"{' '.join(filter(None, (t.arm, t.point)))} seed={t.seed} failed: {t.reason}" for t in rows_of(failed)]


def _trials_table(trials: pd.DataFrame) -> Table:
    has_points = trials.point.any()
    table = Table(box=None, pad_edge=False, header_style="bold", title="Exact accuracy on test", title_justify="left")
    for heading in ("arm", *(["point"] if has_points else []), "status"):
        table.add_column(heading)
    table.add_column("seed", justify="right")
    mazes = ("valid", "shortest") if trials.final_valid.notna().any() else ()
    for heading in ("initial", "best @ step", "final", "final cells", *(f"final {kind}" for kind in mazes)):
        table.add_column(heading, justify="right")
    for heading in ("GFLOP a step", "minutes"):
        table.add_column(heading, justify="right")
    for row in rows_of(trials):
        best = "" if pd.isna(row.best) else f"{row.best:.4f} @ {row.best_step}"
        on_the_way = row.status in ("running", "unfinished", "stopped") and not pd.isna(row.final_step)
        status = f"{row.status} @ {row.final_step}" if on_the_way else row.status
        cells = [
            row.arm,
            *([escape(row.point)] if has_points else []),
            status,
            str(row.seed),
            _share(row.initial),
            best,
        ]
        judged = [_share(getattr(row, f"final_{kind}")) for kind in mazes]
        cost = _number(row.flops_per_step / 1e9, ".3g"), _number(row.minutes, ".1f")
        table.add_row(*cells, _share(row.final), _share(row.final_tokens), *judged, *cost)
    return table


def _diagnostics_table(tables: SweepTables) -> Table:
    """The last diagnosis of each trial."""
    title = "Lyapunov exponents on test, nats a sub-update"
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    table.add_column("arm")
    for heading in (
        "seed",
        "step",
        "puzzles",
        "solved",
        "lambda_1 solved",
        "failed",
        "positive modes",
        "settled",
        "AUC of -lambda_1",
        "-late drift",
    ):
        table.add_column(heading, justify="right")
    for trial in rows_of(tables.trials):
        rows = tables.diagnostics.loc[tables.diagnostics.trial_id == trial.trial_id]
        rows = rows.loc[rows.step == rows.step.max()]
        if len(rows):
            found = summary(rows)
            lambdas = (_number(value, "+.4f") for value in (found.lambda_1_solved, found.lambda_1_failed))
            counts = (str(n) for n in (trial.seed, rows.step.iloc[0], len(rows), found.solved))
            aucs = (_number(value, ".3f") for value in (found.lambda_1_auc, found.late_drift_auc))
            table.add_row(trial.arm, *counts, *lambdas, f"{found.n_pos:.2f}", f"{found.settled:.0%}", *aucs)
    return table


def _comparison_table(comparison: pd.DataFrame, baseline: str) -> Table:
    has_points = comparison.point.any()
    title = f"Against {baseline}, test puzzles, 95 % intervals"
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for heading in ("arm", *(["point"] if has_points else []), "metric"):
        table.add_column(heading)
    for heading in (baseline, "arm", "difference", "interval", "p (Holm)", "paired by", "compute"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    trained = comparison.depth.min()
    for row in rows_of(comparison.loc[comparison.metric.isin(list(_METRICS))]):
        deeper = f", {row.depth} ACT steps" if row.depth > trained else ""
        table.add_row(
            row.arm,
            *([escape(row.point)] if has_points else []),
            _METRICS[row.metric].format(row.sigma) + deeper,
            _share(row.baseline_mean),
            _share(row.arm_mean),
            _number(row.difference, "+.4f"),
            "" if pd.isna(row.low) else f"{row.low:+.4f} to {row.high:+.4f}",
            "<0.001" if row.p_holm < 0.001 else _number(row.p_holm, ".3f"),
            "" if pd.isna(row.paired_by) else row.paired_by,
            "" if pd.isna(row.compute_ratio) else f"{row.compute_ratio:.1f}x",
            row.verdict,
        )
    return table


def _verdicts(comparison: pd.DataFrame) -> list[str]:
    return [f"{' '.join(filter(None, (row.arm, row.point)))}: {row.verdict}" for row in rows_of(verdicts(comparison))]


def _footnotes(comparison: pd.DataFrame) -> list[str]:
    if not (comparison.paired_by == "example").any():
        return []
    return [
        "Paired by example: the interval is over test puzzles, for these training runs only. Another seed may differ",
        "by more; six paired seeds or more give an interval over training runs, and a verdict.",
    ]


def _share(value: float) -> str:
    return _number(value, ".4f")


def _number(value: float, how: str) -> str:
    return "" if pd.isna(value) else format(value, how)

"""Baseline against arms, paired by seed: tables in, tables out."""

from typing import Any

import numpy as np
import pandas as pd

from results.schema import COMPARISON_SCHEMA
from results.stats import paired_by_example, paired_by_seed

SNAPSHOT_COLUMNS = (
    *("arm", "point", "seed", "status", "reason", "initial", "best", "best_step"),
    *("final", "final_step", "final_tokens", "minutes"),
)
SEEDS_NEEDED = 6  # with five pairs the exact sign-flip p-value cannot go below 0.0625 (SPEC.md, E)


def snapshot(trials: pd.DataFrame, evals: pd.DataFrame) -> pd.DataFrame:
    """A row a trial: clean exact accuracy on test at the start, at the best step and at the end.

    Columns arm, point (those of a shared trial joined), seed, status, reason, initial, best, best_step, final,
    final_step, final_tokens, minutes. The best step is chosen on validation (the earliest of equals) and scored on
    test. Accuracies are missing where a trial has no evaluation; `final` is the last one, whether or not the trial is
    done; final_tokens is the share of cells that are right then, givens included.
    """
    rows = []
    for trial in rows_of(trials):
        clean = evals.loc[(evals.trial_id == trial.trial_id) & (evals.sigma == 0)]
        test = clean.loc[clean.split == "test"].set_index("step").exact_accuracy.sort_index()
        tokens = clean.loc[clean.split == "test"].set_index("step").token_accuracy.sort_index()
        best_step = _best_step(clean)
        minutes = (trial.train_seconds + trial.evaluate_seconds) / 60
        rows.append(
            {
                "arm": trial.arm,
                "point": ", ".join(trial.points),
                "seed": trial.seed,
                "status": trial.status,
                "reason": trial.reason,
                "initial": test.iloc[0] if len(test) else np.nan,
                "best": np.nan if best_step is None else test[best_step],
                "best_step": best_step,
                "final": test.iloc[-1] if len(test) else np.nan,
                "final_step": test.index[-1] if len(test) else None,
                "final_tokens": tokens.iloc[-1] if len(test) else np.nan,
                "minutes": minutes,
            }
        )
    return pd.DataFrame(rows, columns=SNAPSHOT_COLUMNS).astype({"best_step": "Int64", "final_step": "Int64"})


def compare(trials: pd.DataFrame, evals: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """A row an arm, grid point and metric, against the baseline at the same grid point (results.schema, COMPARISON).

    Only seeds that both arms finished count. With six pairs or more the interval is over seeds; with fewer it is over
    the test examples, given these runs, and the verdict says "too few seeds". Arms that were scored on other test
    puzzles than the baseline's have one row that says so.
    """
    done = trials.loc[trials.status == "done"].explode(column="points").assign(point=lambda table: table.points)
    rows: list[dict[str, Any]] = []
    for arm, point in done.loc[done.arm != baseline, ["arm", "point"]].drop_duplicates().to_numpy():
        mine = done[(done.arm == arm) & (done.point == point)]
        theirs = done[(done.arm == baseline) & (done.point == point)]
        pairs = mine.merge(theirs, on="seed", suffixes=("", "_baseline")).sort_values("seed")
        if len(pairs):
            common = {"sweep": mine.sweep.iloc[0], "arm": arm, "baseline": baseline, "point": point}
            rows += [common | row for row in _compare_pairs(pairs, evals)]
    comparison = pd.DataFrame(rows, columns=COMPARISON_SCHEMA.names)
    return comparison.astype(dict.fromkeys(("n_seeds", "n_examples"), "Int64"))


def _best_step(clean: pd.DataFrame) -> int | None:
    validation = clean.loc[clean.split == "validation"].set_index("step").exact_accuracy.sort_index()
    return int(validation.idxmax()) if len(validation) else None


def _compare_pairs(pairs: pd.DataFrame, evals: pd.DataFrame) -> list[dict[str, Any]]:
    by_trial = dict(iter(evals.groupby("trial_id")))
    scored = [(_scores(by_trial[pair.trial_id_baseline]), _scores(by_trial[pair.trial_id])) for pair in rows_of(pairs)]
    comparable = (pairs.test_digest == pairs.test_digest_baseline).all() and pairs.test_digest.nunique() == 1
    if not comparable:
        return [
            {"metric": "final", "sigma": 0.0, "n_seeds": len(pairs), "verdict": "not comparable: other test puzzles"}
        ]
    compute = [
        by_trial[pair.trial_id].act_steps.max() / by_trial[pair.trial_id_baseline].act_steps.max()
        for pair in rows_of(pairs)
    ]
    rows = []
    metrics = [key for key in scored[0][0] if all(key in scores for pair in scored for scores in pair)]
    for metric, sigma in metrics:
        # [seeds, examples]: the share of rollouts that solve each example
        base, arm = (np.stack([pair[side][metric, sigma] for pair in scored]) for side in (0, 1))
        by_seed = len(pairs) >= SEEDS_NEEDED
        if by_seed:
            effect = paired_by_seed(arm.mean(axis=1) - base.mean(axis=1))
        else:
            effect = paired_by_example((arm - base).mean(axis=0))
        rows.append(
            {
                "metric": metric,
                "sigma": sigma,
                "n_seeds": len(pairs),
                "n_examples": base.shape[1],
                "baseline_mean": base.mean(),
                "arm_mean": arm.mean(),
                "difference": effect.mean,
                "low": effect.low,
                "high": effect.high,
                "p": effect.p,
                "paired_by": "seed" if by_seed else "example",
                "compute_ratio": float(np.mean(compute)),
                "verdict": _verdict(effect.low, effect.high, effect.p, len(pairs)),
            }
        )
    return rows


def _scores(evals: pd.DataFrame) -> dict[tuple[str, float], np.ndarray]:
    """(metric, sigma) -> score of each test example [n] of one trial."""
    last = evals.loc[(evals.split == "test") & (evals.step == evals.step.max())]
    scores = {}
    for row in rows_of(last.sort_values(by="sigma")):
        solved = unpack_correct(row.correct, row.n, row.rollouts)
        if row.sigma == 0:
            scores["final", 0.0] = solved[:, 0].astype(float)
            scores["best", 0.0] = _best_scores(evals)
        else:
            scores["perturbed", row.sigma] = solved.mean(axis=1)
            scores["perturbed_all", row.sigma] = solved.all(axis=1).astype(float)
    return scores


def _best_scores(evals: pd.DataFrame) -> np.ndarray:
    clean = evals.loc[evals.sigma == 0]
    best = clean.loc[(clean.split == "test") & (clean.step == _best_step(clean))].iloc[0]
    return unpack_correct(best.correct, best.n, best.rollouts)[:, 0].astype(float)


def rows_of(frame: pd.DataFrame) -> list[Any]:
    """The rows of a table as named tuples."""
    return list(frame.itertuples(index=False))


def unpack_correct(bits: bytes, n: int, rollouts: int) -> np.ndarray:
    """The evals table's `correct` as bool [n, rollouts]."""
    flat = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=n * rollouts)
    return flat.reshape(n, rollouts).astype(bool)


def _verdict(low: float, high: float, p: float, n_seeds: int) -> str:
    if n_seeds < SEEDS_NEEDED:
        return f"too few seeds ({n_seeds} of {SEEDS_NEEDED})"
    if p < 0.05 and low > 0:
        return "above baseline"
    if p < 0.05 and high < 0:
        return "below baseline"
    return "no difference shown"

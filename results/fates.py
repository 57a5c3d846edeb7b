"""What becomes of the puzzles that failed: with more ACT steps, and from other starts; and whether to trust it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import betaincinv

from results.diagnosed import DIAGNOSIS, groups, judged, known, mean, with_outcome
from results.stats import ALPHA, NAN, wilson

_FATES = ("n", "failed", "escaped", "moving", "settled_wrong", "lost", "half_life", "low", "high")
_ESCAPE = ("n", "solved", "failed", "escaped", "kept", "drift_solved", "drift_failed")
_RESTARTS = ("sigma", "puzzles", "restarts", "share", "some", "low", "high", "all")


def escape(
    depths: pd.DataFrame, diagnostics: pd.DataFrame, *, outcome: str = "solved", by: Sequence[str] = DIAGNOSIS
) -> pd.DataFrame:
    """What more ACT steps than in training do: a row a diagnosis and depth.

    Columns of `by`, depth (ACT steps), n, solved (share that is right after so many), failed (puzzles that are wrong
    after as many steps as in training), escaped (the share of them that is right after so many), kept (the share of
    the others that still is), and drift_solved and drift_failed, median drift in this ACT step of those that are right
    and wrong after as many as in training.
    """
    found = []
    of_run: Any = diagnostics[[*known(diagnostics, DIAGNOSIS), "example", "act_steps"]]
    mine = with_outcome(judged(depths, outcome), of_run)
    keys = [*known(mine, DIAGNOSIS), "example"]
    trained = mine.loc[mine.depth == mine.act_steps, [*keys, "outcome"]].rename(columns={"outcome": "before"})
    for at, rows in groups(mine.merge(trained, on=keys), (*by, "depth")):
        right, before = rows.outcome.to_numpy(bool), rows.before.to_numpy(bool)
        drift = rows.drift.to_numpy(float)
        row = {"n": len(rows), "solved": mean(right), "failed": int((~before).sum())}
        row |= {"escaped": mean(right[~before]), "kept": mean(right[before])}
        of_drift = {"drift_solved": _middle(drift[before]), "drift_failed": _middle(drift[~before])}
        found.append(at | row | of_drift)
    return pd.DataFrame(found, columns=[*known(mine, by), "depth", *_ESCAPE])


def fates(diagnostics: pd.DataFrame, *, outcome: str = "solved", by: Sequence[str] = DIAGNOSIS) -> pd.DataFrame:
    """What has become of the failed far past training, and how fast they escape: a row a diagnosis.

    Columns of `by`, n, failed (after as many ACT steps as in training), and of these: escaped (right at the end, from
    some step on), moving and settled_wrong (wrong at the end, and drifting or not); lost (puzzles that were solved and
    are wrong at the end); half_life, in ACT steps, of a failure that may escape at every step with the same
    probability p: -ln 2 / ln(1 - p), p the escapes over all steps that were tried; low and high, its 95 % interval,
    from Clopper and Pearson's of p (Biometrika 26, 1934). It is inf where none escapes.
    """
    found = []
    have = diagnostics.loc[diagnostics.depth.notna()] if "depth" in diagnostics else diagnostics.iloc[:0]
    for at, mine in groups(judged(have, outcome), by) if len(have) else ():
        since = mine[f"{outcome}_from"].to_numpy(dtype=float, na_value=NAN)
        trained, depth = mine.act_steps.to_numpy(float), mine.depth.to_numpy(float)
        right_then, right_at_last = mine.outcome.to_numpy(bool), ~np.isnan(since)
        failed = ~right_then
        # One that was right when training stops may lose its answer and find it again: that is no escape.
        escaped = failed & right_at_last
        tried = np.where(escaped, np.maximum(since - trained, 1), depth - trained)[failed].sum()
        settled = mine.far_settled.to_numpy(bool)
        row = {
            "n": len(mine),
            "failed": int(failed.sum()),
            "escaped": int(escaped.sum()),
            "moving": int((failed & ~escaped & ~settled).sum()),
            "settled_wrong": int((failed & ~escaped & settled).sum()),
            "lost": int((right_then & ~right_at_last).sum()),
        }
        found.append(at | row | _half_life(int(escaped.sum()), int(tried)))
    return pd.DataFrame(found, columns=[*known(diagnostics, by), *_FATES])


def restarts(
    restarts: pd.DataFrame, diagnostics: pd.DataFrame, *, outcome: str = "solved", by: Sequence[str] = DIAGNOSIS
) -> pd.DataFrame:
    """Whether other starts free the failed: a row a diagnosis and sigma.

    Columns of `by`, sigma, puzzles (that the clean run fails; in each of several runs), restarts (of each), share (of
    all restarts that solve their puzzle), some (share of the puzzles that a restart solves: those depend on their
    start; the others fail by their input), with low and high, Wilson's 95 % interval over puzzles (JASA 22, 1927; one
    that several runs fail counts once), and all (share that every restart solves).
    """
    found = []
    if not len(restarts):
        return pd.DataFrame(found, columns=[*known(restarts, by), *_RESTARTS])
    keys = [*known(restarts, DIAGNOSIS), "example"]
    failed = judged(diagnostics, outcome)
    failed = failed.loc[~failed.outcome]
    more = [name for name in by if name in failed and name not in restarts]
    mine = judged(restarts, outcome).merge(failed[[*keys, *more]], on=keys)
    for at, rows in groups(mine, (*by, "sigma")):
        of_puzzle = rows.groupby(keys, dropna=False, sort=False).outcome.agg(["mean", "any", "all", "size"])
        n, some = len(of_puzzle), int(of_puzzle["any"].sum())
        distinct = rows.example.nunique()
        low, high = wilson(round(some / n * distinct), distinct)
        row = {"puzzles": n, "restarts": int(of_puzzle["size"].max()), "share": float(of_puzzle["mean"].mean())}
        row |= {"some": some / n, "low": low, "high": high, "all": float(of_puzzle["all"].mean())}
        found.append(at | row)
    return pd.DataFrame(found, columns=[*known(mine, by), *_RESTARTS])


def robustness(robustness: pd.DataFrame, *, by: Sequence[str] = DIAGNOSIS) -> pd.DataFrame:
    """How much lambda_1 depends on how it is estimated: a row a diagnosis and variation.

    Columns of `by`, variation, n, largest and mean (absolute change of lambda_1 over examples), and order (Spearman's
    rank correlation with the usual estimate; nan where all are equal).
    """
    found = []
    for at, rows in groups(robustness, (*by, "variation")) if len(robustness) else ():
        change = (rows.lambda_1 - rows.usual_lambda_1).abs()
        differ = min(rows.lambda_1.nunique(), rows.usual_lambda_1.nunique()) > 1
        order = rows.lambda_1.corr(rows.usual_lambda_1, method="spearman") if differ else NAN
        found.append(at | {"n": len(rows), "largest": change.max(), "mean": change.mean(), "order": order})
    return pd.DataFrame(found, columns=[*known(robustness, by), "variation", "n", "largest", "mean", "order"])


def _half_life(escapes: int, tried: int) -> dict[str, float]:
    if not tried:
        return {"half_life": NAN, "low": NAN, "high": NAN}
    fewest = float(betaincinv(escapes, tried - escapes + 1, ALPHA / 2)) if escapes else 0.0
    most = float(betaincinv(escapes + 1, tried - escapes, 1 - ALPHA / 2)) if escapes < tried else 1.0
    return {"half_life": _halved(escapes / tried), "low": _halved(most), "high": _halved(fewest)}


def _halved(p: float) -> float:
    """ACT steps until half have escaped, of those that do with probability p at each."""
    if p <= 0:
        return math.inf
    return 0.0 if p >= 1 else math.log(2) / -math.log1p(-p)


def _middle(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else NAN

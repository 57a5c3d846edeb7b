"""Baseline against arms, paired by seed: tables in, tables out."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from results.curves import snapshot
from results.rows import by_trial, rows_of
from results.schema import COMPARISON_SCHEMA, METRICS
from results.scores import BINARY, equal_compute, scores
from results.stats import (
    ALPHA,
    detectable,
    holm,
    iqm,
    mcnemar,
    paired_by_example,
    paired_by_seed,
    probability_of_improvement,
    seeds_needed,
)

SEEDS_NEEDED = seeds_needed()
MARGIN = 0.02  # clean accuracy has regressed if the whole interval of the difference lies below minus this
CLEAN = ("final", "last_k", "best", "equal_compute")
NOT_COMPARABLE = "not comparable: other test puzzles"
_NOISE = ("train_sigma", "noise_rms_z_H", "noise_rms_z_L")
_EVALUATED = (
    *("trial_id", "step", "optimizer_steps", "act_steps", *_NOISE, "split", "sigma", "depth", "rollouts", "n"),
    *("exact_accuracy", "correct", "best_q_correct", "majority_correct"),
)
_DIAGNOSED = ("trial_id", "step", "example", "n_pos", "lambda_1")
_INTEGERS = (
    *("rollouts", "depth", "n_seeds", "n_left_out", "n_examples", "comparisons", "seeds_needed"),
    *("collapsed", "baseline_collapsed", "parameters"),
)


def compare(
    trials: pd.DataFrame, evals: pd.DataFrame, diagnostics: pd.DataFrame | None = None, *, baseline: str
) -> pd.DataFrame:
    """A row an arm, grid point and metric, against the baseline at the same grid point (results.schema, COMPARISON).

    Only seeds that both arms finished count. Where others failed, or the sweep's scheduler stopped them early, those
    left are selected by how they did: no verdict. With six pairs or more the interval is over seeds; with fewer it is
    over the test examples, given these runs. Holm's correction is over the arms, grid points and sigmas of one metric,
    model, task and depth; where the sign-flip test cannot reach 5 % after it, the verdict says "too few seeds". Arms
    that were scored on other test puzzles than the baseline's have one row that says so. Of several sweeps, each is
    compared by itself.
    """
    rows: list[dict[str, Any]] = []
    for _, of_sweep in trials.groupby("sweep", sort=False):
        rows += _of_sweep(of_sweep, evals, diagnostics, baseline)
    _judge(rows)
    return pd.DataFrame(rows, columns=COMPARISON_SCHEMA.names).astype(dict.fromkeys(_INTEGERS, "Int64"))


def _of_sweep(
    trials: pd.DataFrame, evals: pd.DataFrame, diagnostics: pd.DataFrame | None, baseline: str
) -> list[dict[str, Any]]:
    """The rows of one sweep, whose trials are given. Another may have the same trials, of other lengths."""
    name, done, lost = trials.sweep.iloc[0], trials.loc[trials.status == "done"], _lost_seeds(trials)
    of_done: Any = evals.loc[(evals.sweep == name) & evals.trial_id.isin(done.trial_id)]
    done = done.merge(snapshot(done, of_done)[["trial_id", "collapsed", "minutes"]], on="trial_id")
    done = done.explode("points").rename(columns={"points": "point"})
    evals_of, diagnosed = by_trial(_read(of_done)), {}
    if diagnostics is not None and len(diagnostics):
        diagnosed = by_trial(diagnostics.loc[diagnostics.sweep == name, list(_DIAGNOSED)])
    baselines, known = done.loc[done.arm == baseline], {}
    rows: list[dict[str, Any]] = []
    places = ["sweep", "point", "seed"]
    for (sweep, arm, point), mine in done.loc[done.arm != baseline].groupby(["sweep", "arm", "point"], sort=False):
        # A seed that stood twice would count as two.
        pairs = mine.merge(baselines, on=places, suffixes=("", "_baseline"), validate="one_to_one").sort_values("seed")
        if len(pairs) == 0:
            continue
        left_out = {seed for side in (arm, baseline) for seed in lost.get((side, point), ())}
        common = {"sweep": sweep, "arm": arm, "baseline": baseline, "point": point}
        common |= {"n_seeds": len(pairs), "n_left_out": len(left_out)}
        if pairs.test_digest.isna().any() or set(pairs.test_digest) != set(pairs.test_digest_baseline):
            rows.append(common | {"metric": "final", "unit": "share", "depth": 0, "verdict": NOT_COMPARABLE})
            continue
        for trial_id in {*pairs.trial_id, *pairs.trial_id_baseline} - set(known):
            known[trial_id] = scores(evals_of[trial_id], diagnosed.get(trial_id, []))
        common |= _facts(pairs, [evals_of[trial_id] for trial_id in pairs.trial_id])
        scored = [(known[pair.trial_id_baseline], known[pair.trial_id]) for pair in rows_of(pairs)]
        rows += [common | row for row in _effects(_with_equal_compute(pairs, scored, evals_of))]
    return rows


def _lost_seeds(trials: pd.DataFrame) -> dict[tuple[str, str], set[int]]:
    """(arm, point) -> the seeds of which the trial failed, or the scheduler stopped it early, in one sweep."""
    found: dict[tuple[str, str], set[int]] = {}
    for trial in rows_of(trials.loc[trials.status.isin(["failed", "stopped"])]):
        for point in trial.points:
            found.setdefault((trial.arm, point), set()).add(trial.seed)
    return found


def _facts(pairs: pd.DataFrame, evals: list[list[Any]]) -> dict[str, Any]:
    """What an arm is and costs, the same for all its metrics."""
    first, flops = pairs.iloc[0], pairs.steps * pairs.flops_per_step
    perturb = json.loads(str(first.config)).get("perturb")
    return {
        **{name: first[name] for name in ("model", "task", "objective", "rollout", "rollouts", "parameters")},
        "perturb": json.dumps(perturb) if perturb else None,
        **{name: _mean(getattr(row, name) for rows in evals for row in rows) for name in _NOISE},
        "optimizer_steps": _mean(max(row.optimizer_steps for row in rows) for rows in evals),
        "act_steps": _mean(max(row.act_steps for row in rows) for rows in evals),
        "collapsed": pairs.collapsed.sum(),
        "baseline_collapsed": pairs.collapsed_baseline.sum(),
        "flops": flops.mean(),
        "compute_ratio": (flops / (pairs.steps_baseline * pairs.flops_per_step_baseline)).mean(),
        "device_hours": pairs.device_hours.mean(),
        "baseline_device_hours": pairs.device_hours_baseline.mean(),
        "minutes": pairs.minutes.mean(),
        "baseline_minutes": pairs.minutes_baseline.mean(),
        "commit": ", ".join(sorted(set(pairs.commit.dropna()))) or None,
        "data_digest": first.data_digest,
    }


def _with_equal_compute(pairs: pd.DataFrame, scored: list[Any], evals_of: dict[str, list[Any]]) -> list[Any]:
    """The scores of each pair, and those at equal compute where both sides' FLOPs are known."""
    both = []
    for pair, (base, arm) in zip(rows_of(pairs), scored, strict=True):
        ratio = pair.steps * pair.flops_per_step / (pair.steps_baseline * pair.flops_per_step_baseline)
        if ratio > 0:
            base = base | equal_compute(evals_of[pair.trial_id_baseline], min(1, ratio))
            arm = arm | equal_compute(evals_of[pair.trial_id], min(1, 1 / ratio))
        both.append((base, arm))
    return both


def _effects(scored: list[tuple[dict[Any, np.ndarray], dict[Any, np.ndarray]]]) -> list[dict[str, Any]]:
    """A row a metric that every trial of the pairs has: (baseline's scores, arm's scores) of each seed."""
    rows = []
    order = list(METRICS)
    for key in sorted(scored[0][0], key=lambda key: (order.index(key[0]), key[1:])):
        if not all(key in side and len(side[key]) == len(scored[0][0][key]) for pair in scored for side in pair):
            continue
        metric, sigma, depth = key
        base, arm = (np.stack([pair[side][key] for pair in scored]) for side in (0, 1))  # [seeds, examples]
        over_examples = np.median if metric == "lambda_1" else np.mean
        base_seeds, arm_seeds = over_examples(base, axis=1), over_examples(arm, axis=1)
        # A median of examples has no paired difference by example that it is the mean of.
        by_seed = len(scored) >= SEEDS_NEEDED or metric == "lambda_1"
        effect = paired_by_seed(arm_seeds - base_seeds) if by_seed else paired_by_example((arm - base).mean(axis=0))
        tests = [mcnemar(a > 0, b > 0) for a, b in zip(arm, base, strict=True)] if metric in BINARY else None
        rows.append(
            {
                "metric": metric,
                "unit": METRICS[metric][0],
                "sigma": sigma,
                "depth": depth,
                "n_examples": base.shape[1],
                "baseline_mean": base_seeds.mean(),
                "arm_mean": arm_seeds.mean(),
                "baseline_sd": _sd(base_seeds),
                "arm_sd": _sd(arm_seeds),
                "baseline_iqm": iqm(base_seeds),
                "arm_iqm": iqm(arm_seeds),
                "difference": effect.mean,
                "difference_sd": _sd(arm_seeds - base_seeds),
                **{name: getattr(effect, name) for name in ("low", "high", "bca_low", "bca_high", "p")},
                "paired_by": "seed" if by_seed else "example",
                "probability_of_improvement": probability_of_improvement(arm_seeds, base_seeds),
                "mcnemar_gained": tests and [test.gained for test in tests],
                "mcnemar_lost": tests and [test.lost for test in tests],
                "mcnemar_p": tests and [test.p for test in tests],
            }
        )
    return rows


def _read(evals: pd.DataFrame) -> Any:
    """What the comparison reads: the clean evaluations, and all on test at each trial's last step."""
    last = evals.step == evals.groupby("trial_id").step.transform("max")
    return evals.loc[(evals.sigma == 0) | (last & (evals.split == "test")), list(_EVALUATED)]


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not pd.isna(value)]
    return float(np.mean(known)) if known else np.nan


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan


def _judge(rows: list[dict[str, Any]]) -> None:
    """Add what depends on how many rows ask one question: corrected p, seeds needed, and what may be said."""
    questions: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        if "verdict" not in row:
            question = tuple(row[name] for name in ("sweep", "model", "task", "metric", "depth"))
            questions.setdefault(question, []).append(row)
    for together in questions.values():
        corrected, needed = holm(np.array([row["p"] for row in together])), seeds_needed(len(together))
        for row, p_holm in zip(together, corrected, strict=True):
            row |= {"p_holm": p_holm, "comparisons": len(together), "seeds_needed": needed}
            if row["difference_sd"] > 0:
                row["detectable"] = detectable(row["difference_sd"], max(row["n_seeds"], needed), len(together))
            row["verdict"] = _verdict(row)
            row["regressed"] = _regressed(row) if row["metric"] in CLEAN else None


def _verdict(row: dict[str, Any]) -> str:
    if row["n_left_out"]:
        return f"selected: {row['n_left_out']} of {row['n_left_out'] + row['n_seeds']} seeds failed or stopped early"
    if row["n_seeds"] < row["seeds_needed"]:
        return f"too few seeds ({row['n_seeds']} of {row['seeds_needed']})"
    if row["p_holm"] >= ALPHA or np.isnan(row["p_holm"]):
        return "no difference shown"
    low, high = _ends(row)
    return "above baseline" if low > 0 else "below baseline" if high < 0 else "no difference shown"


def _ends(row: dict[str, Any]) -> tuple[float, float]:
    """The interval; the difference itself where it is the same for every pair, which has no interval."""
    return (row["difference"],) * 2 if np.isnan(row["low"]) else (row["low"], row["high"])


def _regressed(row: dict[str, Any]) -> str:
    """Whether clean accuracy fell by more than the margin: the whole interval must say so, either way."""
    if row["n_seeds"] < SEEDS_NEEDED or row["n_left_out"]:
        return "cannot tell"
    low, high = _ends(row)
    return "no" if low > -MARGIN else "yes" if high < -MARGIN else "cannot tell"

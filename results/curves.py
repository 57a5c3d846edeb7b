"""A run in a line and a curve: accuracy at the start, at the best step, at the end, and on the way."""

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from results.points import common_point
from results.rows import best_step, by_trial, clean_rows, rows_of, with_when
from results.stats import CONFIDENCE
from results.types import by_value

SNAPSHOT_COLUMNS = (
    *("sweep", "model", "rollout", "arm", "point", "points", "seed", "trial_id", "status", "reason"),
    *("initial", "best", "best_step"),
    *("final", "final_step", "final_tokens", "final_valid", "final_shortest", "collapsed", "flops_per_step", "minutes"),
)
COLLAPSE = 0.05
_READ = (
    *("trial_id", "split", "sigma", "depth", "step"),
    *("exact_accuracy", "token_accuracy", "valid_accuracy", "shortest_accuracy"),
)
_ROLLOUTS = {"parallel_fixed": "fixed", "act_mask": "masked", "serial_act": "serial"}


def snapshot(trials: pd.DataFrame, evals: pd.DataFrame) -> pd.DataFrame:
    """A row a trial: clean exact accuracy on test at the start, at the best step and at the end.

    Columns sweep, model, rollout, arm, point (what a shared trial's points agree in), points, seed, trial_id, status,
    reason, initial, best, best_step, final, final_step, final_tokens, final_valid, final_shortest, collapsed,
    flops_per_step, minutes.
    The best step is chosen on validation (the earliest of equals) and scored on test. Accuracies are missing where a
    trial has no evaluation; `final` is the last one, whether or not the trial is done; final_tokens is the share of
    cells that are right then, givens included; final_valid and final_shortest the share of answers that are paths, and
    shortest ones (mazes). collapsed: final is more than COLLAPSE below best.
    """
    rows = []
    # By sweep: several may have the same trial, trained for as many steps as each asks for.
    of_sweep = {sweep: by_trial(rows[list(_READ)]) for sweep, rows in evals.loc[evals.sigma == 0].groupby("sweep")}
    for trial in rows_of(trials):
        mine = of_sweep.get(trial.sweep, {}).get(trial.trial_id, [])
        test, chosen = clean_rows(mine, "test"), best_step(mine)
        best = next((row.exact_accuracy for row in test if row.step == chosen), np.nan)
        final = test[-1].exact_accuracy if test else np.nan
        rows.append(
            {
                **{name: getattr(trial, name) for name in ("sweep", "model", "rollout", "arm")},
                "point": common_point(list(trial.points)),
                "points": list(trial.points),
                **{name: getattr(trial, name) for name in ("seed", "trial_id", "status", "reason", "flops_per_step")},
                "initial": test[0].exact_accuracy if test else np.nan,
                "best": best,
                "best_step": chosen,
                "final": final,
                "final_step": test[-1].step if test else None,
                "final_tokens": test[-1].token_accuracy if test else np.nan,
                "final_valid": test[-1].valid_accuracy if test else np.nan,
                "final_shortest": test[-1].shortest_accuracy if test else np.nan,
                "collapsed": bool(final < best - COLLAPSE),
                "minutes": (trial.train_seconds + trial.evaluate_seconds) / 60,
            }
        )
    return pd.DataFrame(rows, columns=SNAPSHOT_COLUMNS).astype({"best_step": "Int64", "final_step": "Int64"})


def sentences(snapshot: pd.DataFrame) -> pd.Series:
    """Each row of a snapshot as a line; where an arm has several trials, the grid point and seed tell them apart.

    The form is `HRM fixed baseline: initial 0.5176, best 0.6328 @ 5000, final 0.5801`.
    """
    alone = ~snapshot.duplicated(["sweep", "model", "rollout", "arm"], keep=False)
    return pd.Series([_sentence(row, only) for row, only in zip(rows_of(snapshot), alone, strict=True)], dtype=object)


def _sentence(row, alone: bool) -> str:
    name = f"{row.model.upper()} {_ROLLOUTS[row.rollout]} {row.arm}"
    if not alone:
        name = ", ".join(filter(None, (name, row.point, f"seed {row.seed}")))
    if pd.isna(row.final):
        return f"{name}: no evaluation yet ({row.status})"
    best = f"best {row.best:.4f} @ {row.best_step}"
    state = "" if row.status == "done" else f" ({row.status} @ {row.final_step})"
    return f"{name}: initial {row.initial:.4f}, {best}, final {row.final:.4f}{state}"


def curve(trials: pd.DataFrame, evals: pd.DataFrame, metric: str = "exact_accuracy") -> pd.DataFrame:
    """A metric of the evals table on its way: a row a sweep, arm, grid point, split, when, sigma, depth and step.

    Columns n_seeds, mean, low and high (the 95 % t interval over seeds, of a share within 0 and 1; nan for one seed and
    for seeds without spread), worst and best seed. A trial that stands for several grid points counts at each of them.
    Arms come in the order of the trials, points in that of their values.
    """
    values = seed_curves(trials, evals, metric)
    values["arm"] = pd.Categorical(values.arm, list(dict.fromkeys(trials.arm)))
    by = ["sweep", "arm", "point", "split", "when", "sigma", "depth", "step"]
    groups = values.groupby(by, observed=True).value
    table = groups.agg(n_seeds="count", mean="mean", sd="std", worst="min", best="max").reset_index()
    spread = table.sd.where(table.sd > 0)  # equal seeds tell nothing of the others
    half = stdtrit(table.n_seeds - 1, (1 + CONFIDENCE) / 2) * spread / np.sqrt(table.n_seeds)
    least, most = (0.0, 1.0) if metric.endswith("accuracy") else (-np.inf, np.inf)
    low, high = (table["mean"] - half).clip(lower=least), (table["mean"] + half).clip(upper=most)
    return table.drop(columns="sd").assign(arm=table.arm.astype(values.sweep.dtype), low=low, high=high)


def seed_curves(trials: pd.DataFrame, evals: pd.DataFrame, metric: str = "exact_accuracy") -> pd.DataFrame:
    """A metric of the evals table by trial: the columns of `curve` up to step, then seed, trial_id and `value`.

    A trial that stands for several grid points is there at each of them.
    """
    places: pd.DataFrame = trials.loc[:, ["sweep", "trial_id", "arm", "points", "seed"]].explode(column="points")
    places["points"] = by_value(places["points"])
    values = with_when(evals)[["sweep", "trial_id", "split", "when", "sigma", "depth", "step", metric]]
    table = places.merge(values, on=["sweep", "trial_id"]).rename(columns={"points": "point", metric: "value"})
    return table.loc[
        :, ["sweep", "arm", "point", "split", "when", "sigma", "depth", "step", "seed", "trial_id", "value"]
    ]

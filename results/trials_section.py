"""How each trial of a sweep stands, on its page."""

import json
import shlex
from typing import Any

import pandas as pd

from results.curves import seed_curves
from results.gather import SweepTables
from results.page_items import table
from results.rows import rows_of
from results.schema import TRIALS_SCHEMA

CURVES = 400  # trials whose own curves the report holds
_RUN = [
    *("arm", "point", "seed", "status", "initial", "best", "best_step", "final", "final_step", "final_tokens"),
    *("final_valid", "final_shortest", "collapsed", "flops_per_step", "minutes", "model", "rollout", "trial_id"),
    "reason",
]


def trial_items(tables: SweepTables, shown: pd.DataFrame, unread: list[str]) -> list[dict[str, Any]]:
    """A square and a row a trial (`shown`: results.curves.snapshot), and what could not be read."""
    attempts = {trial.trial_id: json.loads(trial.provenance or "[]") for trial in rows_of(tables.trials)}
    steps = dict(zip(tables.trials.trial_id, tables.trials.steps, strict=True))
    listed = [
        {
            "arm": row.arm,
            "point": row.point,
            "points": [point for point in row.points if point],
            "seed": int(row.seed),
            "trial_id": row.trial_id,
            "status": row.status,
            "reason": None if pd.isna(row.reason) else row.reason,
            "step": None if pd.isna(row.final_step) else int(row.final_step),
            "steps": int(steps[row.trial_id]),
            "where": _where(attempts[row.trial_id]),
        }
        for row in rows_of(shown)
    ]
    items: list[dict[str, Any]] = [
        {"kind": "text", "text": f"left out: {text}", "bad": True} for text in (*tables.problems, *unread)
    ]
    name = shlex.quote(tables.sweep)
    log = f"rrm logs {name} --storage {shlex.quote(str(tables.folder.parent))}; of a job: rrm logs {name} --address URL"
    items.append({"kind": "trials", "id": "squares", "trials": listed, "log": log})
    note = "Clean exact accuracy on test; the best step is chosen on validation."
    items.append(table("runs", "Every trial", shown.loc[:, _RUN], TRIALS_SCHEMA, note=note, folded=True))
    return items


def _where(attempts: list[dict[str, Any]]) -> str | None:
    if not attempts:
        return None
    last = attempts[-1]
    place = ", ".join(str(last[name]) for name in ("host", "device") if last.get(name))
    return f"{place}; attempt {len(attempts)}" if len(attempts) > 1 else place


def trial_curves(tables: SweepTables) -> dict[str, list[list[float]]] | None:
    """Each trial's clean accuracy on test, as (step, accuracy); None of more than CURVES trials."""
    if len(tables.trials) > CURVES:
        return None
    each = seed_curves(tables.trials, tables.evals)
    clean = each.loc[(each.split == "test") & (each.sigma == 0)]
    clean = clean.loc[clean.depth == clean.groupby("trial_id").depth.transform("min")]
    clean = clean.drop_duplicates(["trial_id", "step"])
    return {
        str(trial_id): [[int(row.step), round(float(row.value), 5)] for row in rows_of(mine)]
        for trial_id, mine in clean.groupby("trial_id")
    }

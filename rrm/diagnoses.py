"""The diagnoses of a run so far, step by step: part of its state, and the rows of its tables."""

from typing import Any

from rrm.diagnosis_tables import DEEP, Rows, as_rows, diagnostics, far, window_means, window_rows
from rrm.dynamics import Found


class Diagnoses:
    """What was found at each step that was diagnosed.

    `rows` holds a row a step and example, `windows` by step what is said of the windows of the unroll, `deep` what the
    diagnosis after the last step found beside spectra: that of an earlier end is replaced, so that a run that went on
    from there has what an unbroken one has. `act_steps`, `sub_updates`: of the unroll, and of an ACT step.
    """

    def __init__(self, act_steps: int, sub_updates: int):
        self.act_steps, self.sub_updates = act_steps, sub_updates
        self.rows: Rows = []
        self.windows: list[dict[str, Any]] = []
        self.deep: dict[str, Any] = {}

    def add(self, step: int, found: dict[str, Found]) -> None:
        """Take up a diagnosis, of rrm.diagnose.diagnose_parts."""
        at, examples = {"step": step}, found["examples"]
        self.rows += [at | row for row in as_rows(diagnostics(examples, self.sub_updates))]
        self.windows.append(at | window_means(examples, self.sub_updates))
        if len(found) > 1:
            self.deep = at | {kind: columns for kind, columns in found.items() if kind != "examples"}

    def tables(self) -> dict[str, Rows]:
        """The rows of each table of results.schema, without trial_id."""
        made = {"diagnostics": self.rows, "windows": []}
        for one in self.windows:
            means = {name: x for name, x in one.items() if name != "step"}
            made["windows"] += [{"step": one["step"]} | row for row in as_rows(window_rows(means, self.act_steps))]
        at = {"step": self.deep.get("step")}
        for name, make in DEEP.items():
            made[name] = [at | row for row in as_rows(make(self.deep[name]))] if name in self.deep else []
        if "depths" in self.deep:
            own = [row for row in self.rows if row["step"] == self.deep["step"]]
            columns = as_rows(far(self.deep["depths"], own[0]["drift_threshold"]))
            others = [row for row in self.rows if row["step"] != self.deep["step"]]
            made["diagnostics"] = [*others, *(row | more for row, more in zip(own, columns, strict=True))]
        return made

    def take(self, before: int) -> dict[str, Rows]:
        """Give the rows of `diagnostics` and `windows` of the steps before this one away: they are not held any more.

        What an earlier end found beside spectra goes with its step, and stands in no row: a later end finds its own.
        """
        taken = Diagnoses(self.act_steps, self.sub_updates)
        taken.rows, self.rows = _split(self.rows, before)
        taken.windows, self.windows = _split(self.windows, before)
        if self.deep.get("step", before) < before:
            self.deep = {}
        tables = taken.tables()
        return {name: tables[name] for name in ("diagnostics", "windows")}

    def state_dict(self) -> dict[str, Any]:
        """What a run goes on from."""
        return {"rows": self.rows, "windows": self.windows, "deep": self.deep}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state."""
        self.rows, self.windows, self.deep = list(state["rows"]), list(state["windows"]), dict(state["deep"])


def _split(rows: list[dict[str, Any]], before: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the steps before this one, and the others."""
    return [row for row in rows if row["step"] < before], [row for row in rows if row["step"] >= before]

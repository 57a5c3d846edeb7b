"""What a comparison allows to say of each arm: its signals, and the headline that they make."""

from typing import Any

import pandas as pd

from results.compared import WORDS
from results.metrics import AURC, MODES
from results.rows import rows_of

_PLACE = ("sweep", "arm", "baseline", "point")
_EFFECT = (
    *("metric", "unit", "sigma", "baseline_mean", "arm_mean", "difference", "low", "high", "p_adjusted"),
    *("compute_ratio", "n_seeds", "n_planned"),
)
NAMES = {
    "best": "clean accuracy (best)",
    "final": "clean accuracy (final)",
    "equal_compute": "clean accuracy at equal compute",
    "perturbed": "perturbed success",
    MODES: "positive modes",
}
_TOLD = {
    "halting": "clean accuracy where it halts",
    "halting_steps": "ACT steps until it halts",
    "done": "says that it is done",
    "done_accuracy": "accuracy of what it says is done",
    "settled": "answers that settled",
    "settled_accuracy": "accuracy of answers that settled",
    "winner_changes": "ACT steps at which the winner changes",
    "winner_entropy": "entropy of who wins",
    AURC: "area under risk-coverage by q_halt",
}
_SHORT = {"best": "best", "final": "final", "equal_compute": "equal cost", "perturbed": "perturbed", MODES: "modes"}
VERDICT_COLUMNS = (*_PLACE, *_EFFECT, *NAMES, "primary_verdict", "rests_on", "verdict", "headline")
SCALES = {
    "share": (100.0, " points"),
    "modes": (1.0, ""),
    "nats/sub-update": (1.0, ""),
    "nats": (1.0, ""),
    "ACT steps": (1.0, ""),
}
FOUND = ("helps", "harms", "mixed")
FLOOR = 0.02  # of an accuracy: what both arms hardly ever, or nearly always, solve has no spread to plan by
DROWNED = 0.9  # a noise_fidelity, as rrm.fidelity has it
_MOVED = ("up", "down")


def verdicts(comparison: pd.DataFrame) -> pd.DataFrame:
    """A row an arm and grid point of a comparison: the primary metric's effect, the signals, and what they say.

    best, final, equal_compute, perturbed and positive_modes: up, down, mixed (differs between sigmas), level (within
    the margin), cannot tell, not measured; or why nothing is said yet. verdict: helps, harms or mixed as soon as one
    signal is up or down (fewer modes help), level if all that were measured are, else cannot tell or the reason.
    primary_verdict: of the primary metric at its sigma alone; rests_on: by commas the signals that make the verdict,
    which are up or down, or of which nobody can tell. headline: the effect with its interval, the cost, the verdict,
    and every signal that is not level.
    """
    places: dict[Any, list[Any]] = {}
    for row in rows_of(comparison.loc[comparison.role == "signal"]):
        places.setdefault(tuple(getattr(row, name) for name in _PLACE), []).append(row)
    rows = [dict(zip(_PLACE, place, strict=True)) | _of_place(signals) for place, signals in places.items()]
    return pd.DataFrame(rows, columns=list(VERDICT_COLUMNS)).astype({"n_seeds": "Int64", "n_planned": "Int64"})


def _of_place(signals: list[Any]) -> dict[str, Any]:
    primary = next(row for row in signals if row.primary)
    found = {name: _direction([row for row in signals if row.metric == name]) for name in NAMES}
    verdict = _verdict(signals, primary, found)
    unclear = [row for row in signals if row.verdict not in (*_MOVED, "level")]
    moved = [row for row in signals if row.verdict in _MOVED]
    decisive = moved or (unclear if verdict == "cannot tell" else [])
    named = [_SHORT[row.metric] + (f" {row.sigma:g}" if row.sigma else "") for row in decisive]
    copied = {name: getattr(primary, name) for name in _EFFECT} | {"primary_verdict": primary.verdict}
    return (
        copied
        | found
        | {
            "rests_on": ", ".join(named),
            "verdict": verdict,
            "headline": _headline(signals, primary, verdict),
        }
    )


def _direction(rows: list[Any]) -> str:
    """The signal of one metric: over its sigmas, those that were found decide."""
    found = {row.verdict for row in rows}
    if not rows:
        return "not measured"
    if len(found) == 1:
        return found.pop()
    if found >= {"up", "down"}:
        return "mixed"
    return "up" if "up" in found else "down" if "down" in found else "cannot tell"


def _verdict(signals: list[Any], primary: Any, found: dict[str, str]) -> str:
    good = {name for name, word in found.items() if word in ("mixed", "down" if name == MODES else "up")}
    bad = {name for name, word in found.items() if word in ("mixed", "up" if name == MODES else "down")}
    if good or bad:
        return "mixed" if good and bad else "helps" if good else "harms"
    judged = {row.verdict for row in signals if row.verdict in WORDS}
    if judged == {"level"} and primary.verdict == "level":
        return "level"
    measured = [row.verdict for row in (primary, *signals) if pd.notna(row.difference)]
    return "cannot tell" if judged else (*measured, primary.verdict)[0]


def short_verdict(row: Any) -> str:
    """The verdict of a row of `verdicts`, and of what it is if not of the primary metric, whose numbers stand there."""
    if not row.rests_on or row.primary_verdict in (*_MOVED, row.verdict):
        return row.verdict
    first, *more = row.rests_on.split(", ")
    own = "level; " if (row.primary_verdict, row.verdict) == ("level", "cannot tell") else ""
    return f"{own}{row.verdict} ({first}{f' +{len(more)}' if more else ''})"


def _headline(signals: list[Any], primary: Any, verdict: str) -> str:
    if pd.notna(primary.difference):
        effect = f"{metric_name(primary)} {change(primary)}"
    elif verdict == primary.verdict:
        return "; ".join([f"{metric_name(primary)}: {verdict}", *notes(primary, verdict)])
    else:
        effect = f"{metric_name(primary)} ({primary.verdict})"
    parts = [effect]
    parts += [] if pd.isna(primary.p_adjusted) else [probability(primary.p_adjusted)]
    parts += [] if pd.isna(primary.compute_ratio) else [f"at {primary.compute_ratio:.1f}x the compute"]
    opening = "level" if (primary.verdict, verdict) == ("level", "cannot tell") else verdict
    text = f"{', '.join(parts)}: {opening}"
    if verdict in (*FOUND, *WORDS):
        opened = pd.isna(primary.difference) or primary.verdict == opening  # then the primary metric is told
        others = [row for row in signals if not (row.primary and opened)]
        told = [row for row in others if row.verdict in (*_MOVED, "level") and verdict != "level"]
        unclear = [metric_name(row) for row in others if row.verdict not in (*_MOVED, "level")]
        text += "".join(f"; {_of_signal(row)}" for row in told if not row.primary or row.verdict == "level")
        text += f"; {'nor of' if opening == 'cannot tell' else 'cannot tell'}: {', '.join(unclear)}" if unclear else ""
    return "; ".join([text, *notes(primary, verdict)])


def _of_signal(row: Any) -> str:
    word = {"up": "more", "down": "fewer"}.get(row.verdict, row.verdict) if row.metric == MODES else row.verdict
    small = row.verdict == "down" and row.unit == "share" and row.low > -row.margin
    scale, unit = SCALES[row.unit]
    within = f" (within {scale * row.margin:g}{unit})" if small or row.verdict == "level" else ""
    return f"{metric_name(row)} {word}{'' if row.primary else f' {change(row)}'}{within}"


def notes(primary: Any, verdict: str) -> list[str]:
    """What a reader must know beside the primary metric's mean: failed runs, the worst seed, what is detectable."""
    found = []
    if drowns(primary):
        found.append(f"this precision drowns the noise (noise_fidelity {primary.noise_fidelity:.2f})")
    scale, unit = SCALES[primary.unit]
    if primary.n_failed:
        bound = "" if pd.isna(primary.bound) else f", {scale * primary.bound:+.1f}{unit} with them at their worst"
        found.append(f"failed: {_seeds(primary.failed_seeds)}{bound}")
    if len(primary.unpaired_seeds):
        found.append(f"not paired: {_seeds(primary.unpaired_seeds)}, which one side lacks")
    if primary.n_seeds > 1 and pd.notna(primary.worst_difference):
        found.append(f"worst seed {primary.worst_seed}: {scale * primary.worst_difference:+.1f}")
    if pd.notna(primary.looks) and primary.looks:
        found.append(f"p is for {primary.looks + 1} looks")
    if verdict in (*FOUND, "level") or primary.verdict in _MOVED:
        return found
    if not pd.isna(primary.detectable) and not at_floor(primary):
        size = f"{scale * primary.detectable:.1f}{unit} of {metric_name(primary)}"
        found.append(f"{primary.detectable_seeds} seeds detect {size} with 80 % power")
    return found


def _seeds(seeds: Any) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def drowns(row: Any) -> bool:
    """Whether the precision that the arm was trained in leaves too little of its noise."""
    return pd.notna(row.noise_fidelity) and row.noise_fidelity < DROWNED


def at_floor(row: Any) -> bool:
    """Whether an accuracy is where both sides hardly ever, or nearly always, solve a puzzle: no spread to plan by."""
    means = row.baseline_mean, row.arm_mean
    return row.unit == "share" and (max(means) < FLOOR or min(means) > 1 - FLOOR)


def metric_name(row: Any) -> str:
    """What a row of the comparison is about, in words."""
    metric = str(row.metric)
    name = (NAMES | _TOLD).get(metric) or metric.replace("_", " ").replace("perturbed ", "perturbed, ")
    name = name.replace("lambda 1", "lambda_1")
    deeper = "" if row.trained_depth else f", {row.depth} ACT steps"
    return name + (f" at sigma {row.sigma:g}" if row.sigma else "") + deeper


def change(row: Any) -> str:
    """A row's difference with the half width of its interval, in points of accuracy or in the metric's own unit."""
    scale, unit = SCALES[row.unit]
    return f"{difference(row)}{unit if scale != 1 else ''}"


def difference(row: Any) -> str:
    """The numbers of `change`."""
    scale, _ = SCALES[row.unit]
    digits = ".1f" if scale != 1 else ".4f" if row.unit == "nats/sub-update" else ".2f"
    half = "" if pd.isna(row.low) else f" \N{PLUS-MINUS SIGN}{scale * (row.high - row.low) / 2:{digits}}"
    return f"{scale * row.difference:+{digits}}{half}"


def probability(p: float) -> str:
    """`p = 0.012`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"

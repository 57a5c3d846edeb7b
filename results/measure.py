"""What was measured of an arm at a grid point, pair by pair and metric by metric; what was not, with the reason."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from results.compared import CELLS, MEDIANS, METRICS, MODES, SIGNALS
from results.flips import sign_flip_p
from results.pairs import Pair, Pairing
from results.runs import NOISE, Runs, flops_of, pair_scores
from results.scores import BINARY, TRAINED, Key, trained_depth
from results.stats import NAN, iqm, mcnemar, over_one_sample, over_seeds_and_puzzles, probability_of_improvement

OTHER_PUZZLES = "not comparable: other test puzzles"


@dataclass
class Measured:
    """A row of the comparison and what it was computed from.

    baseline and arm [seeds] are the scores of the finished pairs; against [failed] the differences that the failed ones
    would have had at their worst for the sign that was found; error and seeds_error the standard errors of the mean
    over seeds and puzzles, and over seeds.
    """

    row: dict[str, Any]
    baseline: np.ndarray
    arm: np.ndarray
    against: np.ndarray
    error: float
    seeds_error: float

    @property
    def differences(self) -> np.ndarray:
        """Of all pairs that ended [seeds + failed]."""
        return np.concatenate([self.arm - self.baseline, self.against])

    @property
    def puzzles_error(self) -> float:
        """What the choice of puzzles adds to the error over seeds."""
        return math.sqrt(max(self.error**2 - self.seeds_error**2, 0.0)) if self.error > 0 else 0.0


@dataclass
class Place:
    """An arm at a grid point: its pairing, what was measured of it, and the rows that say why something was not."""

    pairing: Pairing
    measured: list[Measured] = field(default_factory=list)
    reasons: list[dict[str, Any]] = field(default_factory=list)

    @property
    def tested(self) -> list[Measured]:
        """The signals that a test is made of, once all planned pairs have ended; none if they were selected."""
        if not self.pairing.is_complete or self.pairing.stopped:
            return []
        ended = len(self.pairing.done) + len(self.pairing.failed)
        signals = [one for one in self.measured if one.row["metric"] in SIGNALS and one.row["role"] == "signal"]
        return [one for one in signals if len(one.arm) > 1 and len(one.differences) == ended]


def measured_place(runs: Runs, pairing: Pairing, primary: tuple[str, float], margin: float) -> Place:
    """An arm at a point: all that was measured of its finished pairs, not judged yet."""
    place, done = Place(pairing), pairing.done
    common: dict[str, Any] = {
        **{name: getattr(pairing, name) for name in ("sweep", "arm", "baseline", "point")},
        "n_seeds": len(done),
        "n_planned": len(pairing.pairs),
        "n_failed": len(pairing.failed),
        "n_stopped": len(pairing.stopped),
        "failed_seeds": [pair.seed for pair in pairing.failed],
        "unpaired_seeds": pairing.unpaired,
        "margin": margin,
    }
    reason = _reason(pairing)
    if reason:
        place.reasons.append(common | _nothing(primary, primary, reason))
        return place
    common |= _facts(runs, pairing)
    scored = [pair_scores(runs, pair, pairing.arm) for pair in done]
    keys = {key for pair in scored for side in pair for key in side} | {(*primary, TRAINED)}
    order = list(METRICS)
    for key in sorted(keys, key=lambda key: (order.index(key[0]), key[1:])):
        sizes = {len(side[key]) if key in side else 0 for pair in scored for side in pair}
        if len(sizes) > 1 or sizes == {0}:
            if _is_signal(key):
                place.reasons.append(common | _nothing(key[:2], primary, _missing(key, scored)))
            continue
        base, arm = (np.stack([pair[side][key] for pair in scored]) for side in (0, 1))  # [seeds, examples]
        if any(np.isnan(seed).all() for side in (base, arm) for seed in side):
            continue  # such as lambda_1 of the failed, where a run has none
        lost = [_failed_scores(runs, pair, key, pairing.arm) for pair in pairing.failed]
        place.measured.append(_measure(common, key, primary, base, arm, lost, done))
    return place


def _reason(pairing: Pairing) -> str | None:
    """Why there is nothing to compare; None if there is."""
    done = pairing.done
    if not pairing.pairs:
        return f"not comparable: {pairing.baseline} has no trial at this point with these seeds"
    runs = [run for pair in done for run in (pair.baseline, pair.arm)]
    digests = {None if pd.isna(run.test_digest) else run.test_digest for run in runs}
    if done and (None in digests or len(digests) > 1):
        return OTHER_PUZZLES
    if done:
        return None
    if not pairing.is_complete:
        return f"interim, 0 of {len(pairing.pairs)} seeds"
    if pairing.stopped:
        return f"selected: {len(pairing.stopped)} of {len(pairing.pairs)} seeds stopped early"
    return f"no pair to compare: {len(pairing.failed)} of {len(pairing.pairs)} seeds failed"


def _missing(key: Key, scored: list[Any]) -> str:
    metric = key[0]
    if metric == "equal_compute":
        return "not comparable: no evaluation near equal compute"
    measured = sum(all(key in side for side in pair) for pair in scored)
    if measured < len(scored):
        return f"not comparable: measured in {measured} of {len(scored)} pairs"
    return "not comparable: other numbers of examples"


def _is_signal(key: Key) -> bool:
    return key[0] in SIGNALS and key[2] == TRAINED


def _nothing(metric: tuple[str, float], primary: tuple[str, float], reason: str) -> dict[str, Any]:
    named = {"metric": metric[0], "sigma": metric[1], "unit": METRICS[metric[0]][0]}
    return named | {"role": "signal", "primary": metric == primary, "trained_depth": True, "verdict": reason}


def _failed_scores(runs: Runs, pair: Pair, key: Key, arm: str) -> tuple[float | None, float | None]:
    """Mean scores of a failed pair: None for a run that failed.

    Compute that is equal to that of a run which failed is not known: the one that is done has its last accuracy.
    """
    if key[0] == "equal_compute":
        key = ("final", *key[1:])
    base = runs.of(pair.baseline, "").scores.get(key) if pair.baseline.status == "done" else None
    mine = runs.of(pair.arm, arm).scores.get(key) if pair.arm.status == "done" else None
    return (None if base is None else float(base.mean())), (None if mine is None else float(mine.mean()))


def _at_worst(base: float | None, arm: float | None, sign: float) -> float:
    """The difference of accuracies of a failed pair.

    An arm that failed solves nothing. A baseline that failed is what speaks most against the sign that was found: all
    solved if the arm is above it, nothing if the arm is below.
    """
    arm = 0.0 if arm is None else arm
    if base is None:
        base = arm if sign == 0 else 1.0 if sign > 0 else 0.0
    return arm - base


def _measure(
    common: dict[str, Any],
    key: Key,
    primary: tuple[str, float],
    base: np.ndarray,
    arm: np.ndarray,
    lost: list[tuple[float | None, float | None]],
    done: list[Pair],
) -> Measured:
    """A metric of baseline and arm, [seeds, examples] each."""
    metric, sigma, depth = key
    is_median = metric in MEDIANS  # of examples: no example has a difference that it would be the mean of
    base_seeds, arm_seeds = (np.nanmedian(x, axis=1) if is_median else x.mean(axis=1) for x in (base, arm))
    by_seed = arm_seeds - base_seeds
    over_seeds = over_one_sample(by_seed)
    paired_by, effect = "seed and puzzle", over_seeds
    if is_median:
        paired_by = "seed"
    elif len(done) == 1 or base.shape[1] == 1:
        paired_by = "puzzle" if len(done) == 1 else "seed"
        effect = over_one_sample((arm - base).mean(axis=0)) if len(done) == 1 else over_seeds
    else:
        effect = over_seeds_and_puzzles(arm - base)
    mean = float(by_seed.mean())
    bounded = metric not in MEDIANS | CELLS | {MODES}
    against = np.array([_at_worst(*one, np.sign(mean)) for one in lost]) if bounded else np.empty(0)
    more_is_worse = is_median or metric in (MODES, "settled_failed", "wandering_failed")
    worst = int(np.argmax(by_seed) if more_is_worse else np.argmin(by_seed))
    tests = mcnemar(arm > 0, base > 0) if metric in BINARY else None
    row = common | {
        "metric": metric,
        "unit": METRICS[metric][0],
        "sigma": sigma,
        "depth": depth if depth != TRAINED else common["arm_depth"],
        "baseline_depth": depth if depth != TRAINED else common["baseline_depth"],
        "trained_depth": depth == TRAINED,
        "role": "signal" if _is_signal(key) else "exploratory",
        "primary": key == (*primary, TRAINED),
        "n_examples": base.shape[1],
        "baseline_mean": base_seeds.mean(),
        "arm_mean": arm_seeds.mean(),
        "baseline_sd": _sd(base_seeds),
        "arm_sd": _sd(arm_seeds),
        "baseline_iqm": iqm(base_seeds),
        "arm_iqm": iqm(arm_seeds),
        "difference": mean,
        "difference_sd": _sd(by_seed),
        "low": effect.low,
        "high": effect.high,
        "paired_by": paired_by,
        "seeds_low": over_seeds.low,
        "seeds_high": over_seeds.high,
        "p": sign_flip_p(by_seed) if len(done) > 1 else NAN,
        "worst_seed": done[worst].seed,
        "worst_difference": by_seed[worst],
        "bound": float(np.concatenate([by_seed, against]).mean()) if bounded and lost else None,
        "probability_of_improvement": probability_of_improvement(arm_seeds, base_seeds),
        "mcnemar_gained": tests and [test.gained for test in tests],
        "mcnemar_lost": tests and [test.lost for test in tests],
        "mcnemar_p": tests and [test.p for test in tests],
    }
    return Measured(row, base_seeds, arm_seeds, against, effect.error, over_seeds.error)


def _facts(runs: Runs, pairing: Pairing) -> dict[str, Any]:
    """What an arm is and costs, the same for all its metrics."""
    arms, bases = [pair.arm for pair in pairing.done], [pair.baseline for pair in pairing.done]
    mine, theirs = [runs.of(run, pairing.arm) for run in arms], [runs.of(run, "") for run in bases]
    first, perturb = arms[0], json.loads(str(arms[0].config)).get("perturb")
    digests = sorted({run.commit for run in arms if isinstance(run.commit, str)})
    return {
        **{name: getattr(first, name) for name in ("model", "task", "objective", "rollout", "rollouts", "parameters")},
        "perturb": json.dumps(perturb) if perturb else None,
        **{name: _mean(getattr(row, name) for run in mine for row in run.evals) for name in NOISE},
        "arm_depth": trained_depth(mine[0].evals),
        "baseline_depth": trained_depth(theirs[0].evals),
        "optimizer_steps": _mean(max(row.optimizer_steps for row in run.evals) for run in mine),
        "act_steps": _mean(max(row.act_steps for row in run.evals) for run in mine),
        "collapsed": sum(run.line.collapsed for run in mine),
        "baseline_collapsed": sum(run.line.collapsed for run in theirs),
        "flops": _mean(flops_of(run) for run in arms),
        "compute_ratio": _mean(flops_of(arm) / flops_of(base) for arm, base in zip(arms, bases, strict=True)),
        "device_hours": _mean(run.device_hours for run in arms),
        "baseline_device_hours": _mean(run.device_hours for run in bases),
        "minutes": _mean(run.line.minutes for run in mine),
        "baseline_minutes": _mean(run.line.minutes for run in theirs),
        "commit": ", ".join(digests) or None,
        "data_digest": first.data_digest,
    }


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not pd.isna(value)]
    return float(np.mean(known)) if known else NAN


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else NAN

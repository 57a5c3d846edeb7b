"""What was measured of an arm at a grid point, pair by pair and metric by metric; what was not, with the reason."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from results.compared import MODES_MARGIN, SIGNALS
from results.failures import at_worst, failed_scores, most_of
from results.flips import sign_flip_p
from results.metrics import AURC, BINARY, DIAGNOSED, MEDIANS, METRICS, MODES, OF_RUN, WORSE
from results.pairs import Pair, Pairing
from results.rows import clean_rows
from results.runs import NOISE, Runs, flops_of, pair_scores
from results.scores import TRAINED, Key, trained_depth
from results.stats import NAN, iqm, mcnemar, over_one_sample, over_seeds_and_puzzles, probability_of_improvement

OTHER_PUZZLES = "not comparable: other test puzzles"


@dataclass
class Measured:
    """A row of the comparison and what it was computed from.

    baseline and arm [seeds] are the scores of the finished pairs, `pairs`; against [failed] the differences that the
    failed ones would have had at their worst for the sign that was found; error and seeds_error the standard errors of
    the mean over seeds and puzzles, and over seeds.
    """

    row: dict[str, Any]
    pairs: list[Pair]
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
    def signals(self) -> list[Measured]:
        """Those of the measured metrics that a test is made of, once all planned pairs have ended."""
        return [one for one in self.measured if one.row["role"] == "signal"]

    @property
    def tested(self) -> list[Measured]:
        """The signals of which there is nothing against a test: see `untested`."""
        return [one for one in self.signals if not self.untested(one)]

    def untested(self, one: Measured) -> str:
        """Why a signal is not tested, "" if it is: pairs have not ended, were selected, are lost or have no bound."""
        pairing = self.pairing
        if reason := _not_ended(pairing):
            return reason
        if len(one.arm) < 2:
            return f"not tested: {len(one.arm)} of {len(pairing.pairs)} seeds is done"
        if len(one.differences) < len(pairing.pairs):
            return f"not tested: {len(pairing.failed)} of {len(pairing.pairs)} seeds failed, and have no worst case"
        return ""


def measured_place(runs: Runs, pairing: Pairing, primary: tuple[str, float], margin: float) -> Place:
    """An arm at a point: all that was measured of its finished pairs, not judged yet."""
    place, done = Place(pairing), pairing.done
    common: dict[str, Any] = {
        **{name: getattr(pairing, name) for name in ("sweep", "arm", "baseline", "point")},
        **_identity(pairing),
        "n_seeds": len(done),
        "n_planned": len(pairing.pairs),
        "n_failed": len(pairing.failed),
        "n_stopped": len(pairing.stopped),
        "failed_seeds": [pair.seed for pair in pairing.failed],
        "unpaired_seeds": sorted([*pairing.unpaired, *(pair.seed for pair in pairing.lost if pairing.distinct)]),
        "margin": margin,
    }
    reason = _reason(pairing)
    if reason:
        place.reasons.append(common | _nothing((*primary, TRAINED), primary, reason))
        return place
    common |= _facts(runs, pairing)
    scored = [pair_scores(runs, pair, pairing.arm) for pair in done]
    sides = [(runs.of(pair.baseline, ""), runs.of(pair.arm, pairing.arm)) for pair in done]
    keys = {key for pair in scored for side in pair for key in side} | {(*primary, TRAINED)}
    order = list(METRICS)
    for key in sorted(keys, key=lambda key: (order.index(key[0]), key[1:])):
        having = [at for at, pair in enumerate(scored) if all(_has(side, key) for side in pair)]
        # An exploratory metric is told of the pairs that have it, such as lambda_1 of the failed where some failed.
        too_few = not having or (_is_signal(key) and len(having) < len(done))
        sizes = {len(side[key]) for at in having for side in scored[at]}
        same_diagnosed = len({side.diagnosed for at in having for side in sides[at]}) == 1
        if too_few or len(sizes) > 1 or (key[0] in DIAGNOSED and not same_diagnosed):
            reason = _missing(key, len(having) if too_few else len(done), len(done))
            place.reasons.append(common | _nothing(key, primary, reason))
            continue
        base, arm = (np.stack([scored[at][side][key] for at in having]) for side in (0, 1))  # [seeds, examples]
        failed = [failed_scores(runs, pair, key, pairing.arm) for pair in pairing.failed]
        place.measured.append(_measure(common, key, primary, base, arm, failed, [done[at] for at in having]))
    return place


def _reason(pairing: Pairing) -> str | None:
    """Why there is nothing to compare; None if there is."""
    done = pairing.done
    for name, side in ((pairing.arm, "arm"), (pairing.baseline, "baseline")):
        if all(getattr(pair, side) is None for pair in pairing.pairs):
            nobody = name if pairing.pairs else pairing.baseline
            return f"not comparable: {nobody} has no trial at this point with these seeds"
    runs = [run for pair in done for run in (pair.baseline, pair.arm)]
    digests = {None if pd.isna(run.test_digest) else run.test_digest for run in runs}
    if done and (None in digests or len(digests) > 1):
        return OTHER_PUZZLES
    if done:
        return None
    failed = f"no pair to compare: {len(pairing.failed)} of {len(pairing.pairs)} seeds failed"
    return _not_ended(pairing) or failed


def _not_ended(pairing: Pairing) -> str:
    """Why no test can be made of the pairs, "" if one can: all that were planned must have come to an end of theirs."""
    planned = len(pairing.pairs)
    if not pairing.is_complete:
        return f"interim, {len(pairing.done)} of {planned} seeds"
    if pairing.stopped:
        return f"selected: {len(pairing.stopped)} of {planned} seeds stopped early"
    if pairing.lost:
        return f"incomplete: {len(pairing.lost)} of {planned} seeds unpaired"
    return ""


def _has(scores: dict[Key, np.ndarray], key: Key) -> bool:
    # A median is of the examples that have a value, if any has.
    return key in scores and (key[0] not in MEDIANS or not np.isnan(scores[key]).all())


def _missing(key: Key, measured: int, pairs: int) -> str:
    """Why a metric that `measured` of so many pairs have is not compared."""
    if key[0] == "equal_compute":
        return "not comparable: no evaluation near equal compute"
    if measured < pairs:
        return f"not comparable: measured in {measured} of {pairs} pairs"
    return f"not comparable: other examples{' were diagnosed' if key[0] in DIAGNOSED else ''}"


def _is_signal(key: Key) -> bool:
    return key[0] in SIGNALS and key[2] == TRAINED


def _nothing(key: Key, primary: tuple[str, float], reason: str) -> dict[str, Any]:
    """What a row says of a metric that was not compared."""
    metric, sigma, depth = key
    named = {"metric": metric, "sigma": sigma, "unit": METRICS[metric][0], "depth": None if depth == TRAINED else depth}
    named |= {"role": "signal" if _is_signal(key) else "exploratory", "primary": key == (*primary, TRAINED)}
    return named | {"trained_depth": depth == TRAINED, "verdict": reason}


def _measure(
    common: dict[str, Any],
    key: Key,
    primary: tuple[str, float],
    base: np.ndarray,
    arm: np.ndarray,
    failed: list[tuple[float | None, float | None]],
    done: list[Pair],
) -> Measured:
    """A metric of baseline and arm, [seeds, examples] each, of the pairs that are done and have it."""
    metric, sigma, depth = key
    is_median = metric in MEDIANS  # of examples: no example has a difference that it would be the mean of
    base_seeds, arm_seeds = (np.nanmedian(x, axis=1) if is_median else x.mean(axis=1) for x in (base, arm))
    by_seed = arm_seeds - base_seeds
    over_seeds = over_one_sample(by_seed)
    paired_by, effect = "seed and puzzle", over_seeds
    if is_median or base.shape[1] == 1:
        paired_by = "seed"
    elif len(done) == 1:
        paired_by, effect = "puzzle", over_one_sample((arm - base)[0])
    else:
        effect = over_seeds_and_puzzles(arm - base)
    mean = float(by_seed.mean())
    most = most_of(metric, done)
    against = np.array([] if most is None else [at_worst(*one, np.sign(mean), metric, most) for one in failed])
    worst = int(np.argmax(by_seed) if metric in WORSE else np.argmin(by_seed))
    tests = mcnemar(arm > 0, base > 0) if metric in BINARY else None
    row = common | {
        "metric": metric,
        "unit": METRICS[metric][0],
        "margin": MODES_MARGIN if metric == MODES else common["margin"],
        "sigma": sigma,
        "depth": depth if depth != TRAINED else common["arm_depth"],
        "baseline_depth": depth if depth != TRAINED else common["baseline_depth"],
        "trained_depth": depth == TRAINED,
        "role": "signal" if _is_signal(key) else "exploratory",
        "primary": key == (*primary, TRAINED),
        "n_seeds": len(done),
        "n_examples": None if metric in OF_RUN or metric == AURC else base.shape[1],
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
        "p": sign_flip_p(by_seed) if _is_signal(key) and len(done) > 1 else NAN,
        "worst_seed": done[worst].seed,
        "worst_difference": by_seed[worst],
        "bound": float(np.concatenate([by_seed, against]).mean()) if len(against) else None,
        "probability_of_improvement": probability_of_improvement(arm_seeds, base_seeds),
        "mcnemar_gained": tests and [test.gained for test in tests],
        "mcnemar_lost": tests and [test.lost for test in tests],
        "mcnemar_p": tests and [test.p for test in tests],
    }
    return Measured(row, done, base_seeds, arm_seeds, against, effect.error, over_seeds.error)


def _identity(pairing: Pairing) -> dict[str, Any]:
    """What an arm is, whatever became of its runs."""
    first = next((pair.arm for pair in (*pairing.done, *pairing.pairs) if pair.arm is not None), None)
    if first is None:
        return {}
    perturb = json.loads(str(first.config)).get("perturb")
    names = ("model", "task", "objective", "rollout", "rollouts", "parameters", "data_digest")
    return {name: getattr(first, name) for name in names} | {"perturb": json.dumps(perturb) if perturb else None}


def _facts(runs: Runs, pairing: Pairing) -> dict[str, Any]:
    """What an arm had and costs, the same for all its metrics."""
    arms, bases = [pair.arm for pair in pairing.done], [pair.baseline for pair in pairing.done]
    mine, theirs = [runs.of(run, pairing.arm) for run in arms], [runs.of(run, "") for run in bases]
    evaluated = [row for run in mine for row in clean_rows(run.evals, "test")]
    digests = sorted({run.commit for run in arms if isinstance(run.commit, str)})
    return {
        **{name: _mean(getattr(row, name) for row in evaluated) for name in NOISE},
        "arm_depth": trained_depth(mine[0].evals),
        "baseline_depth": trained_depth(theirs[0].evals),
        "optimizer_steps": _mean(max(row.optimizer_steps for row in run.evals) for run in mine),
        "act_steps": _mean(max(row.act_steps for row in run.evals) for run in mine),
        "collapsed": sum(run.collapsed for run in mine),
        "baseline_collapsed": sum(run.collapsed for run in theirs),
        "flops": _mean(flops_of(run) for run in arms),
        "compute_ratio": _mean(flops_of(arm) / flops_of(base) for arm, base in zip(arms, bases, strict=True)),
        "device_hours": _mean(run.device_hours for run in arms),
        "baseline_device_hours": _mean(run.device_hours for run in bases),
        "minutes": _mean((run.train_seconds + run.evaluate_seconds) / 60 for run in arms),
        "baseline_minutes": _mean((run.train_seconds + run.evaluate_seconds) / 60 for run in bases),
        "commit": ", ".join(digests) or None,
    }


def _mean(values: Iterable[float]) -> float:
    known = np.array(list(values), dtype=float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else NAN


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else NAN

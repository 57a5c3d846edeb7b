"""What may be said of each signal, corrected for all that a sweep asks: p-values, and one word a row."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from results.compared import MODES_MARGIN, WORDS
from results.flips import max_t
from results.looks import Look, as_they_came, earlier_looks
from results.measure import Measured, Place
from results.metrics import MODES
from results.pairs import Pairing
from results.planning import detectable_from, seeds_needed, seeds_needed_after_looks
from results.sequential import always_valid_p
from results.stats import ALPHA, NAN

UNKNOWN_LOOKS = "no p: looks.json cannot be read"
CLEAN = ("best", "final", "equal_compute")


def judge(places: list[Place], looks: Sequence[Look] | None) -> None:
    """Add to the rows of one sweep what depends on the others: corrected p, what the seeds would find, the verdict.

    Within an arm and point max-T over its signals, or Holm's correction of always-valid p-values where these pairs were
    looked at before with fewer seeds. Across distinct arms and points Holm's: a place weighs on the others until all
    its signals are found. Where the looks are not known (None), nothing is.
    """
    distinct = dict.fromkeys(place.pairing.distinct for place in places if place.pairing.distinct)
    within: dict[Any, list[float]] = {}
    for place in places:
        before = earlier_looks(looks or (), place.pairing)
        if place.pairing.distinct not in within:  # the same runs again, under another name, are no other test
            within[place.pairing.distinct] = _within(place, before, len(distinct)).tolist()
        for row in (*(one.row for one in place.measured), *place.reasons):
            row["looks"] = None if looks is None else len(before)
    across = dict(zip(within, holm_across(list(within.values()), len(distinct)), strict=True))
    for place in places:
        for one, p in zip(place.tested, across[place.pairing.distinct], strict=True):
            one.row |= {"p": NAN, "p_adjusted": NAN} if looks is None else {"p_adjusted": p}
        for one in place.measured:
            needed = seeds_needed(len(distinct))
            if one.row["looks"]:  # Holm's correction of all, of which max-T asks no more seeds
                needed = seeds_needed_after_looks(len(distinct) * max(1, len(place.tested)))
            elif looks is not None:
                _add_plan(one, place.pairing, len(distinct) * len(place.signals))
            one.row |= {"comparisons": len(distinct), "seeds_needed": needed}
            verdict = _verdict(one, place)
            one.row["verdict"] = UNKNOWN_LOOKS if looks is None and verdict in WORDS else verdict
            if one.row["metric"] in CLEAN and one.row["verdict"] in WORDS:
                one.row["regressed"] = _regressed(one.row)


def _within(place: Place, before: list[Look], comparisons: int) -> np.ndarray:
    """p of each tested signal of a place, corrected for the others, fine enough for so many places."""
    tested = place.tested
    if not tested:
        return np.empty(0)
    differences = np.stack([one.differences for one in tested])
    if before:
        order = as_they_came(before, place.pairing)
        scales = [MODES_MARGIN if one.row["metric"] == MODES else before[0].margin for one in tested]
        p = [always_valid_p(d[order], scale, before[0].planned) for d, scale in zip(differences, scales, strict=True)]
        corrected = np.array(holm_across([[one] for one in p], len(p))).ravel()
    else:
        over_seeds = differences.var(axis=1, ddof=1) / differences.shape[1]
        errors = np.sqrt(over_seeds + np.array([one.puzzles_error for one in tested]) ** 2)
        corrected = max_t(differences, errors, comparisons)
    # A failed pair at its worst may turn the sign: then nothing is shown of the one that was found.
    found = np.array([one.row["difference"] for one in tested])
    return np.where(found * differences.mean(axis=1) > 0, corrected, 1.0)


def holm_across(places: list[list[float]], count: int) -> list[list[float]]:
    """Holm's step-down correction over `count` places of p-values that are corrected within each: [places][signals].

    Each p is multiplied by the number of places that still hold a signal not found, so that the first true null that is
    rejected was held to alpha / (places with one) at least, and the family-wise error is alpha. With one signal a place
    it is Holm's (1979).
    """
    flat = sorted((p, place) for place, signals in enumerate(places) for p in signals)
    left, highest, corrected = [len(signals) for signals in places], 0.0, {}
    for p, place in flat:
        highest = max(highest, min(1.0, p * count))
        corrected[p, place] = highest
        left[place] -= 1
        count -= left[place] == 0
    return [[corrected[p, place] for p in signals] for place, signals in enumerate(places)]


def _add_plan(one: Measured, pairing: Pairing, comparisons: int) -> None:
    """What so many seeds as are planned, or as are needed for a verdict, would find with 80 % power."""
    if one.row["role"] == "signal" and len(one.arm) > 1 and not pairing.stopped:
        seeds = max(len(pairing.pairs), seeds_needed(comparisons))
        found = detectable_from(one.arm - one.baseline, one.puzzles_error, seeds, comparisons)
        if found == found:
            one.row |= {"detectable": found, "detectable_seeds": seeds}


def _verdict(one: Measured, place: Place) -> str:
    row, planned, untested = one.row, len(place.pairing.pairs), place.untested(one)
    if row["role"] != "signal":
        few = len(one.pairs) < len(place.pairing.done)
        return f"exploratory, {len(one.pairs)} of {len(place.pairing.done)} pairs" if few else "exploratory"
    if planned < row["seeds_needed"] and (not untested or untested.startswith("not tested")):
        return f"too few seeds ({planned} of {row['seeds_needed']})"
    if untested:
        return untested
    low, high = _interval(row)
    if row.get("p_adjusted", NAN) < ALPHA and (low > 0 or high < 0):
        return "up" if low > 0 else "down"
    return "level" if -row["margin"] < low and high < row["margin"] and not place.pairing.failed else "cannot tell"


def _regressed(row: dict[str, Any]) -> str:
    """Whether clean accuracy fell by more than the margin: beside a verdict, and never more than it says."""
    low, high = _interval(row)
    if row["verdict"] == "down" and high < -row["margin"]:
        return "yes"
    return "no" if low > -row["margin"] and not row["n_failed"] else "cannot tell"


def _interval(row: dict[str, Any]) -> tuple[float, float]:
    """The interval; the difference itself where no puzzle of no seed differs from it, which has no interval."""
    return (row["difference"],) * 2 if np.isnan(row["low"]) else (row["low"], row["high"])

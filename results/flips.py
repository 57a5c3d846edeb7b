"""Sign-flip tests of paired differences: swapping the labels of two runs flips all of their differences together."""

import math
from functools import lru_cache

import numpy as np

from results.stats import ALPHA

DRAWS = 4096  # random flips, where all of them would be more
REACHING = 20  # of the draws, that should reach a statistic whose p is just small enough for its family
_TIES = 1e-9  # flips whose statistics differ by rounding alone are equal


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of no difference over pairs of runs: differences [seeds]."""
    return float(max_t(differences[None])[0])


def max_t(differences: np.ndarray, errors: np.ndarray | None = None, comparisons: int = 1) -> np.ndarray:
    """p of each signal, corrected for all of them: differences [signals, seeds] -> [signals].

    Step-down max-T (Westfall and Young 1993, algorithm 2.8): the flips keep the correlation of the signals, so that
    signals that say the same cost nothing. Strong control of the family-wise error if pairs are symmetric under no
    difference. `errors` [signals] are standard errors to hold each mean against in place of those over seeds, not
    below these (stats.over_seeds_and_puzzles): the p-values can only grow. A signal with a difference that is no number
    has p nan and does not count for the others.

    All flips up to 13 pairs, else DRAWS random ones. Of DRAWS no p is below 1 / (DRAWS + 1), too much for a family of
    205 `comparisons`: those that so few reach are tested anew, with flips of their own, as many as it takes. Either p
    is right, and which of them is taken is decided by the first alone, so what is taken is right, too.
    """
    known = np.isfinite(differences).all(axis=1)
    if not known.all():
        corrected = np.full(len(differences), np.nan)
        if known.any():
            corrected[known] = max_t(differences[known], None if errors is None else errors[known], comparisons)
        return corrected
    n = differences.shape[1]
    size = np.sqrt((differences**2).sum(axis=1))
    scaled = differences / np.where(size > 0, size, 1)[:, None]
    found = np.abs(scaled.sum(axis=1))
    if errors is not None:
        found = np.minimum(found, _as_share(differences.mean(axis=1), errors, n))
    order = np.argsort(-found, kind="stable")
    scaled, found, corrected = scaled[order], found[order], np.empty(len(found))
    p, enough = _step_down(scaled, found, DRAWS, 0), math.ceil(REACHING * comparisons / ALPHA)
    if 2 ** (n - 1) > DRAWS and enough > DRAWS and p[0] < REACHING / DRAWS:
        more = _step_down(scaled, found, enough, 1)
        p = np.where(p < REACHING / DRAWS, more, p)
    corrected[order] = np.maximum.accumulate(p)
    return corrected


def _step_down(scaled: np.ndarray, found: np.ndarray, draws: int, first: int) -> np.ndarray:
    """p of signals in the order of their statistics: scaled [signals, seeds], found [signals].

    All flips if those are no more than `draws`, else so many random ones, from the block `first` on.
    """
    n = scaled.shape[1]
    count, drawn = (2 ** (n - 1), False) if 2 ** (n - 1) <= draws else (draws, True)
    reached = np.zeros(len(found), int)
    for at in range(0, count, DRAWS):
        flips = _flips(n, at // DRAWS + first * drawn, drawn)[: count - at]
        flipped = np.abs(scaled @ flips.T)  # [signals, flips], a monotone function of |t|, the same for every signal
        largest = np.maximum.accumulate(flipped[::-1], axis=0)[::-1]  # over the signals from this one on
        reached += (largest >= found[:, None] - _TIES).sum(axis=1)
    return (reached + drawn) / (count + drawn)  # drawn: the flip that was found counts as one of the draws


def _as_share(means: np.ndarray, errors: np.ndarray, n: int) -> np.ndarray:
    """|t| = |mean| / error as the flips' statistic |sum d| / sqrt(sum d^2), whose t has the error over seeds."""
    with np.errstate(divide="ignore", invalid="ignore"):
        square = (means / errors) ** 2
        found = np.sqrt(square * n / (n - 1 + square))
    return np.where(np.isfinite(found), found, np.sqrt(n))


@lru_cache(maxsize=64)
def _flips(n: int, block: int, drawn: bool) -> np.ndarray:
    """Signs [DRAWS, n], a block of them. Of all flips half are enough: the other half has the same |sum|."""
    if drawn:
        return np.random.default_rng(block).choice([-1.0, 1.0], (DRAWS, n))
    numbers = np.arange(block * DRAWS, min((block + 1) * DRAWS, 2 ** (n - 1)))
    return 1.0 - 2.0 * (numbers[:, None] >> np.arange(n) & 1)

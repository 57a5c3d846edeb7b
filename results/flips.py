"""Sign-flip tests of paired differences: swapping the labels of two runs flips all of their differences together."""

from functools import lru_cache

import numpy as np

EXACT_SEEDS = 12  # all 2^n flips up to so many pairs, DRAWS random ones beyond
DRAWS = 4096
_TIES = 1e-9  # flips whose statistics differ by rounding alone are equal


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of no difference over pairs of runs: differences [seeds]."""
    return float(max_t(differences[None])[0])


def max_t(differences: np.ndarray, errors: np.ndarray | None = None) -> np.ndarray:
    """p of each signal, corrected for all of them: differences [signals, seeds] -> [signals].

    Step-down max-T (Westfall and Young 1993, algorithm 2.8): the flips keep the correlation of the signals, so that
    signals that say the same cost nothing. Strong control of the family-wise error if pairs are symmetric under no
    difference. `errors` [signals] are standard errors to hold each mean against in place of those over seeds, not
    below these (stats.over_seeds_and_puzzles): the p-values can only grow. A signal with a difference that is no number
    has p nan and does not count for the others.
    """
    known = np.isfinite(differences).all(axis=1)
    if not known.all():
        corrected = np.full(len(differences), np.nan)
        if known.any():
            corrected[known] = max_t(differences[known], None if errors is None else errors[known])
        return corrected
    n = differences.shape[1]
    size = np.sqrt((differences**2).sum(axis=1))
    scaled = differences / np.where(size > 0, size, 1)[:, None]
    flipped = np.abs(scaled @ _flips(n).T)  # [signals, flips], a monotone function of |t|, the same for every signal
    found = np.abs(scaled.sum(axis=1))
    if errors is not None:
        found = np.minimum(found, _as_share(differences.mean(axis=1), errors, n))
    order = np.argsort(-found, kind="stable")
    largest = np.maximum.accumulate(flipped[order[::-1]], axis=0)[::-1]  # over the signals from this one on
    reached = (largest >= found[order, None] - _TIES).sum(axis=1)
    drawn = n > EXACT_SEEDS  # then the flip that was found counts as one of the draws
    p = np.maximum.accumulate((reached + drawn) / (flipped.shape[1] + drawn))
    corrected = np.empty(len(p))
    corrected[order] = p
    return corrected


def _as_share(means: np.ndarray, errors: np.ndarray, n: int) -> np.ndarray:
    """|t| = |mean| / error as the flips' statistic |sum d| / sqrt(sum d^2), whose t has the error over seeds."""
    with np.errstate(divide="ignore", invalid="ignore"):
        square = (means / errors) ** 2
        found = np.sqrt(square * n / (n - 1 + square))
    return np.where(np.isfinite(found), found, np.sqrt(n))


@lru_cache
def _flips(n: int) -> np.ndarray:
    """Signs [flips, n]. Of all flips half are enough: the other half has the same |sum|."""
    if n <= EXACT_SEEDS:
        bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1
        return 1.0 - 2.0 * bits
    return np.random.default_rng(0).choice([-1.0, 1.0], (DRAWS, n))

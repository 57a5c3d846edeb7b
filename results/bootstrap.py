"""How well a score tells the solved from the failed: the area under the ROC curve, with a bootstrap interval."""

from typing import NamedTuple

import numpy as np

from results.stats import ALPHA, NAN, auc

RESAMPLES = 1000
_TOGETHER = 2**22  # resampled examples held at a time


class Area(NamedTuple):
    """An AUC and its 95 % percentile interval over examples; nan where undefined."""

    auc: float
    low: float
    high: float


def auc_with_interval(
    scores: np.ndarray, positives: np.ndarray, resamples: int = RESAMPLES, examples: np.ndarray | None = None
) -> Area:
    """The AUC of scores [n] for bool [n], and its percentile interval over examples drawn anew with replacement.

    `examples` [n] says of which example each is, by default of its own: those of one, of several seeds, are drawn
    together. Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 8 and 13. Draws are always the
    same; those that hold one kind alone say nothing. Scores that are not a number are left out.
    """
    known = ~np.isnan(scores)
    scores, positives = scores[known], positives[known].astype(bool)
    of_each = np.arange(len(known)) if examples is None else examples
    distinct, place = np.unique(of_each[known], return_inverse=True)
    area = auc(scores, positives) if len(scores) else NAN
    if np.isnan(area):
        return Area(NAN, NAN, NAN)
    n, rng = len(distinct), np.random.default_rng(0)
    size = max(1, _TOGETHER // len(scores))
    counts = (rng.multinomial(n, np.full(n, 1 / n), min(size, resamples - done)) for done in range(0, resamples, size))
    drawn = [resampled_auc(scores, positives, of_examples[:, place]) for of_examples in counts]
    low, high = np.nanquantile(np.concatenate(drawn), [ALPHA / 2, 1 - ALPHA / 2])
    return Area(area, float(low), float(high))


def resampled_auc(scores: np.ndarray, positives: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The AUC of each resample: counts [resamples, n] say how often it holds each example; nan with one kind alone."""
    order = np.argsort(scores, kind="stable")
    _, starts = np.unique(scores[order], return_index=True)  # equal scores are one step of the curve
    above = np.add.reduceat(counts[:, order] * positives[order], starts, axis=1).astype(float)
    below = np.add.reduceat(counts[:, order] * ~positives[order], starts, axis=1).astype(float)
    won = (above * (below.cumsum(axis=1) - below / 2)).sum(axis=1)
    pairs = above.sum(axis=1) * below.sum(axis=1)
    return np.divide(won, pairs, out=np.full(len(pairs), NAN), where=pairs > 0)

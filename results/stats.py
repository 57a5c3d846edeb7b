"""Paired effects and their intervals, as pure functions of arrays: a training run and a puzzle are each a sample."""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr, ndtri, stdtrit

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
NAN = float("nan")


class Effect(NamedTuple):
    """A mean paired difference, its standard error, degrees of freedom and 95 % t interval; nan where undefined."""

    mean: float
    error: float
    freedom: float
    low: float
    high: float


class McNemar(NamedTuple):
    """Examples that only the arm solves, that only the baseline solves, and the exact two-sided p of no difference."""

    gained: int
    lost: int
    p: float


def over_one_sample(differences: np.ndarray) -> Effect:
    """Effect over one sample: differences [n] of seeds, for these puzzles; or of puzzles, for this pair of runs.

    Equal differences hold no estimate of the spread: an interval of width 0 would claim certainty.
    """
    n, mean = len(differences), float(differences.mean())
    if n < 2 or np.ptp(differences) == 0:
        return Effect(mean, NAN, NAN, NAN, NAN)
    return _interval(mean, float(differences.std(ddof=1)) / math.sqrt(n), n - 1)


def over_seeds_and_puzzles(differences: np.ndarray) -> Effect:
    """Effect over training runs and puzzles, both samples: differences [seeds, puzzles], two or more of each.

    Two-way variance components without replication: with the mean squares of seeds S, puzzles P and residual R, the
    variance of the grand mean is (S + P - R) / (n m), and Satterthwaite's (1946) degrees of freedom are those of that
    sum. No component is taken below 0: S and P count as R at least. So the error is never below the one over seeds.
    """
    n, m = differences.shape
    mean = float(differences.mean())
    by_seed, by_puzzle = differences.mean(axis=1) - mean, differences.mean(axis=0) - mean
    sum_seeds, sum_puzzles = m * float(by_seed @ by_seed), n * float(by_puzzle @ by_puzzle)
    # The residual's sum of squares is what the two leave of the total; rounding may leave less than nothing.
    flat = differences.ravel() - mean
    residual = max(float(flat @ flat) - sum_seeds - sum_puzzles, 0.0) / ((n - 1) * (m - 1))
    seeds, puzzles = (max(sum_seeds / (n - 1), residual), max(sum_puzzles / (m - 1), residual))
    total = seeds + puzzles - residual
    if total <= 1e-12 * n * m:
        return Effect(mean, NAN, NAN, NAN, NAN)
    freedom = total**2 / (seeds**2 / (n - 1) + puzzles**2 / (m - 1) + residual**2 / ((n - 1) * (m - 1)))
    return _interval(mean, math.sqrt(total / (n * m)), freedom)


def _interval(mean: float, error: float, freedom: float) -> Effect:
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error  # the quantile of t
    return Effect(mean, error, freedom, mean - half, mean + half)


def mcnemar(arm: np.ndarray, baseline: np.ndarray) -> list[McNemar]:
    """Exact McNemar test of each pair of runs on the same examples: bool [seeds, n] each.

    Never pooled over seeds: the examples of two runs are not independent.
    """
    gained, lost = (arm & ~baseline).sum(axis=1), (baseline & ~arm).sum(axis=1)
    p = np.minimum(1, 2 * bdtr(np.minimum(gained, lost), gained + lost, 0.5))
    return [McNemar(int(g), int(n), float(q)) for g, n, q in zip(gained, lost, p, strict=True)]


def iqm(scores: np.ndarray) -> float:
    """Interquartile mean of scores [runs]: without the lowest and the highest quarter (Agarwal et al. 2021)."""
    cut = len(scores) // 4
    return float(np.sort(scores)[cut : len(scores) - cut].mean())


def probability_of_improvement(arm: np.ndarray, baseline: np.ndarray) -> float:
    """P(a run of the arm scores above a run of the baseline), ties half: [runs] each (Agarwal et al. 2021)."""
    above = np.sign(arm[:, None] - baseline).mean()
    return float((1 + above) / 2)


def pass_at_k(correct: np.ndarray, k: int) -> np.ndarray:
    """The probability [n] that some of k rollouts is right: correct bool [n, K], k <= K.

    Unbiased: 1 - C(K - c, k) / C(K, k) where c of the K are right (Chen et al., arXiv 2107.03374, equation 1).
    """
    K = correct.shape[1]
    return np.array([1 - math.comb(K - c, k) / math.comb(K, k) for c in range(K + 1)])[correct.sum(axis=1)]


def aurc(confidence: np.ndarray, failed: np.ndarray) -> float:
    """Area under the risk-coverage curve: confidence [n], failed bool [n].

    The mean over all coverages of the share that failed, of the most confident so many (Geifman and El-Yaniv, NeurIPS
    2017). Of equal confidence each has the share of all of them: their order says nothing.
    """
    order = np.argsort(-confidence, kind="stable")
    values, place, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    share = np.bincount(place, weights=failed, minlength=len(values)) / count
    return float((share[place][order].cumsum() / np.arange(1, len(order) + 1)).mean())


def wilson(some: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, some of n (Wilson, JASA 22, 1927)."""
    z = float(ndtri((1 + CONFIDENCE) / 2))
    middle, half = some + z**2 / 2, z * math.sqrt(some * (n - some) / n + z**2 / 4)
    low, high = ((middle + sign * half) / (n + z**2) for sign in (-1, 1))
    return low if some else 0.0, high if some < n else 1.0


def auc(scores: np.ndarray, positives: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties half: scores [n] that are
    numbers, bool [n]; nan without both kinds.

    The area under the ROC curve, by the Mann-Whitney statistic.
    """
    if positives.all() or not positives.any():
        return NAN
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = count.cumsum() - (count - 1) / 2  # equal scores have the mean of theirs
    n = positives.sum()
    return float((ranks[place[positives]].sum() - n * (n + 1) / 2) / (n * (~positives).sum()))

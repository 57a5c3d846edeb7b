"""The order in which training visits the groups of a data set, and the puzzle it takes of each."""

from functools import lru_cache

import numpy as np

from rrm.streams import numpy_generator, uniforms


def stateless_rows(groups: np.ndarray, seed: int, step: int, batch_size: int, rows: range) -> np.ndarray:
    """Puzzles of some rows of a step's batch, int64 [len(rows)]: our own order.

    groups int64 [G + 1]. Each epoch is a permutation of the groups and takes a random puzzle of each; a batch may span
    two epochs.
    """
    place = [divmod(step * batch_size + row, len(groups) - 1) for row in rows]
    group = np.array([_permutation(seed, epoch, len(groups) - 1)[i] for epoch, i in place])
    sizes = groups[group + 1] - groups[group]
    return groups[group] + (uniforms(seed, "member", step, rows, 4)[:, 0] * sizes).astype(np.int64)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return numpy_generator(seed, "order", epoch).permutation(n)


def published_rows(groups: np.ndarray, seed: int, step: int, batch_size: int, epochs_per_iter: int) -> np.ndarray:
    """Puzzles of a step's batch, int64 [batch_size]: the order of the published loader (TRM's puzzle_dataset.py).

    groups int64 [G + 1]. Pass k, from 1, draws from Philox(seed + k): `epochs_per_iter` permutations of the groups, one
    after another, then a puzzle of each group visited. Batches cross from epoch to epoch; what fills no batch at the
    end of a pass is dropped; a pass must hold a batch or more.
    """
    batches = epochs_per_iter * (len(groups) - 1) // batch_size
    iteration, batch = divmod(step, batches)
    visits = _pass(groups.tobytes(), seed + iteration + 1, epochs_per_iter)
    return visits[batch * batch_size : (batch + 1) * batch_size]


@lru_cache(maxsize=2)
def _pass(groups_bytes: bytes, seed: int, epochs: int) -> np.ndarray:
    groups = np.frombuffer(groups_bytes, dtype=np.int64)
    rng = np.random.Generator(np.random.Philox(seed=seed))
    order = np.concatenate([rng.permutation(len(groups) - 1) for _ in range(epochs)])
    return rng.integers(groups[order], groups[order + 1])

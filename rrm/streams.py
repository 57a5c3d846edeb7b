"""Stateless random streams: every number is a function of (seed, stream, step, row), so nothing has to be saved.

A resumed run, and any number of data-parallel workers that each take a slice of the rows, see the same numbers.
Streams of different names are independent: drawing more from one never moves another.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

_MASK = (1 << 64) - 1
# Rows that one draw serves, at a trajectory's start and on its way: seeding a generator costs microseconds on a CPU,
# far more on a GPU, and noise on the way comes often.
ROWS_PER_DRAW = {"cpu": (1, 4)}
ROWS_PER_GPU_DRAW = (32, 32)


def _splitmix64(x: int) -> int:
    """The finaliser of Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def stream_key(seed: int, stream: str, *indices: int) -> int:
    """A 64-bit key for (seed, stream, indices): a splitmix64 chain, the same on every machine."""
    name = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")
    key = _splitmix64(_splitmix64(seed & _MASK) ^ name)
    for index in indices:
        key = _splitmix64(key ^ _splitmix64(index & _MASK))
    return key


def numpy_generator(seed: int, stream: str, *indices: int) -> np.random.Generator:
    """A numpy generator (Philox) at the start of the stream (seed, stream, indices)."""
    return np.random.Generator(np.random.Philox(key=stream_key(seed, stream, *indices)))


def torch_generator(seed: int, stream: str, *indices: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator at the start of the stream (seed, stream, indices).

    CPU and CUDA numbers differ, and those of two GPU models may. Torch's CPU generator keeps 32 bits of the key.
    """
    return torch.Generator(device).manual_seed(stream_key(seed, stream, *indices))


def uniforms(seed: int, stream: str, step: int, rows: range, width: int) -> np.ndarray:
    """Uniform numbers in [0, 1) for some rows of a step's global batch.

    Returns float64 [len(rows), width]. A row's numbers depend on (seed, stream, step, row) alone: a slice of the rows
    gives the slice of the numbers. `width` must be a multiple of 4 (one Philox counter yields four words).
    """
    if width % 4:
        raise ValueError(f"width: {width} is not a multiple of 4")
    bits = np.random.Philox(key=stream_key(seed, stream, step)).advance(rows.start * width // 4)
    return np.random.Generator(bits).random((len(rows), width))


def normals(
    seed: int,
    stream: str,
    step: int,
    rows: range,
    k: int,
    shape: tuple[int, ...],
    device: torch.device,
    moment: tuple[int, ...] = (),
) -> Tensor:
    """Standard normal float32 [len(rows), *shape] for trajectory k of some rows of a step's global batch.

    `moment` says when on the trajectory's way, if not at its start. A row's numbers depend on (seed, stream, step, row,
    k, moment) and the device alone: all CPUs have the same, and all GPUs of one model (torch deals a large draw out to
    as many threads as there are on the GPU's multiprocessors). Torch's CPU generator keeps 32 bits of their key: of
    millions of draws, a few pairs far apart are the same.
    """
    block = ROWS_PER_DRAW.get(device.type, ROWS_PER_GPU_DRAW)[bool(moment)]
    first, last = rows.start // block, (rows.stop - 1) // block
    generator = torch.Generator(device)
    draws = [
        torch.randn(
            (block, *shape),
            generator=generator.manual_seed(stream_key(seed, stream, step, index, k, *moment)),
            device=device,
            dtype=torch.float32,
        )
        for index in range(first, last + 1)
    ]
    offset = rows.start - first * block
    return torch.cat(draws)[offset : offset + len(rows)]

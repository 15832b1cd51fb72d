"""Philox 2x32-10, the counter-based generator behind `RandomBits`, written out with NumPy.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.3.
"""

from __future__ import annotations

import numpy as np

MULTIPLIER = 0xD256D193
WEYL = 0x9E3779B9
ROUNDS = 10
MASK = 0xFFFFFFFF


def philox_2x32(counter_0: np.ndarray, counter_1: int, key: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the two words that Philox 2x32-10 gives for each counter.

    Parameters
    ----------
    counter_0
        uint64 array of any shape holding the counters' first words, each below 2**32.
    counter_1, key
        The counters' second word and the key, each below 2**32.

    Returns
    -------
    Two uint32 arrays of the shape of ``counter_0``.
    """
    mask = np.uint64(MASK)
    left = np.asarray(counter_0, dtype=np.uint64) & mask
    right = np.full_like(left, counter_1 & MASK)
    key &= MASK
    for _ in range(ROUNDS):
        wide = left * np.uint64(MULTIPLIER)
        left, right = (wide >> np.uint64(32)) ^ np.uint64(key) ^ right, wide & mask
        key = (key + WEYL) & MASK
    return left.astype(np.uint32), right.astype(np.uint32)


def random_bits(state: int, shape: tuple[int, ...], stream: int, word: int) -> np.ndarray:
    """Return 32 random bits for every element of ``shape``, as `ops.RandomBits` defines them.

    ``state`` is the int64 whose high half is the seed and whose low half numbers the draw.
    """
    seed, draw = (state >> 32) & MASK, state & MASK
    key = ((stream * WEYL) & MASK) ^ seed
    index = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.uint64)
    return philox_2x32(index, draw, key)[word].reshape(shape)

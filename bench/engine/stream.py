"""The stream of training samples: a function of the seed and the position alone, whatever the batch size."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(*parts: object) -> int:
    """63-bit seed from any parts (seed, arm name, purpose): stable across processes, machines and versions."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _splitmix64(values: np.ndarray) -> np.ndarray:
    """Mix 64-bit integers (Steele et al. 2014): neighbouring inputs give unrelated outputs."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class SampleStream:
    """Endless shuffled epochs over `size` samples. Position n is the same sample, with the same draw, for every arm."""

    def __init__(self, seed: int, size: int) -> None:
        """Shuffle `size` samples by `seed`."""
        self._seed, self._size = seed, size
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, self._size)
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(derive_seed(self._seed, "epoch", epoch)))
            self._epoch, self._order = epoch, generator.permutation(self._size)
        return int(self._order[offset])

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices [count] int64 and draws [count] uint64 of the positions start, start + 1, ..."""
        indices = np.array([self._index(position) for position in range(start, start + count)], dtype=np.int64)
        positions = np.arange(start, start + count, dtype=np.uint64)
        with np.errstate(over="ignore"):
            draws = _splitmix64(positions + np.uint64(derive_seed(self._seed, "draw")))
        return indices, draws

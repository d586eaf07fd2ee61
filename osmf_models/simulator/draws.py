"""Random draws as pure functions of (seed, name, key): the same on every machine and for every partitioning.

What is drawn does not belong here.

Source: the finaliser of SplitMix64, Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osmf_models.simulator.shapes import Array

Index = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class Draws:
    """Draws that depend on `seed`, a name and a key for each value, and on nothing else."""

    seed: int

    def uniform(self, name: str, keys: Index) -> Array:
        """Returns numbers in [0, 1), one for each key."""
        return (self._bits(name, keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def index(self, name: str, keys: Index, count: int | Index) -> Index:
        """Returns whole numbers, uniform over 0 .. count - 1, one for each key."""
        return (self.uniform(name, keys) * count).astype(np.int64)

    def choice(self, name: str, keys: Index, cumulative: Array) -> Index:
        """Returns entries 0 .. n - 1 with probabilities whose cumulative sums are `cumulative`, (n,), the last 1."""
        return np.searchsorted(cumulative[:-1], self.uniform(name, keys), side="right")

    def some(self, name: str, keys: Index, share: float) -> NDArray[np.bool_]:
        """Returns for each key whether it is among a share of them."""
        return self.uniform(name, keys) < share

    def _bits(self, name: str, keys: Index) -> NDArray[np.uint64]:
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=8).digest()
        mixed = keys.astype(np.uint64) * _GOLDEN
        mixed += np.uint64(int.from_bytes(digest, "little"))
        for shift, factor in ((np.uint64(30), _FIRST), (np.uint64(27), _SECOND)):
            mixed ^= mixed >> shift
            mixed *= factor
        mixed ^= mixed >> np.uint64(31)
        return mixed

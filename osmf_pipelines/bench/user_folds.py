"""Spark's `xxhash64` of text in numpy: the fold of a user, for a peer that has no such function.

Source: XXH64, Y. Collet, xxHash specification 0.1.1; arithmetic is modulo 2^64.

Shapes: `N` texts, `L` bytes of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(prime)
    for prime in (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
)
_SPARK_SEED = 42


def user_folds(user_ids: Sequence[str], fold_key: str, num_folds: int) -> NDArray[np.int32]:
    """Returns pmod(xxhash64(fold_key, user_id), num_folds), as Spark does, (N,).

    Args:
        user_ids: ASCII texts of the same length.
        fold_key: the secret.
        num_folds: number of folds.

    Raises:
        ValueError: when lengths differ.
    """
    if len({len(one) for one in user_ids}) > 1:
        raise ValueError("user ids have different lengths: hashed ids have the same.")
    if not len(user_ids):
        return np.zeros(0, dtype=np.int32)
    seed = xxhash64(np.frombuffer(fold_key.encode(), dtype=np.uint8)[None, :], np.uint64(_SPARK_SEED))[0]
    texts = np.frombuffer("".join(user_ids).encode("ascii"), dtype=np.uint8).reshape(len(user_ids), -1)
    return (xxhash64(texts, seed).view(np.int64) % num_folds).astype(np.int32)


def xxhash64(texts: NDArray[np.uint8], seed: np.uint64) -> Words:
    """Returns the XXH64 of each text, (N,).

    Args:
        texts: (N, L).
        seed: of the hash.
    """
    num_texts, length = texts.shape
    with np.errstate(over="ignore"):
        place = length - length % 32
        if place:
            hashed = _stripes(_words(texts[:, :place], 8), seed)
        else:
            hashed = np.full(num_texts, seed + _P5, dtype=np.uint64)
        hashed = hashed + np.uint64(length)
        while place + 8 <= length:
            hashed = hashed ^ _round(np.zeros_like(hashed), _words(texts[:, place : place + 8], 8)[:, 0])
            hashed = _rotate(hashed, 27) * _P1 + _P4
            place += 8
        if place + 4 <= length:
            hashed = hashed ^ (_words(texts[:, place : place + 4], 4)[:, 0] * _P1)
            hashed = _rotate(hashed, 23) * _P2 + _P3
            place += 4
        for column in range(place, length):
            hashed = _rotate(hashed ^ (texts[:, column].astype(np.uint64) * _P5), 11) * _P1
        hashed = (hashed ^ (hashed >> np.uint64(33))) * _P2
        hashed = (hashed ^ (hashed >> np.uint64(29))) * _P3
        return hashed ^ (hashed >> np.uint64(32))


def _stripes(words: Words, seed: np.uint64) -> Words:
    """Texts of a multiple of 32 bytes, as words (N, L / 8), before their length goes in."""
    lanes = [np.full(len(words), start, dtype=np.uint64) for start in (seed + _P1 + _P2, seed + _P2, seed, seed - _P1)]
    for place in range(0, words.shape[1], 4):
        lanes = [_round(lane, words[:, place + number]) for number, lane in enumerate(lanes)]
    first, second, third, fourth = lanes
    hashed = _rotate(first, 1) + _rotate(second, 7) + _rotate(third, 12) + _rotate(fourth, 18)
    for lane in lanes:
        hashed = (hashed ^ _round(np.zeros_like(lane), lane)) * _P1 + _P4
    return hashed


def _round(lane: Words, words: Words) -> Words:
    return _rotate(lane + words * _P2, 31) * _P1


def _rotate(values: Words, bits: int) -> Words:
    return (values << np.uint64(bits)) | (values >> np.uint64(64 - bits))


def _words(texts: NDArray[np.uint8], num_bytes: int) -> Words:
    """Little-endian words of `num_bytes`, (N, L / num_bytes)."""
    return np.ascontiguousarray(texts).view(f"<u{num_bytes}").astype(np.uint64)

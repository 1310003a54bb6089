"""Embeddings whose dot products are exact, so that a ranking does not depend on how it was computed.

A grid of b bits holds the integers up to 2^b, times a power of two. The product of two numbers from grids of b and c
bits needs b + c bits, and a sum of D products log2(D) more; while that is at most 53, no float64 addition rounds, so
their order (batch shape, kernel, threads, device) does not matter. With D = 64, 23 bits remain for users and 24 for
songs, next to float32's 24; with D = 256, 22 and 23. The idea is the error-free splitting of Ozaki et al., "Error-free
transformations of matrix multiplication by using fast routines of matrix multiplication" (2012).

Nothing here imports torch: the recommender in the registry ranks with the same numbers as the evaluation.
"""

from __future__ import annotations

import math

import numpy as np

FLOAT32_BITS = 24
FLOAT64_BITS = 53


def on_user_grid(user: np.ndarray) -> np.ndarray:
    """Users (U, D) as float64, each row on a grid of its own, since only scores of one user are compared."""
    return _round(user, _budget(user.shape[1]) // 2, np.max(np.abs(user), axis=1, keepdims=True, initial=0.0))


def on_song_grid(song: np.ndarray) -> np.ndarray:
    """Songs (S, D) as float64 on one grid: within 2^-bits of the largest entry."""
    largest = max(song.max(initial=0.0), -song.min(initial=0.0))
    return _round(song, _budget(song.shape[1]) - _budget(song.shape[1]) // 2, np.asarray(largest))


def _budget(dim: int) -> int:
    """Bits that a product of a user's and a song's entry may have."""
    return min(2 * FLOAT32_BITS, FLOAT64_BITS - math.ceil(math.log2(max(2, dim))))


def _round(matrix: np.ndarray, bits: int, largest: np.ndarray) -> np.ndarray:
    exponent = np.frexp(largest.astype(np.float64))[1] - bits
    rounded = matrix.astype(np.float64)
    rounded *= np.ldexp(1.0, -exponent)
    np.rint(rounded, out=rounded)
    rounded *= np.ldexp(1.0, exponent)
    return rounded

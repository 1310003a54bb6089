"""Quantize embeddings so that their dot products are exact: then a ranking does not depend on how it was computed.

A grid of b bits holds the integers up to 2^b, times a power of two. The product of two numbers from grids of b and c
bits needs b + c bits, and a sum of D products needs log2(D) bits more. If that is at most 53 bits, no float64 addition
rounds, so the order of the additions (batch shape, kernel, threads, device) does not matter. With D = 64, 23 bits
remain for users and 24 for songs (float32 has 24); with D = 256, 22 and 23. The idea is the error-free splitting of
Ozaki et al., "Error-free transformations of matrix multiplication by using fast routines of matrix multiplication"
(2012).

This module does not import torch: the recommender in the registry ranks with the same numbers as the evaluation.
"""

from __future__ import annotations

import math

import numpy as np

FLOAT32_BITS = 24
FLOAT64_BITS = 53


def quantize_users(user: np.ndarray) -> np.ndarray:
    """Round user vectors (U, D) to float64, each row on its own grid: only scores of one user are compared."""
    largest = np.max(np.abs(user), axis=1, keepdims=True, initial=0.0)
    return _round(user, _bits_of_product(user.shape[1]) // 2, largest)


def quantize_songs(song: np.ndarray) -> np.ndarray:
    """Round song vectors (S, D) to float64 on one grid; an entry moves by at most 2^-bits of the largest entry."""
    largest = max(song.max(initial=0.0), -song.min(initial=0.0))
    bits = _bits_of_product(song.shape[1])
    return _round(song, bits - bits // 2, np.asarray(largest))


def _bits_of_product(dim: int) -> int:
    """Return how many bits the product of a user's and a song's entry may have."""
    return min(2 * FLOAT32_BITS, FLOAT64_BITS - math.ceil(math.log2(max(2, dim))))


def _round(matrix: np.ndarray, bits: int, largest: np.ndarray) -> np.ndarray:
    exponent = np.frexp(largest.astype(np.float64))[1] - bits
    rounded = matrix.astype(np.float64)
    rounded *= np.ldexp(1.0, -exponent)
    np.rint(rounded, out=rounded)
    rounded *= np.ldexp(1.0, exponent)
    return rounded

"""Factors whose dot products are exact, so that a ranking does not depend on how it was computed.

Nothing here imports torch: the recommender in the registry ranks with the same numbers as the evaluation.
"""

from __future__ import annotations

import math

import numpy as np

FLOAT32_BITS = 24
FLOAT64_BITS = 53


def exact_factors(user: np.ndarray, song: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round embeddings to grids on which every float64 dot product is exact.

    A grid of b bits holds the integers up to 2^b, times a power of two. The product of two numbers from grids of b and
    c bits needs b + c bits, a sum of D products log2(D) more; while that is at most 53, no addition rounds, so the
    order of the additions (batch shape, kernel, threads, device) does not matter. With D up to 64, 23 bits and
    more remain, next to float32's 24; with 256, 22. This is error-free transformation as in Ozaki et al., "Error-free
    transformations of matrix multiplication by using fast routines of matrix multiplication" (2012).

    Args:
        user: (U, D) float. Each row has a grid of its own, since only scores of one user are compared.
        song: (S, D) float. One grid for all.

    Returns:
        both as float64, (U, D) and (S, D), each entry within 2^-bits of its row's (songs: the matrix's) largest.
    """
    spare = FLOAT64_BITS - math.ceil(math.log2(max(2, user.shape[1])))
    bits = min(FLOAT32_BITS, spare // 2), min(FLOAT32_BITS, spare - spare // 2)
    return _to_grid(user, bits[0], axis=1), _to_grid(song, bits[1], axis=None)


def _to_grid(matrix: np.ndarray, bits: int, axis: int | None) -> np.ndarray:
    exact = matrix.astype(np.float64)
    largest = np.max(np.abs(exact), axis=axis, keepdims=True, initial=0.0)
    exponent = np.frexp(largest)[1] - bits
    return np.ldexp(np.rint(np.ldexp(exact, -exponent)), exponent)

"""Test if a difference is more than chance, and correct the p-values of many tests. This module needs numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

FLIPS = 9999
NORMAL_FROM = 2000
"""From this number of users on, a normal limit replaces random signs: both p-values agree to the third digit."""
SIGNS_AT_ONCE = 2**22
LEVEL = 0.05
"""A difference is reported if its corrected p-value is below this level."""


def sign_flip_p_value(differences: ArrayLike, seed: int, flips: int = FLIPS) -> float:
    """Return the two-sided p-value of a mean paired difference under random signs.

    H0: both systems are equal, so each user's difference has either sign with the same probability. This is Fisher's
    randomisation test, recommended by Smucker, Allan and Carterette, "A comparison of statistical significance tests
    for information retrieval evaluation" (2007). The observed signs count as one draw, so the p-value is never 0
    (Phipson and Smyth, 2010). From ``NORMAL_FROM`` users on, the normal limit of the same distribution is used.

    Args:
        differences: (N,) one finite number per user; users with difference 0 change nothing.
        seed: seed of the signs.
        flips: how many sets of signs to draw.
    """
    given = np.asarray(differences, dtype=np.float64)
    given = given[given != 0]
    if not len(given):
        return 1.0
    if len(given) >= NORMAL_FROM:
        return math.erfc(abs(given.sum()) / math.sqrt(2 * np.square(given).sum()))
    observed = abs(given.sum()) * (1 - 1e-12)  # equal sums in another order are equal
    as_extreme = sum(int((np.abs(sums) >= observed).sum()) for sums in _sums_with_random_signs(given, seed, flips))
    return (1 + as_extreme) / (flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct each p-value for the number of tests, so that the chance of any false claim stays below the level.

    Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.asarray(p_values, dtype=np.float64)[order] * np.arange(count, 0, -1)
    corrected = np.empty(count)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return [float(value) for value in corrected]


def _sums_with_random_signs(given: np.ndarray, seed: int, flips: int) -> list[np.ndarray]:
    """Return ``flips`` sums of ``given`` (N,), each with its own random signs; in chunks, to bound the memory."""
    generator, count = np.random.default_rng(seed), len(given)
    chunk = max(1, SIGNS_AT_ONCE // count)
    sums = []
    for start in range(0, flips, chunk):
        rows = min(chunk, flips - start)
        drawn = generator.integers(0, 256, size=(rows, -(-count // 8)), dtype=np.uint8)
        is_plus = np.unpackbits(drawn, axis=1, count=count).astype(np.float64)  # (rows, N) zeros and ones
        sums.append(2 * (is_plus @ given) - given.sum())
    return sums

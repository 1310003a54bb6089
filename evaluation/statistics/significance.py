"""Whether a difference is more than chance: a paired test, and its correction where there are many. Numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

FLIPS = 9999
NORMAL_FROM = 2000
"""Users with a difference from which the normal limit stands in for drawing: both agree to the third digit."""
SIGNS_AT_ONCE = 2**22
LEVEL = 0.05
"""A corrected p-value below it is called a difference."""


def sign_flip_p_value(differences: ArrayLike, seed: int, flips: int = FLIPS) -> float:
    """Two-sided p-value of a mean paired difference under random signs: if the two were alike, each user's difference
    would be as likely with the other sign.

    Fisher's randomisation test, which Smucker, Allan and Carterette, "A comparison of statistical significance tests
    for information retrieval evaluation" (2007), recommend. The draw itself counts as one, so it is never 0 (Phipson
    and Smyth, 2010); from ``NORMAL_FROM`` users on, the limit of the same distribution is used.

    Args:
        differences: (N,) one finite number a user; users without a difference change nothing.
        seed: of the signs.
        flips: how many sets of signs are drawn.
    """
    given = np.asarray(differences, dtype=np.float64)
    given = given[given != 0]
    if not len(given):
        return 1.0
    if len(given) >= NORMAL_FROM:
        return math.erfc(abs(given.sum()) / math.sqrt(2 * np.square(given).sum()))
    observed = abs(given.sum()) * (1 - 1e-12)  # equal sums in another order are equal
    return (1 + sum(int((np.abs(sums) >= observed).sum()) for sums in _flipped(given, seed, flips))) / (flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value corrected for the number of tests: the chance of any false claim stays below the level.

    Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.asarray(p_values, dtype=np.float64)[order] * np.arange(count, 0, -1)
    corrected = np.empty(count)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return [float(value) for value in corrected]


def _flipped(given: np.ndarray, seed: int, flips: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    chunk = max(1, SIGNS_AT_ONCE // len(given))
    rows = [min(chunk, flips - start) for start in range(0, flips, chunk)]
    return [2 * (_bits(generator, count, len(given)) @ given) - given.sum() for count in rows]


def _bits(generator: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) zeros and ones, as likely."""
    drawn = generator.integers(0, 256, size=(rows, -(-columns // 8)), dtype=np.uint8)
    return np.unpackbits(drawn, axis=1, count=columns).astype(np.float64)

"""Logarithm and exponential of float32, written out so that loops are vectorised and all machines get the same bits.

Both follow Cephes (S. L. Moshier, netlib.org/cephes, ``logf.c`` and ``expf.c``) and are right to one or two units in
the last place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.kernels.compiled import exact

GREATEST = np.finfo(np.float32).max

ROOT = np.int32(0x3F3504F3)
"""Bits of the square root of 1/2: mantissas are taken between it and its double, around 1."""

LN2, LN2_REST = np.float32(0.693359375), np.float32(-2.12194440e-4)
"""Their sum is the logarithm of 2; the product of the first with any exponent is exact."""

LOG2_E = np.float32(1.44269504088896341)
ONE, HALF = np.float32(1.0), np.float32(0.5)

LOG = tuple(
    np.float32(factor)
    for factor in (
        7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )
)  # fmt: skip
"""Coefficients of m^3 in log(1 + m), the highest power first."""

EXP = tuple(
    np.float32(factor)
    for factor in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)
"""Coefficients of r^2 in exp(r), the highest power first."""


@exact
def log(x: Any) -> Any:
    """Return the natural logarithm of a float32 that is at least 2^-126; infinity and NaN are returned unchanged."""
    shifted = np.int32(np.float32(x).view(np.int32) - ROOT)  # int32: Numba would use 64 bits, half as many at once
    exponent = np.float32(np.int32(shifted >> 23))
    m = np.int32((shifted & 0x7FFFFF) + ROOT).view(np.float32) - ONE
    series = LOG[0]
    for factor in LOG[1:]:
        series = series * m + factor
    square = m * m
    rest = series * m * square + exponent * LN2_REST - HALF * square
    return (m + rest) + exponent * LN2 if x <= GREATEST else x


@exact
def exp(x: Any) -> Any:
    """Return the exponential of a float32 between -87 and 88."""
    exponent = np.floor(x * LOG2_E + HALF)
    r = (x - exponent * LN2) - exponent * LN2_REST
    series = EXP[0]
    for factor in EXP[1:]:
        series = series * r + factor
    power = np.int32((np.int32(exponent) + 127) << 23).view(np.float32)
    return (series * r * r + r + ONE) * power

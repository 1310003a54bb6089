"""Bootstrap intervals over users. This module needs numpy only, so that results are compared without loading torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from data.errors import InputError

CONFIDENCE = 0.95
NORMAL_QUANTILE = 1.959963984540054
"""Standard deviations from the mean of a normal distribution to either end of its central 95 %."""
SAMPLES = 1000
DRAWS_AT_ONCE = 2**21
"""Users to draw at once (16 MB), so that memory does not grow with users x samples."""


@dataclass(frozen=True)
class Interval:
    """A mean and both ends of its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: ArrayLike, seed: int, samples: int = SAMPLES) -> Interval:
    """Return the percentile interval of the mean over users. Users are resampled with replacement.

    Efron and Tibshirani, "An introduction to the bootstrap" (1993), 13.3.

    Args:
        values: (N,) one finite number per user, N at least 1.
        seed: seed of numpy's generator; the same seed and N draw the same users, for any values.
        samples: number of resamples.
    """
    return bootstrap_means({"mean": values}, seed, samples)["mean"]


def bootstrap_means(columns: Mapping[str, ArrayLike], seed: int, samples: int = SAMPLES) -> dict[str, Interval]:
    """Compute ``bootstrap_mean`` of several columns (N,) of the same users, on the same resamples."""
    values = _finite_matrix(columns)
    means = np.concatenate([shares @ values for shares in user_resamples(len(values), seed, samples)])  # (samples, M)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    centre = [mean(column) for column in columns.values()]
    return {name: Interval(centre[i], float(low[i]), float(high[i])) for i, name in enumerate(columns)}


def mean(values: ArrayLike) -> float:
    """Return the mean over users. All code uses this function, so that equal values give equal numbers everywhere."""
    return float(np.mean(np.ascontiguousarray(values, dtype=np.float64)))


def paired_difference(a: ArrayLike, b: ArrayLike, seed: int, samples: int = SAMPLES) -> Interval:
    """Return the interval of mean(a - b), paired by user: what both have in common cancels out.

    Raises:
        InputError: the two have different lengths, so they cannot be the same users.
    """
    return paired_differences({"mean": a}, {"mean": b}, seed, samples)["mean"]


def paired_differences(
    a: Mapping[str, ArrayLike], b: Mapping[str, ArrayLike], seed: int, samples: int = SAMPLES
) -> dict[str, Interval]:
    """Compute ``paired_difference`` of the columns (N,) that both have, on the same resamples."""
    differences = {name: _difference(a[name], b[name]) for name in a if name in b}
    return bootstrap_means(differences, seed, samples)


def centred_interval(estimate: float, resampled: np.ndarray) -> Interval:
    """Return the standard normal bootstrap interval: estimate +- 1.96 standard deviations of the resamples.

    Use it for numbers that are not a mean over users. A resample draws some users twice and others never, so a share
    of distinct songs is smaller in every resample than in the estimate. Percentiles would not contain the estimate;
    the standard deviation is still right. Efron and Tibshirani (1993), 12.2; 200 resamples are enough for it (6.4).

    Args:
        estimate: the number for all users.
        resampled: (samples,) the number for each resample.
    """
    half_width = NORMAL_QUANTILE * float(np.std(resampled, ddof=1))
    return Interval(estimate, estimate - half_width, estimate + half_width)


def user_resamples(count: int, seed: int, samples: int = SAMPLES) -> Iterator[np.ndarray]:
    """Yield each user's weight in each resample, (chunk, N) float64: the share of the draws that chose the user.

    The product of the weights with a column (N,) is the mean of each resample. The same seed and ``count`` draw the
    same users.
    """
    generator = np.random.default_rng(seed)
    chunk = max(1, DRAWS_AT_ONCE // count)
    for start in range(0, samples, chunk):
        rows = min(chunk, samples - start)
        drawn = generator.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count) / count


def _difference(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise InputError(
            f"A paired difference needs the same users on both sides, but there are {len(first)} and {len(second)}; "
            "join them by user first."
        )
    return first - second


def _finite_matrix(columns: Mapping[str, ArrayLike]) -> np.ndarray:
    values = np.stack([np.asarray(column, dtype=np.float64) for column in columns.values()], axis=1)  # (N, M)
    if values.size == 0:
        raise InputError("There are no users to take a mean over; evaluate at least one user.")
    if not np.isfinite(values).all():
        raise InputError("A user's metric is not a finite number, so it has no mean; check the scores it comes from.")
    return values

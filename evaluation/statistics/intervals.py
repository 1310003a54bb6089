"""Bootstrap intervals over users. Numpy only: results are compared where torch is not loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from data.errors import InputError

CONFIDENCE = 0.95
NORMAL_QUANTILE = 1.959963984540054
"""Standard deviations from the middle of a normal distribution to the ends of its middle 95 %."""
SAMPLES = 1000
DRAWS_AT_ONCE = 2**21
"""Users drawn at once (16 MB), so that memory does not grow with users x samples."""


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: ArrayLike, seed: int, samples: int = SAMPLES) -> Interval:
    """Percentile interval of the mean over users, who are resampled with replacement.

    Efron and Tibshirani, "An introduction to the bootstrap" (1993), 13.3.

    Args:
        values: (N,) one finite number a user, N at least 1.
        seed: of numpy's generator; the same seed and N draw the same users, whatever the values.
        samples: number of resamples.
    """
    return bootstrap_means({"mean": values}, seed, samples)["mean"]


def bootstrap_means(columns: Mapping[str, ArrayLike], seed: int, samples: int = SAMPLES) -> dict[str, Interval]:
    """``bootstrap_mean`` of several columns (N,) of the same users, on the same resamples."""
    values = _matrix(columns)
    means = np.concatenate([shares @ values for shares in user_resamples(len(values), seed, samples)])  # (samples, M)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    centre = [mean(column) for column in columns.values()]
    return {name: Interval(centre[i], float(low[i]), float(high[i])) for i, name in enumerate(columns)}


def mean(values: ArrayLike) -> float:
    """The mean over users; the one way it is computed, so that equal values give equal numbers everywhere."""
    return float(np.mean(np.ascontiguousarray(values, dtype=np.float64)))


def paired_difference(a: ArrayLike, b: ArrayLike, seed: int, samples: int = SAMPLES) -> Interval:
    """Interval of mean(a - b), row by row on the same users: what is common to both cancels out.

    Raises:
        InputError: the two have different lengths, so they cannot be the same users.
    """
    return paired_differences({"mean": a}, {"mean": b}, seed, samples)["mean"]


def paired_differences(
    a: Mapping[str, ArrayLike], b: Mapping[str, ArrayLike], seed: int, samples: int = SAMPLES
) -> dict[str, Interval]:
    """``paired_difference`` of the columns (N,) that both have, on the same resamples."""
    differences = {name: _difference(a[name], b[name]) for name in a if name in b}
    return bootstrap_means(differences, seed, samples)


def centred_interval(estimate: float, resampled: np.ndarray) -> Interval:
    """The standard normal bootstrap interval: the estimate plus and minus 1.96 standard deviations of its resamples.

    For what is not a mean over users. Resampling with replacement draws some users twice and others never, so that a
    share of distinct songs is smaller in every resample than in the estimate, and percentiles would lie beside it; the
    spread is still right. Efron and Tibshirani (1993), 12.2; they find 200 resamples enough for a spread (6.4).

    Args:
        estimate: of all users.
        resampled: (samples,) the same of each resample.
    """
    reach = NORMAL_QUANTILE * float(np.std(resampled, ddof=1))
    return Interval(estimate, estimate - reach, estimate + reach)


def user_resamples(count: int, seed: int, samples: int = SAMPLES) -> Iterator[np.ndarray]:
    """How often each of ``count`` users is drawn in each resample, as a share, (chunk, N) float64 at a time.

    A product with a column (N,) gives the means of the resamples. The same seed and count draw the same users.
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


def _matrix(columns: Mapping[str, ArrayLike]) -> np.ndarray:
    values = np.stack([np.asarray(column, dtype=np.float64) for column in columns.values()], axis=1)  # (N, M)
    if values.size == 0:
        raise InputError("There are no users to take a mean over; evaluate at least one user.")
    if not np.isfinite(values).all():
        raise InputError("A user's metric is not a finite number, so it has no mean; check the scores it comes from.")
    return values

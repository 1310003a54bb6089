"""Files of an evaluation's numbers: a JSON record, and a table with one row per user for paired comparisons.

This module does not import torch, so that results are read, printed and compared quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from data.config import JsonRecord
from data.errors import InputError
from evaluation.statistics.intervals import Interval

IN_SAMPLE = "in_sample_"
"""Prefix of metric names if training has seen the relevant listens."""


class EvaluationRecord(JsonRecord):
    """The numbers of an evaluation with their 95 % bootstrap intervals over users, and how they were measured."""

    UNREADABLE: ClassVar[str] = "is not a readable record of an evaluation; evaluate again"

    metric_version: int
    """The version of the metric contract; only equal versions can be compared."""
    split_digest: str
    """Digest of the split."""
    part: Literal["train", "val", "test"]
    """The part that has the relevant listens."""
    seen: Literal["train", "none"]
    """Which listens of a user were hidden from the ranking: the train listens, or none."""
    in_sample: bool
    """True if training has seen the relevant listens: such numbers say nothing about new listens."""
    k: int
    """The list length of the watched metric."""
    ks: tuple[int, ...]
    """Every list length that was measured."""
    num_users: int
    """Measured users: all with a relevant song, or a sample of them."""
    eligible_users: int
    """Users with a relevant song in the part."""
    num_songs: int
    """Songs that were ranked for each user; always all songs."""
    seed: int
    """Seed of the sample of users and of the resamples."""
    bootstrap_samples: int
    """Number of resamples for each interval."""
    metrics: dict[str, Interval]
    """Name, for example recall@10, to mean and interval."""
    baselines: Mapping[str, dict[str, Interval]] = Field(default_factory=dict)
    """The same metrics of each baseline, on the same users."""
    differences: Mapping[str, dict[str, Interval]] = Field(default_factory=dict)
    """Model minus baseline, paired by user."""
    conventions: Mapping[str, dict[str, Interval]] = Field(default_factory=dict)
    """The model's metrics by other conventions, if the run asked for them."""
    aggregate_samples: int = 0
    """Number of resamples for coverage and gini, which are not means over users; 0 if they were not measured."""

    @property
    def watched(self) -> str:
        """Name of the watched metric, which decides: recall at k."""
        return f"{IN_SAMPLE if self.in_sample else ''}recall@{self.k}"


def write_per_user(path: Path, user_ids: pa.Array, columns: Mapping[str, np.ndarray]) -> None:
    """Write one row per user: ``user_id``, then one float64 column per metric, in the given order of users."""
    table = pa.table({"user_id": user_ids.cast(pa.string()), **{name: pa.array(v) for name, v in columns.items()}})
    pq.write_table(table, path)


def paired_columns(first: Path, second: Path, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a metric of two per-user files for the users that both have, in the same order.

    Returns:
        two (N,) float64 arrays; N is 0 if the files have no user in common.

    Raises:
        InputError: a file is unreadable or lacks the metric; the error lists the metrics that it has.
    """
    (ids, values), (other_ids, other_values) = (read_per_user(path, metric) for path in (first, second))
    _, rows, other_rows = np.intersect1d(ids, other_ids, assume_unique=True, return_indices=True)
    return values[rows], other_values[other_rows]


def read_per_user(path: Path, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the user ids (N,) and one metric (N,) of a per-user file."""
    try:
        names = pq.read_schema(path).names
        if metric not in names:
            raise InputError(f"{path} has no metric '{metric}'; it has {', '.join(names[1:])}.")
        table = pq.read_table(path, columns=["user_id", metric])
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is not a readable table of users and metrics; evaluate again.") from error
    return np.array(table["user_id"].to_pylist(), dtype=str), table[metric].to_numpy()


def read_user_ids(path: Path) -> pa.Array:
    """Read the user ids (N,) of a per-user file, in the order of the file."""
    try:
        return pq.read_table(path, columns=["user_id"])["user_id"].combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is not a readable table of users and metrics; evaluate again.") from error

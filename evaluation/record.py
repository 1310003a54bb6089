"""The numbers of an evaluation as they are kept: a JSON record, and one row a user for paired comparisons.

Nothing here imports torch, so that results are read, printed and compared cheaply.
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
"""Prefix of the names of metrics over listens that training has seen."""


class EvaluationRecord(JsonRecord):
    """What was measured, on whom and how; every number with its 95 % bootstrap interval over users."""

    UNREADABLE: ClassVar[str] = "is not a readable record of an evaluation; evaluate again"

    metric_version: int
    """The version of the metric contract; only equal versions can be compared."""
    split_digest: str
    """Digest of the split whose listens were ranked."""
    part: Literal["train", "val", "test"]
    """The part whose listens were relevant."""
    seen: Literal["train", "none"]
    """Which of a user's listens were hidden from the ranking: the train ones, or none."""
    in_sample: bool
    """True where training has seen the relevant listens: such numbers say nothing about new ones."""
    k: int
    """The length of the list that the watched metric looks at."""
    ks: tuple[int, ...]
    """Every list length that was measured."""
    num_users: int
    """Users who were measured: all with a relevant song, or a sample of them."""
    eligible_users: int
    """Users with a relevant song in the part."""
    num_songs: int
    """Songs that were ranked for each user; always all of them."""
    seed: int
    """Seed of the sample of users and of the resamples."""
    bootstrap_samples: int
    """Resamples behind each interval."""
    metrics: dict[str, Interval]
    """Name, for example recall@10, to mean and interval."""
    baselines: Mapping[str, dict[str, Interval]] = Field(default_factory=dict)
    """The same metrics of each baseline, on the same users."""
    differences: Mapping[str, dict[str, Interval]] = Field(default_factory=dict)
    """Model minus baseline, paired by user."""
    conventions: Mapping[str, dict[str, Interval]] = Field(default_factory=dict)
    """The model's metrics by the definitions of other conventions, where they were asked for."""
    aggregate_samples: int = 0
    """Resamples behind the intervals of coverage and gini, which are no means over users; 0 where neither is there."""

    @property
    def watched(self) -> str:
        """The metric that decides: recall at k."""
        return f"{IN_SAMPLE if self.in_sample else ''}recall@{self.k}"


def write_per_user(path: Path, user_ids: pa.Array, columns: Mapping[str, np.ndarray]) -> None:
    """Write one row a user: ``user_id``, then one float64 column a metric, rows in the order given."""
    table = pa.table({"user_id": user_ids.cast(pa.string()), **{name: pa.array(v) for name, v in columns.items()}})
    pq.write_table(table, path)


def paired_columns(first: Path, second: Path, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """A metric of two per-user files on the users that both have, in one order.

    Returns:
        two (N,) float64 arrays; N is 0 where the files share no user.

    Raises:
        InputError: a file is unreadable or lacks the metric; those it has are listed.
    """
    (ids, values), (other_ids, other_values) = (read_per_user(path, metric) for path in (first, second))
    _, rows, other_rows = np.intersect1d(ids, other_ids, assume_unique=True, return_indices=True)
    return values[rows], other_values[other_rows]


def read_per_user(path: Path, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """User ids (N,) and one metric (N,) of a per-user file."""
    try:
        names = pq.read_schema(path).names
        if metric not in names:
            raise InputError(f"{path} has no metric '{metric}'; it has {', '.join(names[1:])}.")
        table = pq.read_table(path, columns=["user_id", metric])
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is not a readable table of users and metrics; evaluate again.") from error
    return np.array(table["user_id"].to_pylist(), dtype=str), table[metric].to_numpy()


def read_user_ids(path: Path) -> pa.Array:
    """The user ids (N,) of a per-user file, in its order."""
    try:
        return pq.read_table(path, columns=["user_id"])["user_id"].combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is not a readable table of users and metrics; evaluate again.") from error

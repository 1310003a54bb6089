"""Intervals for a configuration, not only for the one model that one seed gives: resample both users and seeds.

This module needs numpy and Parquet only. A run holds the per-user metrics of one seed: name to (N,), as an evaluation
writes them. All runs of a configuration have the same users in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from data.config import JsonRecord
from data.errors import InputError
from evaluation.record import EvaluationRecord, read_user_ids
from evaluation.statistics.intervals import CONFIDENCE, NORMAL_QUANTILE, SAMPLES, Interval, mean, user_resamples

Run = Mapping[str, ArrayLike]

TAIL = (1 - CONFIDENCE) / 2
COMPARABLE = ("metric_version", "split_digest", "part", "seen", "k", "num_songs")
"""Fields that all evaluations must share, so that they differ only by the seed of the training."""


@dataclass(frozen=True)
class AcrossSeeds:
    """One metric of a configuration: its mean over seeds and users, and both ends of its 95 % interval over both."""

    mean: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    """The mean over users of each seed."""
    sd: float | None
    """Sample standard deviation of ``per_seed``, on the same users. None for one seed."""


class SeedComparison(JsonRecord):
    """The metrics of one configuration over several seeds, and its difference to each baseline."""

    UNREADABLE: ClassVar[str] = "is not a readable comparison of seeds; run it with --seeds again"

    seeds: tuple[int, ...]
    """Seeds of the trainings. The model of the first seed is registered, whatever the numbers are."""
    metric: str
    """The watched metric."""
    num_users: int
    """Number of measured users, the same for each seed."""
    split_digest: str
    """Digest of the split, the same for each seed."""
    metrics: dict[str, AcrossSeeds]
    """All metrics that are means over users."""
    differences: Mapping[str, dict[str, Interval]]
    """Configuration minus baseline, paired by user and seed, on the same resamples."""


def across_seeds(runs: Sequence[Run], seed: int, samples: int = SAMPLES) -> dict[str, AcrossSeeds]:
    """Return every metric of one configuration with its interval over users and seeds.

    Users and seeds are crossed: the model of each seed serves each user. So each resample draws users with replacement
    and, independently, seeds with replacement (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007).
    With n seeds, u and v the shares of users and of seeds in a resample, x_s(u) the mean of seed s, and x̄ the mean over
    seeds, a resample is

        x̄(u) + c sum over s of (v_s - 1/n) x_s,    c = sqrt(n / (n - 1)) t(0.975, n - 1) / 1.96.

    This differs from Owen's product of both draws in two ways. First, the effect of a seed on single users is part of
    both draws: the product counts it three times, the sum counts it twice, which is still conservative. Second, the
    factor c: resamples of few seeds are too narrow, by (n - 1) / n in variance and by using a normal quantile instead
    of Student's (Hesterberg, "What teachers should know about the bootstrap", The American Statistician 2015). If the
    seeds cause most of the variance, the interval of 5 seeds covers the truth in 84 % of cases without c, and in 94 %
    with c.

    With one seed, this is the bootstrap over users: it says something about this model, not about its configuration.

    Args:
        runs: one run per seed, at least one.
        seed: seed of the resamples; the same seed and number of users draw the same users as in
            ``evaluation.statistics.intervals``.
        samples: number of resamples.

    Raises:
        InputError: the runs have different users, or a metric is not a finite number.
    """
    table = _RunTable.of(runs, list(runs[0]))
    low, high = _interval_ends([table], seed, samples)
    per_seed = [tuple(mean(values) for values in table.values[:, :, column]) for column in range(len(table.names))]
    return {
        name: AcrossSeeds(
            mean(means),
            float(low[column]),
            float(high[column]),
            means,
            float(np.std(means, ddof=1)) if len(means) > 1 else None,
        )
        for column, (name, means) in enumerate(zip(table.names, per_seed, strict=True))
    }


def difference(a: Sequence[Run], b: Sequence[Run], seed: int, samples: int = SAMPLES) -> dict[str, Interval]:
    """Return configuration a minus configuration b for each metric that both have.

    Users are paired: both configurations use the same resamples of users. Their seeds are resampled independently. A
    configuration without seeds, such as a baseline, is a single run. The method is that of ``across_seeds``, with
    Welch's degrees of freedom instead of n - 1 if both have several seeds (Welch, Biometrika 1947).

    Raises:
        InputError: the two have different users, or a metric is not a finite number.
    """
    names = [name for name in a[0] if name in b[0]]
    tables = [_RunTable.of(a, names), _RunTable.of(b, names)]
    _require_same_users({tables[0].num_users, tables[1].num_users})
    low, high = _interval_ends(tables, seed, samples)
    centre = tables[0].seed_means.mean(axis=0) - tables[1].seed_means.mean(axis=0)  # (M,)
    return {name: Interval(float(centre[i]), float(low[i]), float(high[i])) for i, name in enumerate(names)}


def is_difference(interval: Interval) -> bool:
    """Return True if the interval excludes zero; only then is there a difference."""
    return interval.low > 0 or interval.high < 0


def format_difference(interval: Interval) -> str:
    """Format a difference: ``+0.0123 [+0.0040, +0.0206], a difference`` or ``…, no difference shown``."""
    verdict = "a difference" if is_difference(interval) else "no difference shown"
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}], {verdict}"


def compare_evaluations(folders: Sequence[Path], seeds: Sequence[int]) -> SeedComparison:
    """Compare the evaluations of one configuration that was trained with several seeds.

    Baselines are subtracted seed by seed, as each evaluation measured them. Coverage and Gini are metrics of all lists
    together, not means over users, so they are left out.

    Args:
        folders: one folder of ``evaluation.result_files.write_results`` per seed.
        seeds: the seeds, in the order of ``folders``.

    Raises:
        InputError: the evaluations have different users, splits or k.
    """
    records = [EvaluationRecord.read(folder / "metrics.json") for folder in folders]
    tables = [folder / "per_user.parquet" for folder in folders]
    _require_comparable(records, tables)
    names = [name for name in pq.read_schema(tables[0]).names[1:] if " " not in name]
    first, runs = records[0], [_read_columns(table, names) for table in tables]
    baselines = [name for name in first.baselines if all(name in record.baselines for record in records)]
    return SeedComparison(
        seeds=tuple(seeds),
        metric=first.watched,
        num_users=first.num_users,
        split_digest=first.split_digest,
        metrics=across_seeds(runs, first.seed),
        differences={name: _difference_to_baseline(runs, tables, name, first.seed) for name in baselines},
    )


@dataclass(frozen=True)
class _RunTable:
    """The runs of one configuration: ``values`` (S, N, M) of S seeds, N users and the M metrics ``names``."""

    names: list[str]
    values: np.ndarray

    @classmethod
    def of(cls, runs: Sequence[Run], names: list[str]) -> Self:
        columns = [[np.asarray(run[name], dtype=np.float64) for name in names] for run in runs]
        _require_same_users({len(column) for run in columns for column in run})
        values = np.stack([np.stack(run, axis=1) for run in columns])
        if not np.isfinite(values).all():
            raise InputError("A user's metric is not a finite number, so seeds cannot be compared; evaluate again.")
        return cls(names, values)

    @property
    def num_seeds(self) -> int:
        return self.values.shape[0]

    @property
    def num_users(self) -> int:
        return self.values.shape[1]

    @property
    def seed_means(self) -> np.ndarray:
        """Mean over users of each seed and metric, (S, M)."""
        return self.values.mean(axis=1)

    def variance(self) -> np.ndarray:
        """Return the squared standard error of the mean over seeds (M,); zero for one seed."""
        if self.num_seeds == 1:
            return np.zeros(self.values.shape[2])
        return self.seed_means.var(axis=0, ddof=1) / self.num_seeds


def _interval_ends(tables: Sequence[_RunTable], seed: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends (M,) of the interval of the first table, or of the first minus the second."""
    degrees = _degrees_of_freedom(tables)
    values = sum((-1) ** index * table.values.mean(axis=0) for index, table in enumerate(tables))  # (N, M)
    total = np.concatenate([shares @ values for shares in user_resamples(len(values), seed, samples)])  # (samples, M)
    for index, table in enumerate(tables):
        generator = np.random.default_rng([seed, index + 1])  # independent of the users' draws and of the other table's
        total += (-1) ** index * _seed_deviations(table, degrees, samples, generator)
    low, high = np.quantile(total, [TAIL, 1 - TAIL], axis=0)
    return low, high


def _seed_deviations(
    table: _RunTable, degrees: np.ndarray, samples: int, generator: np.random.Generator
) -> np.ndarray | float:
    """Return resampled seeds minus all seeds (samples, M), widened for their small number; 0 for one seed."""
    count = table.num_seeds
    if count == 1:
        return 0.0
    drawn = generator.integers(0, count, size=(samples, count))
    shares = (drawn[:, :, None] == np.arange(count)).mean(axis=1)  # (samples, S)
    widened = np.sqrt(count / (count - 1)) * stdtrit(degrees, 1 - TAIL) / NORMAL_QUANTILE  # (M,)
    deviations: np.ndarray = widened * ((shares - 1 / count) @ table.seed_means)
    return deviations


def _degrees_of_freedom(tables: Sequence[_RunTable]) -> np.ndarray:
    """Return Welch and Satterthwaite's degrees of freedom (M,).

    They are n - 1 if only one table has several seeds, and at most the sum of both n - 1 otherwise.
    """
    several = [table for table in tables if table.num_seeds > 1]
    if not several:
        return np.ones(tables[0].values.shape[2])
    variances = [table.variance() for table in several]
    total = np.sum(variances, axis=0)
    spread = np.sum([own**2 / (table.num_seeds - 1) for own, table in zip(variances, several, strict=True)], axis=0)
    at_most = sum(table.num_seeds - 1 for table in several)
    return np.divide(total**2, spread, out=np.full_like(total, at_most), where=spread > 0)


def _difference_to_baseline(runs: Sequence[Run], tables: Sequence[Path], name: str, seed: int) -> dict[str, Interval]:
    columns = set(pq.read_schema(tables[0]).names)
    metrics = [metric for metric in runs[0] if f"{name} {metric}" in columns]
    baselines = [_read_columns(table, [f"{name} {metric}" for metric in metrics]) for table in tables]
    differences = [
        {metric: np.asarray(run[metric]) - np.asarray(baseline[f"{name} {metric}"]) for metric in metrics}
        for run, baseline in zip(runs, baselines, strict=True)
    ]
    found = across_seeds(differences, seed)
    return {metric: Interval(one.mean, one.low, one.high) for metric, one in found.items()}


def _read_columns(table: Path, names: list[str]) -> dict[str, np.ndarray]:
    columns = pq.read_table(table, columns=names)
    return {name: columns[name].to_numpy() for name in names}


def _require_comparable(records: Sequence[EvaluationRecord], tables: Sequence[Path]) -> None:
    users = read_user_ids(tables[0])
    for record, table in zip(records, tables, strict=True):
        differing = [name for name in COMPARABLE if getattr(record, name) != getattr(records[0], name)]
        differing += [] if read_user_ids(table).equals(users) else ["users"]
        if differing:
            raise InputError(
                f"The evaluation in {table.parent} differs from the first one in {', '.join(differing)}, so their "
                "seeds cannot be compared; evaluate each seed on one split, with the same k and sample of users."
            )


def _require_same_users(counts: set[int]) -> None:
    if len(counts) != 1 or 0 in counts:
        listed = ", ".join(map(str, sorted(counts)))
        raise InputError(f"Seeds are compared on the same users, at least one, but there are {listed}; evaluate again.")

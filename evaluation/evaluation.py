"""Rank and measure a model. Trainers call it in training and the evaluate stage after it, so their numbers agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from evaluation.metrics.accuracy import METRIC_VERSION, conventional_metrics, ranking_metrics
from evaluation.parts import Part, hidden_edges, part_edges, sample_users, split_identity
from evaluation.ranking import Ranked, Score, check_k, rank, rows_of
from evaluation.record import IN_SAMPLE, EvaluationRecord
from evaluation.statistics.intervals import SAMPLES, Interval, bootstrap_means, mean, paired_differences


@dataclass(frozen=True)
class Evaluation:
    """The metrics of every user, and how they were measured.

    ``users`` (N,) sorted user indices; ``per_user`` name ("recall@10") to (N,) float64, rows as in ``users``.
    """

    users: Tensor
    per_user: dict[str, Tensor] = field(repr=False)
    part: Part
    k: int
    ks: tuple[int, ...]
    eligible_users: int
    num_songs: int
    seed: int
    graph: HeteroData = field(repr=False)
    ranked: Ranked = field(repr=False)
    """The lists that were measured, rows as in ``users``."""
    metric_version: int = METRIC_VERSION

    @cached_property
    def split_digest(self) -> str:
        """Digest of which pairs are in which part. It is computed on first use: a trainer does not need it."""
        return split_identity(self.graph)

    @property
    def in_sample(self) -> bool:
        """True if training has seen the relevant listens."""
        return self.part == "train"

    @property
    def prefix(self) -> str:
        """Prefix of the names of in-sample metrics; empty for other metrics."""
        return IN_SAMPLE if self.in_sample else ""

    @property
    def watched(self) -> str:
        """Name of the watched metric, which decides: recall at k."""
        return f"{self.prefix}recall@{self.k}"

    @cached_property
    def relevant(self) -> Tensor:
        """(2, R) rows of ``users`` and their relevant songs, ordered by row."""
        return rows_of(part_edges(self.graph, self.part), self.users)

    def with_lists(self, ranked: Ranked) -> Evaluation:
        """Measure other lists of the same users, for example those that a baseline wrote."""
        return replace(self, ranked=ranked, per_user=_per_user(ranked.items, self.relevant, self.ks, self.prefix))

    def with_metrics(self, metrics: Mapping[str, Tensor]) -> Evaluation:
        """Add metrics (N,) of each user. Their names have no in-sample prefix; it is added here."""
        named = {f"{self.prefix}{name}": values for name, values in metrics.items()}
        return replace(self, per_user={**self.per_user, **named})

    def mean(self) -> dict[str, float]:
        """Average each metric over the users."""
        return {name: mean(values.numpy()) for name, values in self.per_user.items()}

    def intervals(self, samples: int = SAMPLES) -> dict[str, Interval]:
        """Return the mean of each metric with its 95 % bootstrap interval over the users."""
        return bootstrap_means(_arrays(self.per_user), self.seed, samples)

    def convention(self, name: str, samples: int = SAMPLES) -> dict[str, Interval]:
        """Compute the metrics at every k by another convention; see ``evaluation.metrics.accuracy.CONVENTIONS``."""
        columns = conventional_metrics(self.ranked.items, self.relevant, self.ks, name)
        named = {f"{self.prefix}{metric}": values for metric, values in columns.items()}
        return bootstrap_means(_arrays(named), self.seed, samples)

    def minus(self, other: Evaluation, samples: int = SAMPLES) -> dict[str, Interval]:
        """Return the paired difference to another evaluation for each metric that both have.

        Raises:
            InputError: the two have different users, parts or splits.
        """
        same_split = self.graph is other.graph or self.split_digest == other.split_digest
        if not (self.part == other.part and same_split and torch.equal(self.users, other.users)):
            raise InputError(
                "Two evaluations can be compared only on the same users, part and split; evaluate both on one graph "
                "with the same num_eval_users and seed."
            )
        return paired_differences(_arrays(self.per_user), _arrays(other.per_user), self.seed, samples)

    def record(
        self,
        baselines: Mapping[str, Evaluation] | None = None,
        samples: int = SAMPLES,
        conventions: Sequence[str] = (),
    ) -> EvaluationRecord:
        """Return the record to write: all metrics with intervals, the baselines, and the differences to them."""
        others = baselines or {}
        return EvaluationRecord(
            metric_version=self.metric_version,
            split_digest=self.split_digest,
            part=self.part,
            seen="none" if self.in_sample else "train",
            in_sample=self.in_sample,
            k=self.k,
            ks=self.ks,
            num_users=len(self.users),
            eligible_users=self.eligible_users,
            num_songs=self.num_songs,
            seed=self.seed,
            bootstrap_samples=samples,
            metrics=self.intervals(samples),
            baselines={name: other.intervals(samples) for name, other in others.items()},
            differences={name: self.minus(other, samples) for name, other in others.items()},
            conventions={name: self.convention(name, samples) for name in conventions},
        )


def evaluate(
    score: Score,
    graph: HeteroData,
    part: Part,
    k: int,
    num_users: int | None = None,
    seed: int = 0,
    ks: Sequence[int] = (),
    batch_size: int | None = None,
    list_length: int = 0,
) -> Evaluation:
    """Rank all songs for each user with a relevant song in a part, and measure each user's list.

    Args:
        score: returns the scores of every song for a batch of users; see ``evaluation.ranking``.
        graph: a training graph. Only its masks and listens are read; the messages that the model saw are up to the
            caller.
        part: "test" or "val": the user's train listens are hidden, the other held-out part is not. "train": in-sample,
            nothing is hidden, and the names of the metrics say so; in a graph without masks every listen counts.
        k: the list length of the watched metric.
        num_users: how many users to sample with ``seed``; None means all.
        seed: seed of the sample of users and of the resamples for the intervals.
        ks: further list lengths to measure in the same ranking.
        batch_size: users to rank at once; the result does not depend on it.
        list_length: keep at least this many songs per user in ``ranked``, if there are as many.

    Raises:
        InputError: the graph was not split, the part is empty, k is above the number of songs, or a score is not
            finite.
    """
    num_songs = int(graph["song"].num_nodes)
    lengths = tuple(sorted({k, *ks}))
    for length in lengths:
        check_k(length, num_songs, "eval_k" if length == k else "a length in ks")
    relevant = part_edges(graph, part)
    eligible = torch.unique(relevant[0])
    if not len(eligible):
        raise InputError(
            f"No user has a listen in the part '{part}', so there is nothing to evaluate; enlarge the part."
        )
    users = sample_users(eligible, num_users, seed)
    ranked = rank(score, users, hidden_edges(graph, part), max(lengths[-1], min(list_length, num_songs)), batch_size)
    per_user = _per_user(ranked.items, rows_of(relevant, users), lengths, IN_SAMPLE if part == "train" else "")
    return Evaluation(users, per_user, part, k, lengths, len(eligible), num_songs, seed, graph, ranked)


def _per_user(items: Tensor, relevant: Tensor, ks: Sequence[int], prefix: str) -> dict[str, Tensor]:
    found = {k: ranking_metrics(items, relevant, k) for k in ks}
    return {f"{prefix}{name}@{k}": values for k, metrics in found.items() for name, values in metrics.items()}


def _arrays(columns: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in columns.items()}

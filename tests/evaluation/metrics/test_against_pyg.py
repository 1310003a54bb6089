"""Our numbers are what PyG's metrics and scikit-learn's say of the same lists."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import average_precision_score, ndcg_score
from torch_geometric.metrics import (
    LinkPredAveragePopularity,
    LinkPredCoverage,
    LinkPredDiversity,
    LinkPredHitRatio,
    LinkPredMAP,
    LinkPredMRR,
    LinkPredNDCG,
    LinkPredPrecision,
    LinkPredRecall,
)

from evaluation.metrics.accuracy import ranking_metrics
from evaluation.metrics.beyond_accuracy import aggregates, artist_diversity, average_popularity

USERS, SONGS, ARTISTS, K = 200, 60, 12, 10

Lists = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def scores() -> torch.Tensor:
    return torch.rand(USERS, SONGS, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def lists(scores: torch.Tensor) -> Lists:
    """Ranked songs (N, K), and relevant pairs (2, R) in which every user has at least one."""
    generator = torch.Generator().manual_seed(8)
    wanted = torch.rand(USERS, SONGS, generator=generator) < 0.1
    wanted[torch.arange(USERS), torch.randint(SONGS, (USERS,), generator=generator)] = True
    return scores.argsort(1, descending=True)[:, :K], wanted.nonzero().T.contiguous()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("recall", LinkPredRecall),
        ("ndcg", LinkPredNDCG),
        ("precision", LinkPredPrecision),
        ("mrr", LinkPredMRR),
        ("map", LinkPredMAP),
        ("hit_rate", LinkPredHitRatio),
    ],
)
def test_the_mean_is_the_same(lists: Lists, name: str, theirs: type) -> None:
    items, relevant = lists
    metric = theirs(k=K)
    metric.update(items, relevant)
    ours = ranking_metrics(items, relevant, K)[name].mean()
    assert float(ours) == pytest.approx(float(metric.compute()), abs=1e-6)  # theirs are float32


def test_ndcg_is_scikit_learns(scores: torch.Tensor, lists: Lists) -> None:
    wanted = torch.zeros(USERS, SONGS).index_put_(tuple(lists[1]), torch.tensor(1.0))
    ours = ranking_metrics(*lists, K)["ndcg"].mean()
    assert float(ours) == pytest.approx(ndcg_score(wanted.numpy(), scores.numpy(), k=K), abs=1e-9)


def test_average_precision_of_whole_lists_is_scikit_learns(scores: torch.Tensor, lists: Lists) -> None:
    wanted = torch.zeros(USERS, SONGS).index_put_(tuple(lists[1]), torch.tensor(1.0))
    ours = ranking_metrics(scores.argsort(1, descending=True), lists[1], SONGS)["map"]
    theirs = [average_precision_score(wanted[user].numpy(), scores[user].numpy()) for user in range(USERS)]
    assert ours.tolist() == pytest.approx(theirs, abs=1e-9)


def test_coverage_is_the_same(lists: Lists) -> None:
    items = lists[0][:3]  # few users, so that not everything is covered
    metric = LinkPredCoverage(K, SONGS)
    metric.update(items, lists[1])
    assert aggregates(items, SONGS, seed=0)["coverage"].estimate == pytest.approx(float(metric.compute()))


def test_average_popularity_is_the_same(lists: Lists) -> None:
    listeners = torch.randint(1, 50, (SONGS,), generator=torch.Generator().manual_seed(1))
    metric = LinkPredAveragePopularity(K, listeners)
    metric.update(*lists)
    assert float(average_popularity(lists[0], listeners).mean()) == pytest.approx(float(metric.compute()), rel=1e-6)


def test_diversity_by_a_songs_only_artist_is_the_same(lists: Lists) -> None:
    artist = torch.arange(SONGS) % ARTISTS
    metric = LinkPredDiversity(K, artist)
    metric.update(*lists)
    ours = artist_diversity(lists[0], torch.stack([torch.arange(SONGS), artist]))
    assert float(ours.mean()) == pytest.approx(float(metric.compute()), abs=1e-6)

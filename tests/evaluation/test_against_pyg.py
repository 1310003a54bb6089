"""Our per-user metrics, averaged, are what PyG's metrics say of the same lists."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.metrics import LinkPredMRR, LinkPredNDCG, LinkPredPrecision, LinkPredRecall

from evaluation.metrics import ranking_metrics

USERS, SONGS, K = 200, 60, 10


@pytest.fixture(scope="module")
def lists() -> tuple[torch.Tensor, torch.Tensor]:
    """Ranked songs (N, K), and relevant pairs (2, R) in which every user has at least one."""
    generator = torch.Generator().manual_seed(7)
    items = torch.rand(USERS, SONGS, generator=generator).argsort(1)[:, :K]
    wanted = torch.rand(USERS, SONGS, generator=generator) < 0.1
    wanted[torch.arange(USERS), torch.randint(SONGS, (USERS,), generator=generator)] = True
    return items, wanted.nonzero().T.contiguous()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("recall", LinkPredRecall), ("ndcg", LinkPredNDCG), ("precision", LinkPredPrecision), ("mrr", LinkPredMRR)],
)
def test_the_mean_is_the_same(lists: tuple[torch.Tensor, torch.Tensor], name: str, theirs: type) -> None:
    items, relevant = lists
    metric = theirs(k=K)
    metric.update(items, relevant)
    ours = ranking_metrics(items, relevant, K)[name].mean()
    assert float(ours) == pytest.approx(float(metric.compute()), abs=1e-6)  # theirs are float32

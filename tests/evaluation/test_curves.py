from __future__ import annotations

import torch
from torch_geometric.data import HeteroData

from evaluation.curves import curves
from evaluation.evaluation import evaluate


def test_a_curve_goes_through_the_measured_points(graph: HeteroData) -> None:
    scores = torch.rand(5, 6, generator=torch.Generator().manual_seed(0))
    evaluation = evaluate(lambda users: scores[users], graph, "test", 2, ks=[3], list_length=100)
    found = curves(evaluation)
    assert found["ks"] == [1, 2, 3, 5]  # as far as six songs go
    intervals = evaluation.intervals()
    for metric in ("recall", "ndcg"):
        for k in (2, 3):
            assert found["model"][metric][found["ks"].index(k)] == list(vars(intervals[f"{metric}@{k}"]).values())


def test_recall_never_falls_with_the_length(graph: HeteroData) -> None:
    scores = torch.rand(5, 6, generator=torch.Generator().manual_seed(0))
    means = [point[0] for point in curves(evaluate(lambda users: scores[users], graph, "train", 6))["model"]["recall"]]
    assert means == sorted(means)

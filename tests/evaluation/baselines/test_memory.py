"""What a baseline needs is said before it takes it, and never more than allowed is taken."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from data.graph import LISTENS
from evaluation.baselines.choices import create_baseline
from evaluation.ranking import Score


def fit(name: str, graph: HeteroData, caplog: pytest.LogCaptureFixture, **given: object) -> Score:
    with caplog.at_level(logging.INFO, logger="evaluation"):
        return create_baseline(name, given).fit(graph)


def test_ease_says_how_much_memory_it_needs(tiny_training_graph: HeteroData, caplog: pytest.LogCaptureFixture) -> None:
    fit("ease", tiny_training_graph, caplog)
    assert caplog.messages == ["EASE of 30 songs needs 0.00 GB of memory for its matrix."]


def test_ease_takes_the_most_popular_songs_that_fit(
    tiny_training_graph: HeteroData, caplog: pytest.LogCaptureFixture
) -> None:
    score = fit("ease", tiny_training_graph, caplog, max_memory_gb=10**2 * 4e-9)
    assert caplog.messages[0] == (
        "EASE takes the 10 most popular of 30 songs: all would need 0.00 GB, above max_memory_gb = 4e-07."
    )
    store = tiny_training_graph[LISTENS]
    listeners = np.bincount(store.edge_index[1, store.train_mask].numpy(), minlength=30)
    chosen = np.argsort(-listeners, kind="stable")[:10]
    assert set(torch.nonzero(score(torch.arange(40)).any(dim=0)).ravel().tolist()) == set(chosen.tolist())


def test_neighbours_are_as_many_as_fit(tiny_training_graph: HeteroData, caplog: pytest.LogCaptureFixture) -> None:
    fit("item-knn-cosine", tiny_training_graph, caplog, max_memory_gb=30 * 28 * 4e-9)
    assert caplog.messages == ["Keeps 4 neighbours of each song: 30 would need 0.0 GB, above max_memory_gb = 3.36e-06."]


def test_a_log_without_times_has_nothing_recent(tiny_training_graph: HeteroData) -> None:
    del tiny_training_graph[LISTENS].last_played
    why = create_baseline("recent-popularity").why_not(tiny_training_graph)
    assert why == "The log has no times, so nothing can be called recent."
    assert create_baseline("popularity").why_not(tiny_training_graph) == ""


def test_ease_needs_songs_that_some_have_heard(tiny_training_graph: HeteroData) -> None:
    why = create_baseline("ease", {"min_listeners": 1000}).why_not(tiny_training_graph)
    assert why == "No song has 1000 train listeners, so nothing can be learned about any two."

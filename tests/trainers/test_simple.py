"""All edges, and numbers that say so."""

from __future__ import annotations

import torch

from data.graph import LISTENS


def test_metrics_are_called_in_sample(make_trainer, tiny_graph):
    results = make_trainer("simple").train(tiny_graph, 1)
    assert "in_sample_recall@5" in results["history"][0]
    assert "recall@5" not in results["history"][0]
    assert results["test"] == {}


def test_a_split_is_ignored_and_said_so(make_trainer, tiny_training_graph, caplog):
    trainer = make_trainer("simple")
    trainer.train(tiny_training_graph, 1)
    assert torch.equal(trainer.message_graph[LISTENS].edge_index, tiny_training_graph[LISTENS].edge_index)
    assert "ignores the split" in caplog.text


def test_learning_rate_is_fixed(make_trainer, tiny_graph):
    assert {record["lr"] for record in make_trainer("simple", lr=0.02).train(tiny_graph, 6)["history"]} == {0.02}

"""Early stopping, the scheduler, best weights, and the split."""

from __future__ import annotations

import pytest
import torch

from data.errors import InputError
from trainers.advanced import AdvancedTrainer


class Scripted(AdvancedTrainer):
    """Validation says what the test wants; weights move on each epoch."""

    recalls = (0.1, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2)

    def train_epoch(self, graph):
        return {"loss": self.step(self.model.table.sum())}

    def evaluate(self, graph):
        return {"recall@5": self.recalls[self.current_epoch - 1]}


@pytest.fixture
def scripted(model_config, training_config, tmp_path):
    return lambda kind=Scripted, **training: kind(model_config, {**training_config, **training}, tmp_path)


def test_stops_when_patience_is_over(scripted, tiny_graph):
    results = scripted(patience=3).train(tiny_graph, 8)
    assert (results["best_epoch"], results["epochs_run"], results["stopped_early"]) == (2, 5, True)


def test_the_best_weights_are_put_back_as_they_were(scripted, tiny_graph):
    tables = {}

    class Keeping(Scripted):
        def on_epoch_end(self, train_metrics, eval_metrics):
            tables[self.current_epoch] = self.model.table.detach().clone()
            return False

    trainer = scripted(Keeping, patience=3)
    trainer.train(tiny_graph, 8)
    assert torch.equal(trainer.model.table, tables[2])
    assert not torch.equal(tables[2], tables[5])


def test_test_metrics_are_of_the_best_weights(make_trainer, tiny_graph):
    trainer = make_trainer(patience=2)
    results = trainer.train(tiny_graph, 12)
    graph = trainer.prepare(tiny_graph)
    assert results["test"] == trainer.ranking_metrics(graph, "test")
    assert sorted(results["test"]) == ["hit_rate@5", "map@5", "mrr@5", "ndcg@5", "precision@5", "recall@5"]
    best = results["history"][results["best_epoch"] - 1]
    assert trainer.ranking_metrics(graph, "val")["recall@5"] == results["best_metric"] == best["recall@5"]


def test_learning_rate_falls_to_its_minimum(scripted, tiny_graph):
    plan = {"lr": 0.01, "lr_patience": 1, "lr_factor": 0.1, "min_lr": 0.0005, "patience": 8}
    rates = [record["lr"] for record in scripted(**plan).train(tiny_graph, 8)["history"]]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.001, 0.001, 0.0005, 0.0005])


def test_learning_rate_stays_without_scheduler(scripted, tiny_graph):
    history = scripted(use_scheduler=False, patience=8).train(tiny_graph, 8)["history"]
    assert {record["lr"] for record in history} == {0.01}


def test_the_scheduler_is_resumed(scripted, tiny_graph, tmp_path):
    class Dying(Scripted):
        dies = True

        def on_epoch_start(self):
            if self.current_epoch == 5 and self.dies:
                raise KeyboardInterrupt

    plan = {"lr_patience": 1, "patience": 8}
    with pytest.raises(KeyboardInterrupt):
        scripted(Dying, **plan).train(tiny_graph, 8)
    Dying.dies = False
    resumed = scripted(Dying, **plan).train(tiny_graph, 8)["history"]
    assert resumed == scripted(Dying, **plan, resume=False).train(tiny_graph, 8)["history"]


def test_a_graph_without_masks_is_split_by_the_ratios(make_trainer, tiny_graph):
    listens = make_trainer(val_ratio=0.1, test_ratio=0.3).prepare(tiny_graph)["user", "listens", "song"]
    assert listens.test_mask.float().mean() > 2 * listens.val_mask.float().mean() > 0


def test_a_graph_with_masks_keeps_them(make_trainer, tiny_training_graph):
    assert make_trainer().prepare(tiny_training_graph) is tiny_training_graph


def test_without_validation_edges_there_is_nothing_to_watch(make_trainer, tiny_graph):
    with pytest.raises(InputError, match="val"):
        make_trainer(val_ratio=0.0).train(tiny_graph, 1)


def test_a_stopped_run_stays_stopped_with_more_epochs(scripted, tiny_graph):
    first = scripted(patience=2).train(tiny_graph, 6)
    again = scripted(patience=2).train(tiny_graph, 8)
    assert (first["epochs_run"], again["epochs_run"]) == (4, 4)
    assert again["stopped_early"]

"""The trainer guide's snippets, as they stand but for the packages' names and the number of epochs."""

from __future__ import annotations

import pytest

from data.graph import save_graph


@pytest.fixture(autouse=True)
def published_graph(tiny_graph, tmp_path, monkeypatch):
    """``data/graph.pt`` of the folder in which the snippets run."""
    (tmp_path / "data").mkdir()
    save_graph(tiny_graph, tmp_path / "data" / "graph.pt")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def configs(tiny_graph):
    graph = tiny_graph
    model_config = {
        "num_users": graph["user"].num_nodes,
        "num_songs": graph["song"].num_nodes,
        "num_artists": graph["artist"].num_nodes,
        "embedding_dim": 32,
        "heads": 4,
    }
    training_config = {
        "lr": 0.01,
        "batch_size": 512,
        "eval_k": 10,
        "num_eval_users": 100,
    }
    return model_config, training_config


def test_programmatically(configs):
    import torch

    from trainers import AdvancedTrainer, SimpleTrainer

    graph = torch.load("data/graph.pt")
    model_config, training_config = configs

    trainer = AdvancedTrainer(model_config=model_config, training_config=training_config, output_dir="models/output")
    results = trainer.train(graph, num_epochs=50)

    assert results["test"]["recall@10"] > 0
    simple = SimpleTrainer(model_config=model_config, training_config=training_config)
    assert simple.train(graph, num_epochs=2)["epochs_run"] == 2


@pytest.mark.parametrize("trainer_type", ["advanced", "simple"])
def test_factory_pattern(configs, trainer_type):
    from trainers import BaseTrainer, create_trainer

    model_config, training_config = configs
    trainer = create_trainer(trainer_type=trainer_type, model_config=model_config, training_config=training_config)
    assert isinstance(trainer, BaseTrainer)


def test_custom_trainer(configs):
    import torch

    from trainers import BaseTrainer

    loss_value, value, should_stop, calls = 0.5, 0.25, False, []

    class CustomTrainer(BaseTrainer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            # Add custom initialization

        def train_epoch(self, graph) -> dict[str, float]:
            """Train one epoch."""
            self.model.train()

            # Your training logic here
            # Must return metrics dict
            return {"loss": loss_value}

        def evaluate(self, graph) -> dict[str, float]:
            """Evaluate model."""
            self.model.eval()

            # Your evaluation logic
            # Must return metrics dict
            return {"metric": value}

        def on_epoch_start(self):
            """Called at epoch start."""
            calls.append(("start", self.current_epoch))

        def on_epoch_end(self, train_metrics, eval_metrics) -> bool:
            """Called at epoch end."""
            calls.append(("end", self.current_epoch))
            # Return True to stop training
            return should_stop

    model_config, training_config = configs
    trainer = CustomTrainer(model_config=model_config, training_config=training_config)
    results = trainer.train(torch.load("data/graph.pt"), num_epochs=2)
    assert calls == [("start", 1), ("end", 1), ("start", 2), ("end", 2)]
    assert results["history"][-1] == {"epoch": 2, "lr": 0.01, "loss": 0.5, "metric": 0.25}


def test_curriculum(configs):
    import torch

    from trainers import BaseTrainer

    class CurriculumTrainer(BaseTrainer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.difficulty_schedule = [0.2, 0.4, 0.6, 0.8, 1.0]

        def _get_edges_by_difficulty(self, graph, difficulty):
            edges = graph["user", "listens", "song"].edge_index
            return edges[:, : int(difficulty * edges.shape[1])]

        def train_epoch(self, graph) -> dict[str, float]:
            self.model.train()

            # Get current difficulty
            difficulty_idx = min(self.current_epoch // 10, 4)
            difficulty = self.difficulty_schedule[difficulty_idx]

            # Filter edges by difficulty
            edges = self._get_edges_by_difficulty(graph, difficulty)

            # Training loop...
            loss = self.train_on_pairs(graph, edges)["loss"]
            return {"loss": loss, "difficulty": difficulty}

        def evaluate(self, graph) -> dict[str, float]:
            return {"metric": 0.0}

    model_config, training_config = configs
    trainer = CurriculumTrainer(model_config=model_config, training_config=training_config)
    results = trainer.train(torch.load("data/graph.pt"), num_epochs=10)
    assert [record["difficulty"] for record in results["history"]] == [0.2] * 9 + [0.4]

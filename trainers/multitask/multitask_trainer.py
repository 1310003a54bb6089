"""Learns the ranking, and to predict completion, skips, repetitions and artists."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveFloat, field_validator, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch_geometric.data import HeteroData

from data.config import unknown_name
from data.errors import InputError
from data.graph import NODE_TYPES
from models.base import Embeddings
from trainers.advanced import AdvancedConfig, AdvancedTrainer
from trainers.config import TrainingConfig
from trainers.loop.random_streams import stream
from trainers.multitask.heads import TaskHeads
from trainers.multitask.label_metrics import ItemMeans, task_metrics
from trainers.multitask.labels import TASKS, Labels, check_columns, check_targets
from trainers.multitask.multitask_objective import TaskObjective, TaskWeights
from trainers.multitask.predictor import TaskPredictor, save_heads


class MultiTaskConfig(AdvancedConfig):
    """Keys of ``multitask``."""

    tasks: tuple[str, ...] = Field(tuple(TASKS), min_length=1)
    """What to predict besides the ranking: any of completion, skip, relisten and artist."""

    task_weights: dict[str, PositiveFloat] | Literal["uncertainty"] = Field(default_factory=dict)
    """Weight of each task's loss, 1 by default; the ranking's weight is 1. uncertainty learns the weights."""

    @field_validator("tasks")
    @classmethod
    def _tasks_are_known(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        for name in tasks:
            if name not in TASKS:
                raise ValueError(unknown_name("there is no task", name, TASKS))
        return tuple(dict.fromkeys(tasks))

    @field_validator("task_weights", mode="before")
    @classmethod
    def _weights_are_numbers_or_learned(cls, weights: Any) -> Any:
        if isinstance(weights, str) and weights != "uncertainty":
            raise ValueError("give a table of a weight for each task, or 'uncertainty'")
        return weights

    @model_validator(mode="after")
    def _weights_are_of_tasks(self) -> Self:
        for name in self.task_weights if isinstance(self.task_weights, dict) else ():
            if name not in self.tasks:
                raise ValueError(unknown_name("task_weights weighs what is not among the tasks", name, self.tasks))
        return self

    def weights(self) -> TaskWeights:
        """Return the weights of the losses, as training starts with them."""
        given = self.task_weights if isinstance(self.task_weights, dict) else {}
        return TaskWeights({name: given.get(name, 1.0) for name in self.tasks}, not isinstance(self.task_weights, dict))


class MultiTaskTrainer(AdvancedTrainer):
    """Learns the ranking, and to predict facts of a listen, with a small head for each task.

    The losses of ranking and tasks are added up on the same train pairs and the same vectors, so that all of them train
    the model. Heads belong to the trainer: it optimises, keeps, resumes and saves them together with the model. Their
    metrics use pairs that neither vectors nor heads have learned from: a quarter of the calibration pairs in each
    epoch, another quarter at the end. The edges of these pairs depend on plays and completion, and carry no message.

    Args: see ``BaseTrainer``; ``training_config`` takes the keys of ``MultiTaskConfig`` too.
    """

    Config: ClassVar[type[TrainingConfig]] = MultiTaskConfig
    config: MultiTaskConfig
    objective: TaskObjective
    heads: TaskHeads
    labels: dict[str, Labels]

    # Training

    def prepare(self, graph: HeteroData) -> HeteroData:
        """Return the graph with masks; raises InputError for a task that cannot be learned from the log."""
        check_columns(self.config.tasks, graph)
        divided = super().prepare(graph)
        check_targets(self.config.tasks, divided)
        return divided

    def create_optimizer(self) -> Optimizer:
        """Return Adam over the model and new heads; over the model alone before there is a graph."""
        if self.eval_graph is None:
            return super().create_optimizer()
        learned = self._begin_tasks(self.eval_graph)
        return torch.optim.Adam([*self.model.parameters(), *learned], lr=self.config.lr)

    def _begin_tasks(self, graph: HeteroData) -> list[Tensor]:
        """Make new heads and their losses; return their parameters for Adam."""
        config, counts = self.config, {kind: int(graph[kind].num_nodes) for kind in NODE_TYPES}
        self.labels = {name: TASKS[name].labels(graph, self.device) for name in config.tasks}
        dim = self.model.config.embedding_dim
        self.heads = TaskHeads(config.tasks, counts, dim, stream(config.seed, "heads")).to(self.device)
        self.objective = TaskObjective(config, self.heads, config.weights().to(self.device), self.labels)
        pairs = self.objective.learned(self.model, self.message_graph).pairs
        learned = {name: labels.of(pairs) for name, labels in self.labels.items()}
        for name, head in self.heads.items():
            head.begin(learned[name])
        about_songs = (name for name in config.tasks if TASKS[name].item == "song")
        self._song_means = {name: ItemMeans(learned[name].arrays(), counts["song"]) for name in about_songs}
        return [*self.heads.parameters(), *self.objective.weights.parameters()]

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """Make one pass over the train pairs, and correct the heads: ``{"loss": ...}`` of ranking and tasks."""
        metrics = super().train_epoch(graph)
        vectors, kept = (
            self._vectors_without_calibration_edges(),
            self.objective.calibration_split(self.message_graph).correct,
        )
        for name, head in self.heads.items():
            head.calibrate(vectors, self.labels[name].of(kept))
        return metrics

    # Measurement

    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        """Return the ranking's metrics on the validation edges, and each task's on its quarter of calibration pairs."""
        ranking = super().evaluate(graph)
        return (
            ranking
            if self.eval_graph is None
            else ranking | self.task_metrics(self.objective.calibration_split(self.message_graph).watch)
        )

    def test(self, graph: HeteroData) -> dict[str, float]:
        """Return the ranking's metrics on the test edges, and each task's on the last quarter of calibration pairs."""
        return {
            **super().test(graph),
            **self.task_metrics(self.objective.calibration_split(self.message_graph).measure),
        }

    def task_metrics(self, pairs: Tensor) -> dict[str, float]:
        """Return ``completion_auc`` and so on, of calibration pairs (2, P), whose edges carry no message.

        ``trainers.multitask.label_metrics`` defines them. A metric that these pairs do not define (all skipped, say)
        is left out.
        """
        vectors = self._vectors_without_calibration_edges()
        found: dict[str, float] = {}
        for name, head in self.heads.items():
            examples = self.labels[name].of(pairs)
            if len(examples.targets):
                predicted = head.predicted(vectors, examples.users, examples.items).double().cpu().numpy()
                metrics = task_metrics(predicted, examples.arrays(), self._song_means.get(name))
                found |= {f"{name}_{metric}": value for metric, value in metrics.items()}
        return found

    @torch.no_grad()
    def _vectors_without_calibration_edges(self) -> Embeddings:
        """Return the vectors while the edges of the calibration pairs carry no message."""
        self.model.eval()
        return self.model.encode_without(self.message_graph, self.objective.calibration.pairs(self.message_graph))

    # Predictions

    def predictor(self) -> TaskPredictor:
        """Return what predicts the tasks of any user and item, from the model as it is now.

        Raises:
            InputError: when nothing was trained yet.
        """
        if self.eval_graph is None:
            raise InputError("There is nothing to predict with: call train(graph, num_epochs) first.")
        return TaskPredictor(self.heads.copied(), self.embeddings(self.eval_graph))

    def predict(self, task: str, users: Tensor, items: Tensor) -> Tensor:
        """Return predictions (P,) in [0, 1] for users (P,) and songs (P,), or artists for the task ``artist``.

        Each call encodes the graph: for many calls keep ``predictor()``.

        Raises:
            InputError: for a task that was not learned, or when nothing was trained yet.
        """
        return self.predictor().predict(task, users, items)

    # Checkpoints and files

    def trained_modules(self) -> dict[str, nn.Module]:
        """Return the model and the heads."""
        return {**super().trained_modules(), "heads": self.heads}

    def extra_state(self) -> dict[str, Any]:
        """Return the heads and the learned weights of the tasks."""
        return {"heads": self.heads.state_dict(), "weights": self.objective.weights.state_dict()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``extra_state`` returned."""
        self.heads.load_state_dict(state["heads"])
        self.objective.weights.load_state_dict(state["weights"])

    def save_model(self, folder: str | Path) -> Path:
        """See ``BaseTrainer.save_model``; writes ``heads.safetensors`` too, for ``load_predictor``."""
        saved = super().save_model(folder)
        save_heads(self.heads, saved)
        return saved

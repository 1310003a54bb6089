"""The decisions of the training loop that a first training and a refit take in different ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch_geometric.data import HeteroData

from trainers.loop.training_results import EpochRecord

Metrics = dict[str, float]


class EpochControl:
    """Lets the measurements of a training decide how it goes on: the control of every first training.

    In a refit, which measures nothing, ``trainers.refit.ReplayedEpochs`` takes its place.
    """

    replayed: tuple[EpochRecord, ...] = ()
    """The epochs that are repeated; none in a first training."""
    facts: Mapping[str, Any] = {}
    """Entries of the saved model's ``config.json`` about the kind of training."""

    def create_scheduler(self, create: Callable[[], ReduceLROnPlateau | None]) -> ReduceLROnPlateau | None:
        """Return the trainer's own scheduler, made by ``create``."""
        return create()

    def set_learning_rate(self, epoch: int, optimizer: Optimizer) -> None:
        """Change nothing: the trainer's hooks and its scheduler set the learning rate."""

    def measure(self, metrics: Callable[[HeteroData], Metrics], graph: HeteroData) -> Metrics:
        """Return the metrics on a graph."""
        return metrics(graph)

    def metrics_for_hook(self, epoch: int, train_metrics: Metrics, eval_metrics: Metrics) -> Metrics:
        """Return the evaluation metrics that ``on_epoch_end`` gets: those of the epoch."""
        return eval_metrics

    def stops(self, is_over: Callable[[], bool]) -> bool:
        """Return whether the training ends before its last epoch, which ``is_over`` decides."""
        return is_over()

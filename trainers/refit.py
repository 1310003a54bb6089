"""A refit: the training of a chosen model, repeated on all listens.

A model that was chosen on held-out listens has not learned from them, and they are the newest ones. Its refit repeats
the training on everything. Nothing is left to measure, so all that a metric decided is taken from the first training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import LISTENS, MASKS, has_masks
from trainers.loop.epoch_control import EpochControl, Metrics
from trainers.loop.training_results import EpochRecord


class ReplayedEpochs(EpochControl):
    """Repeats the number of epochs and the learning rates of a first training; measures nothing and never stops.

    Args:
        history: the records of the first training up to the chosen epoch, at least one.

    Raises:
        InputError: the history does not hold each epoch from 1 on, with its learning rate.
    """

    def __init__(self, history: Sequence[EpochRecord]) -> None:
        found = [(record.get("epoch"), isinstance(record.get("lr"), float | int)) for record in history]
        if not found or found != [(epoch, True) for epoch in range(1, len(found) + 1)]:
            raise InputError(
                "A refit repeats a training epoch by epoch, but this history does not hold epochs 1, 2, … each with "
                "its lr; give the records of a trainer's history up to the chosen epoch."
            )
        self.replayed = tuple(history)
        self.facts = {"refit": True, "num_epochs": len(history)}

    def create_scheduler(self, create: Callable[[], Any]) -> None:
        """Return None: the learning rates are known."""

    def set_learning_rate(self, epoch: int, optimizer: Optimizer) -> None:
        """Set the epoch's learning rate; further groups of parameters keep their ratio to the first."""
        rate = self.replayed[epoch - 1]["lr"]
        first = optimizer.param_groups[0]["lr"]
        for group in optimizer.param_groups:
            group["lr"] = rate if group["lr"] == first else group["lr"] * (rate / first if first else 1.0)

    def measure(self, metrics: Callable[[HeteroData], Metrics], graph: HeteroData) -> Metrics:
        """Return no metrics."""
        return {}

    def metrics_for_hook(self, epoch: int, train_metrics: Metrics, eval_metrics: Metrics) -> Metrics:
        """Return what ``evaluate`` returned in that epoch of the first training."""
        others = {"epoch", "lr", *train_metrics}
        return {name: value for name, value in self.replayed[epoch - 1].items() if name not in others}

    def stops(self, is_over: Callable[[], bool]) -> bool:
        """Return False."""
        return False


def with_all_for_training(graph: HeteroData) -> HeteroData:
    """Return the graph with masks that hold nothing out, so that no trainer splits it; ``graph`` is not changed.

    Raises:
        InputError: the graph is split.
    """
    if has_masks(graph):
        raise InputError(
            "The graph is split, and the attributes of its held-out listens are blank; "
            "give refit the graph that it was split from."
        )
    whole = copy.copy(graph)
    count = whole[LISTENS].edge_index.shape[1]
    for mask in MASKS:
        whole[LISTENS][mask] = torch.full((count,), mask == "train_mask")
    return whole


def chosen_history(trainer: Any, history: Sequence[EpochRecord], results: Mapping[str, Any]) -> list[EpochRecord]:
    """Return ``trainer.chosen_history(history, results)``, under the name that earlier versions documented."""
    chosen: list[EpochRecord] = trainer.chosen_history(history, results)
    return chosen

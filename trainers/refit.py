"""Training once more on all listens: how long, at which rates, and on what.

A model that was chosen on held-out listens has not learned from them, and they are the newest ones. Its refit repeats
the training on everything. Nothing is left to watch, so all that a metric decided is taken from the first training.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import LISTENS, MASKS
from trainers.loop.training_results import EpochRecord


@dataclass(frozen=True)
class Twin:
    """The training that a refit repeats: its epochs up to the chosen one, at least one, from the first on."""

    epochs: tuple[EpochRecord, ...]

    @classmethod
    def of(cls, history: Sequence[EpochRecord]) -> Twin:
        """Raises InputError for a history that does not hold each epoch from 1 on, with its learning rate."""
        told = [(record.get("epoch"), isinstance(record.get("lr"), float | int)) for record in history]
        if not told or told != [(epoch, True) for epoch in range(1, len(told) + 1)]:
            raise InputError(
                "A refit repeats a training epoch by epoch, but this history does not hold epochs 1, 2, … each with "
                "its lr; give the records of a trainer's history up to the chosen epoch."
            )
        return cls(tuple(history))

    def replay_rate(self, epoch: int, optimizer: Optimizer) -> None:
        """Set the epoch's learning rate; further groups of parameters keep their ratio to the first."""
        rate = self.epochs[epoch - 1]["lr"]
        first = optimizer.param_groups[0]["lr"]
        for group in optimizer.param_groups:
            group["lr"] = rate if group["lr"] == first else group["lr"] * (rate / first if first else 1.0)

    def eval_metrics(self, epoch: int, train_metrics: Mapping[str, float]) -> dict[str, float]:
        """What ``evaluate`` said in that epoch of the first training."""
        of_the_epoch = {"epoch", "lr", *train_metrics}
        return {name: value for name, value in self.epochs[epoch - 1].items() if name not in of_the_epoch}


def chosen_history(trainer: Any, history: Sequence[EpochRecord], results: Mapping[str, Any]) -> list[EpochRecord]:
    """Return ``trainer.chosen_history(history, results)``, under the name that earlier versions documented."""
    chosen: list[EpochRecord] = trainer.chosen_history(history, results)
    return chosen


def with_all_for_training(graph: HeteroData) -> HeteroData:
    """A graph with masks that hold nothing out, so that no trainer splits it; ``graph`` is not changed."""
    whole = copy.copy(graph)
    count = whole[LISTENS].edge_index.shape[1]
    for mask in MASKS:
        whole[LISTENS][mask] = torch.full((count,), mask == "train_mask")
    return whole

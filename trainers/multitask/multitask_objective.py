"""Adds the losses of the tasks to the loss of the ranking, from the same vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from models.base import Embeddings, RecommenderModel, SomeEmbeddings
from trainers.config import TrainingConfig
from trainers.multitask.heads import TaskHeads
from trainers.multitask.labels import Labels
from trainers.objective import PairObjective, Step


class TaskWeights(nn.Module):
    """Weights the loss of each task.

    Learned weights follow Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses", CVPR 2018:
    a task of loss L and log variance s adds exp(-s) L + s / 2, so that a task that cannot be predicted well weighs
    less. Unlike there the ranking keeps the weight 1, so that the tasks cannot replace it.

    Args:
        fixed: weight of each task.
        learned: learn the weights, from 1 on; ``fixed`` then only names the tasks.
    """

    def __init__(self, fixed: Mapping[str, float], learned: bool) -> None:
        super().__init__()
        self.fixed = dict(fixed)
        self.log_variance = nn.ParameterDict({name: torch.zeros(()) for name in fixed} if learned else {})

    def weighted(self, task: str, loss: Tensor) -> Tensor:
        """Return the weighted loss of a task."""
        if task not in self.log_variance:
            return self.fixed[task] * loss
        log_variance: Tensor = self.log_variance[task]
        return (-log_variance).exp() * loss + log_variance / 2


class CalibrationSplit(NamedTuple):
    """The calibration pairs by use, each (2, K): to correct heads, to measure them in each epoch, and at the end."""

    correct: Tensor
    watch: Tensor
    measure: Tensor


class TaskObjective(PairObjective):
    """Adds to the loss of the ranking that of every task on the same pairs, from the same vectors.

    The weight of a pair's edge depends on plays and completion, so the edge carries no message while the pair's labels
    are learned; ``PairObjective`` sees to that. Here every model keeps the calibration pairs back, also one without a
    local channel: no vector, no head's base and no message of a step learns from them.
    """

    def __init__(
        self, config: TrainingConfig, heads: TaskHeads, weights: TaskWeights, labels: Mapping[str, Labels]
    ) -> None:
        super().__init__(config)
        self.heads, self.weights, self.labels = heads, weights, labels

    def keeps_pairs_back(self, model: RecommenderModel) -> bool:
        """Return True: heads are corrected and measured on pairs that the vectors have not learned from."""
        return True

    def calibration_split(self, graph: HeteroData) -> CalibrationSplit:
        """Split the calibration pairs, which are in random order, into a half and two quarters."""
        pairs = self.calibration.pairs(graph)
        return CalibrationSplit(pairs[:, ::2], pairs[:, 1::4], pairs[:, 3::4])

    def vector_loss(
        self, model: RecommenderModel, graph: HeteroData, embeddings: Embeddings | SomeEmbeddings, step: Step
    ) -> Tensor:
        """Add the weighted loss of each task; see ``PairObjective.vector_loss``."""
        ranking = super().vector_loss(model, graph, embeddings, step)
        num_learned = self.learned(model, graph).pairs.shape[1]
        losses = (
            self.weights.weighted(name, head.loss(embeddings, self.labels[name].of(step.pairs), num_learned))
            for name, head in self.heads.items()
        )
        return torch.stack([ranking, *losses]).sum()

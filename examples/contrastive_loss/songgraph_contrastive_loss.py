"""A trainer in its own package: the cosine contrastive loss instead of softmax or BPR.

Source: Mao et al., "SimpleX: A Simple and Strong Baseline for Collaborative Filtering", CIKM 2021.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, PositiveFloat
from torch import Tensor
from torch_geometric.data import HeteroData

from models.base import Embeddings, RecommenderModel, SomeEmbeddings
from trainers.advanced import AdvancedConfig, AdvancedTrainer
from trainers.objective import PairObjective, Step


class ContrastiveConfig(AdvancedConfig):
    """Keys of ``ContrastiveTrainer``."""

    margin: float = Field(0.4, ge=-1, lt=1)
    """A song that was not heard adds no loss up to this cosine."""

    negative_weight: PositiveFloat = 10.0
    """Weight of the mean over the sampled songs; the heard song has weight 1."""


class ContrastiveObjective(PairObjective):
    """Everything except the ranking loss is inherited: batches, negatives, left-out edges, L2, the local channel."""

    config: ContrastiveConfig

    def ranking_loss(
        self, model: RecommenderModel, graph: HeteroData, embeddings: Embeddings | SomeEmbeddings, step: Step
    ) -> Tensor:
        """Compute (1 - s(u, i)) + weight * mean over sampled j of max(0, s(u, j) - margin), averaged over the pairs.

        The sampled songs may contain songs that the user knows; with a thousand of many songs this hardly matters.
        """
        users = embeddings.of_users(step.pairs[0])
        positive = (users * embeddings.of_songs(step.pairs[1])).sum(1)
        negative = users @ embeddings.of_songs(step.negatives).T
        above_margin = (negative - self.config.margin).clamp(min=0).mean(1)
        return (1 - positive + self.config.negative_weight * above_margin).mean()


class ContrastiveTrainer(AdvancedTrainer):
    """``AdvancedTrainer`` with the cosine contrastive loss; ``temperature`` has no effect on it."""

    Config: ClassVar[type[AdvancedConfig]] = ContrastiveConfig
    config: ContrastiveConfig

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.objective = ContrastiveObjective(self.config)

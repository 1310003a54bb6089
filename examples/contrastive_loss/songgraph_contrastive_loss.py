"""A trainer in a package of its own: the cosine contrastive loss in place of softmax or BPR.

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
    """Cosine up to which a song that was not heard costs nothing."""

    negative_weight: PositiveFloat = 10.0
    """Weight of the mean over the sampled songs beside that of the heard one."""


class ContrastiveObjective(PairObjective):
    """Everything but the ranking loss is inherited: batches, negatives, edges left out, L2, the local channel."""

    config: ContrastiveConfig

    def ranking_loss(
        self, model: RecommenderModel, graph: HeteroData, embeddings: Embeddings | SomeEmbeddings, step: Step
    ) -> Tensor:
        """(1 - s(u, i)) + weight * mean over sampled j of max(0, s(u, j) - margin), averaged over the pairs: a scalar.

        A song that the user knows may be among the sampled ones; with a thousand of many it hardly matters.
        """
        users = embeddings.of_users(step.pairs[0])
        heard = (users * embeddings.of_songs(step.pairs[1])).sum(1)
        others = users @ embeddings.of_songs(step.negatives).T
        pushed = (others - self.config.margin).clamp(min=0).mean(1)
        return (1 - heard + self.config.negative_weight * pushed).mean()


class ContrastiveTrainer(AdvancedTrainer):
    """``AdvancedTrainer`` with the cosine contrastive loss, in which ``temperature`` plays no part."""

    Config: ClassVar[type[AdvancedConfig]] = ContrastiveConfig
    config: ContrastiveConfig

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.objective = ContrastiveObjective(self.config)

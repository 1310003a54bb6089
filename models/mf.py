"""Matrix factorisation: the model that reads no graph."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import HeteroData

from models.base import ModelConfig, TableModel


class MFConfig(ModelConfig):
    """Keys of ``mf``; ``dropout`` drops entries of the vectors."""


class MF(TableModel):
    """One learned vector a user and a song: what training reaches with no messages at all.

    Source: Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 2009;
    without biases, since the losses here compare songs within a user, and a song's bias is one more dimension.

    Args:
        config: an ``MFConfig``. Artists are counted but not used.
    """

    Config: ClassVar[type[ModelConfig]] = MFConfig

    def __init__(self, config: MFConfig) -> None:
        super().__init__(config, config.num_users + config.num_songs)

    def node_vectors(self, graph: HeteroData, left_out: Tensor | None = None) -> Tensor:
        """The table itself: (U + S, D); the graph is not read."""
        return F.dropout(self.table, self.config.dropout, self.training)

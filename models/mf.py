"""Matrix factorisation: a model that does not read the graph."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import HeteroData

from models.base import ModelConfig, TableModel


class MFConfig(ModelConfig):
    """Keys of ``mf``; ``dropout`` leaves out entries of the vectors."""


class MF(TableModel):
    """One learned vector for each user and each song, without messages.

    Source: Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 2009. There
    are no biases: the losses compare songs of one user, so a user's bias has no effect, and a song's bias is like one
    more dimension.

    Args:
        config: an ``MFConfig``; ``num_artists`` is not used.
    """

    Config: ClassVar[type[ModelConfig]] = MFConfig

    def __init__(self, config: MFConfig) -> None:
        super().__init__(config, config.num_users + config.num_songs)

    def node_vectors(self, graph: HeteroData, left_out: Tensor | None = None) -> Tensor:
        """Return the table: (U + S, D); the graph is not read."""
        return F.dropout(self.table, self.config.dropout, self.training)

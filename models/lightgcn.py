"""LightGCN: neighbourhood averages and nothing else."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor
from torch_geometric.data import HeteroData

from data.search import Range
from models.adjacency import adjacency
from models.base import ModelConfig, TableModel
from models.neighbors import neighbor_sum


class LightGCNConfig(ModelConfig):
    """Keys of ``lightgcn``; ``dropout`` drops edges."""

    num_layers: Annotated[PositiveInt, Range(1, 3)] = 2
    """Rounds of propagation."""


class LightGCN(TableModel):
    """What a graph gives without attention: the comparison that ``gat`` has to beat.

    Node vectors are spread over the graph by fixed weights and the layers are averaged,

        x^(l+1)_i = sum over neighbours j of x^(l)_j / sqrt(deg_i deg_j),    z = mean of x^(0) ... x^(L),

    with no transform and no non-linearity. Artists take part as nodes like any other; listens count alike, whatever
    their confidence.

    Source: He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020.

    Args:
        config: a ``LightGCNConfig``.
    """

    Config: ClassVar[type[ModelConfig]] = LightGCNConfig

    def __init__(self, config: LightGCNConfig) -> None:
        super().__init__(config, config.num_users + config.num_songs + config.num_artists)
        self.num_layers = config.num_layers

    def node_vectors(self, graph: HeteroData, left_out: Tensor | None = None) -> Tensor:
        """Average over the layers: (U + S + A, D)."""
        edges = adjacency(graph, self.table.device)
        weight = F.dropout(edges.symmetric_norm().to(self.table.dtype), self.config.dropout, self.training)
        if left_out is not None:
            weight = weight * edges.without(left_out, self.config.num_users).to(weight.dtype)
        x: Tensor = self.table
        total = x
        for _ in range(self.num_layers):
            x = neighbor_sum(edges, weight[:, None], x[:, None]).squeeze(1)
            total = total + x
        return total / (self.num_layers + 1)

"""LightGCN: weighted averages over neighbours, without transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor
from torch_geometric.data import HeteroData

from data.search import Range
from models.base import ModelConfig, TableModel
from models.graph.adjacency import adjacency
from models.graph.aggregation import neighbor_sum
from models.graph.neighborhood import Block, Neighborhood


class LightGCNConfig(ModelConfig):
    """Keys of ``lightgcn``; ``dropout`` leaves out edges."""

    num_layers: Annotated[PositiveInt, Range(1, 3)] = 2
    """Number of propagation layers."""


class LightGCN(TableModel):
    """The graph model without attention, which ``gat`` has to beat.

    Vectors are passed along the edges with fixed weights, and the layers are averaged,

        x^(l+1)_i = sum over neighbours j of x^(l)_j / sqrt(deg_i deg_j),    z = mean of x^(0) ... x^(L),

    without transform and without non-linearity. Artists are nodes like all others. All listens count the same; their
    confidence is not used.

    Source: He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020.

    Args:
        config: a ``LightGCNConfig``.
    """

    Config: ClassVar[type[ModelConfig]] = LightGCNConfig

    def __init__(self, config: LightGCNConfig) -> None:
        super().__init__(config, config.num_users + config.num_songs + config.num_artists)
        self.num_layers = config.num_layers

    @property
    def num_hops(self) -> int:
        """One per layer."""
        return self.num_layers

    def node_vectors(self, graph: HeteroData, left_out: Tensor | None = None) -> Tensor:
        """Return the average over the layers: (U + S + A, D)."""
        edges = adjacency(graph, self.table.device)
        keep = None if left_out is None else edges.mask_without(left_out, self.config.num_users)
        block = Block(edges, keep)
        weight = self._weight(block)
        return self._mean_of_layers(self.table, [(block, weight)] * self.num_layers)

    def sampled_vectors(self, near: Neighborhood) -> Tensor:
        """Return the average over the layers for the seeds: (S, D)."""
        layers = [(block, self._weight(block)) for block in near.blocks]
        return self._mean_of_layers(self.table.index_select(0, near.nodes), layers)

    def _weight(self, block: Block) -> Tensor:
        weight = F.dropout(block.edges.symmetric_norm().to(self.table.dtype), self.config.dropout, self.training)
        return weight if block.keep is None else weight * block.keep.to(weight.dtype)

    def _mean_of_layers(self, x: Tensor, layers: Sequence[tuple[Block, Tensor]]) -> Tensor:
        total = x
        for block, weight in layers:
            x = block.rows_of_targets(neighbor_sum(block.edges, weight[:, None], x[:, None]).squeeze(1))
            total = block.rows_of_targets(total) + x
        return total / (self.num_layers + 1)

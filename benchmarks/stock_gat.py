"""Graph attention with PyG's standard layers, ``HeteroConv`` of ``GATConv``, as a model of our factory."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATConv, HeteroConv

from data.graph import EDGE_TYPES, LISTENS, NODE_TYPES, REV_LISTENS
from models.base import ModelConfig, TableModel


class StockGATConfig(ModelConfig):
    """Keys of the stock model; ``dropout`` is the dropout of ``GATConv``, on the attention of each edge."""

    num_layers: PositiveInt = 2
    """Number of layers."""

    heads: PositiveInt = 4
    """Heads of each ``GATConv``; a divisor of ``embedding_dim``."""


class StockGAT(TableModel):
    """The reference for our attention: one ``GATConv`` per edge type, summed by ``HeteroConv``.

    Everything else is as in ``gat``: one table of node vectors, the average of input and layers, and no messages over
    the edges of a batch's own pairs. So the two differ by their layers and by the local channel only.

    Args:
        config: a ``StockGATConfig``.
    """

    Config: ClassVar[type[ModelConfig]] = StockGATConfig

    def __init__(self, config: StockGATConfig) -> None:
        super().__init__(config, config.num_users + config.num_songs + config.num_artists)
        self.counts = [config.num_users, config.num_songs, config.num_artists]
        size = config.embedding_dim, config.embedding_dim // config.heads, config.heads
        self.layers = nn.ModuleList(
            HeteroConv({kind: GATConv(*size, dropout=config.dropout, add_self_loops=False) for kind in EDGE_TYPES})
            for _ in range(config.num_layers)
        )

    def node_vectors(self, graph: HeteroData, left_out: Tensor | None = None) -> Tensor:
        """Compute the average over the layers (U + S + A, D)."""
        edges = _edges(graph, left_out)
        x: Tensor = self.table
        total = x
        for layer in self.layers:
            out = layer(dict(zip(NODE_TYPES, x.split(self.counts), strict=True)), edges)
            x = torch.cat([out[kind] for kind in NODE_TYPES])
            total = total + x
        return total / (len(self.layers) + 1)


def _edges(graph: HeteroData, left_out: Tensor | None) -> dict[tuple[str, str, str], Tensor]:
    """Return the edges of every type in both directions, without the pairs ``left_out`` (2, B)."""
    edges = {kind: graph[kind].edge_index for kind in EDGE_TYPES}
    if left_out is None:
        return edges
    num_songs = int(graph["song"].num_nodes)
    keys, removed = (pairs[0] * num_songs + pairs[1] for pairs in (edges[LISTENS], left_out))
    kept = edges[LISTENS][:, ~torch.isin(keys, removed)]
    return {**edges, LISTENS: kept, REV_LISTENS: kept.flip(0)}

"""The default model: graph attention that starts as degree normalisation, and a local channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, field_validator
from pydantic_core.core_schema import ValidationInfo
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import MessagePassing

from data.search import Choices, Range
from models.base import ModelConfig, TableModel
from models.graph.adjacency import RELATIONS, Adjacency, adjacency
from models.graph.aggregation import (
    AttentionParameters,
    EdgeFactors,
    ScoreRule,
    attended_sum,
    edge_sums,
    has_kernels,
    neighbor_sum,
)
from models.graph.neighborhood import Block, Neighborhood
from models.item_paths.local_channel import LocalChannel

SCORE_RULE = ScoreRule(slope=0.2, low=-12.0, high=2.0)
"""The log weight of an edge is bounded, so that one bad step cannot make messages explode or vanish."""


class GATConfig(ModelConfig):
    """Keys of ``gat``; ``dropout`` leaves out edges, in each head independently."""

    num_layers: Annotated[PositiveInt, Range(1, 3)] = 2
    """Number of attention layers."""

    heads: Annotated[PositiveInt, Choices(1, 2, 4, 8)] = Field(4, validate_default=True)
    """Number of attention heads; each works on its own ``embedding_dim / heads`` channels."""

    local: bool = True
    """Whether the model has a local channel, which scores a song by the paths from the user's own songs; see
    ``models.item_paths.local_channel.LocalChannel``."""

    @field_validator("heads")
    @classmethod
    def _heads_divide_dim(cls, heads: int, info: ValidationInfo) -> int:
        dim = info.data.get("embedding_dim", heads)
        if dim % heads:
            fitting = ", ".join(str(count) for count in range(1, 9) if dim % count == 0)
            raise ValueError(f"does not divide embedding_dim {dim}; choose heads that do, for example {fitting}")
        return heads


class DegreeAttention(MessagePassing):
    """Attention over all edge types that starts as the symmetric degree normalisation.

    A standard GAT multiplies every vector by dense matrices, and the neighbours of a node compete in a softmax. On a
    sparse listening graph both learn slowly and end up worse than plain degree normalisation. Here each edge from j to
    i, of relation r, has in each head the weight

        a_ij = exp( LeakyReLU(q_r . h_i + k_r . h_j) + b_r + w log c_ij - s_r log deg(j) - t_r log deg(i) )
        h'_i = sum over neighbours j of a_ij h_j

    where c_ij is the confidence of the listen (1 on edges to artists) and deg counts neighbours of all types. Training
    starts with q = k = b = w = 0 and s = t = 1/2, so that a_ij = 1 / sqrt(deg(i) deg(j)). The weights of a node need
    not sum to 1, so an active user and a new one can differ in length as well as in direction.

    Sources: Velickovic et al., "Graph Attention Networks", ICLR 2018 (the learned score); He et al., "LightGCN",
    SIGIR 2020 (the initial weights, and no transforms).

    With ``fuse`` (PyG's switch, here on by default) no tensor of edges x channels is ever made: on the CPU the weights
    are computed while summing and never kept (``models.kernels.attention``); on other devices the sum is one sparse
    product per head. Without ``fuse``, PyG's gather and scatter compute the same, as a reference.

    Args:
        channels: D, length of a node's vector.
        heads: H, a divisor of D.

    Shapes: x (N, D) -> (N, D).
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(aggr="add", node_dim=0)
        relations, self.heads = len(RELATIONS), heads
        self.query = nn.Parameter(torch.zeros(relations, heads, channels // heads))
        self.key = nn.Parameter(torch.zeros(relations, heads, channels // heads))
        self.bias = nn.Parameter(torch.zeros(relations, heads))
        self.source_power = nn.Parameter(torch.full((relations, heads), 0.5))
        self.target_power = nn.Parameter(torch.full((relations, heads), 0.5))
        self.confidence_power = nn.Parameter(torch.zeros(heads))

    def forward(self, x: Tensor, edges: Adjacency, dropout: float = 0.0, keep: Tensor | None = None) -> Tensor:
        """Return the weighted sum over each node's neighbours, heads concatenated: (N, D).

        Args:
            dropout: share of the edges that are left out in training, in each head independently.
            keep: (E,) factors of the weights, which get no gradient; 0 leaves an edge out.
        """
        h = x.view(len(x), self.heads, -1)  # (N, H, D/H)
        factors = EdgeFactors(keep)
        if self.training and dropout > 0:
            factors = EdgeFactors(keep, dropout, seed=int(torch.randint(2**32, ())))
        if self.fuse and has_kernels(x):
            degree_powers = self.source_power, self.target_power
            parameters = AttentionParameters(self.query, self.key, self.bias, *degree_powers, self.confidence_power)
            return attended_sum(edges, h, parameters, SCORE_RULE, factors).view(x.shape)
        alpha = factors.apply(self.edge_weights(h, edges))
        index = edges.matrix(edges.weight) if self.fuse else edges.edge_index
        out: Tensor = self.propagate(index, h=h, alpha=alpha, edges=edges)
        return out.reshape(x.shape)

    def edge_weights(self, h: Tensor, edges: Adjacency) -> Tensor:
        """Return the weight of every edge in every head, in the order of ``edges``: (E, H)."""
        log_degree = edges.log_degree.to(h.dtype)[:, None, None]
        # each end adds terms that depend only on its node and the relation: two terms of (N, R, H) each
        target = head_products(h, self.query), self.bias - self.target_power * log_degree
        source = head_products(h, self.key), -self.source_power * log_degree
        learned, norm = edge_sums(edges, torch.cat(target, -1), torch.cat(source, -1)).chunk(2, dim=1)
        log_confidence = edges.log_confidence.to(h.dtype)[:, None]
        score = F.leaky_relu(learned, SCORE_RULE.slope) + norm + self.confidence_power * log_confidence
        return score.clamp(SCORE_RULE.low, SCORE_RULE.high).exp()

    def message(self, h_j: Tensor, alpha: Tensor) -> Tensor:
        """Return every edge's message (E, H, D/H); PyG calls it if ``fuse`` is off."""
        return alpha[..., None] * h_j

    def message_and_aggregate(self, edge_index: Tensor, h: Tensor, alpha: Tensor, edges: Adjacency) -> Tensor:
        """Return the sums without making the messages; PyG calls it if ``fuse`` is on."""
        return neighbor_sum(edges, alpha, h)


class GAT(TableModel):
    """Learns which listens and which artists tell something about a user's taste.

    A score has two parts. For the first, a table of node vectors goes through layers of ``DegreeAttention`` over
    listens, artists and their reverse edges; the input and all layers are averaged,

        x^(l+1) = attention_l(x^(l)),    z = mean of x^(0) ... x^(L),    similarity(u, i) = cos(z_u, z_i).

    Before training, this is LightGCN with artists in the graph. The second part is the ``LocalChannel``: the song
    attends to the user's own songs, along common listeners and artists. It also adds up both parts.

    Args:
        config: a ``GATConfig``.

    Shapes: ``encode(graph)`` gives user (U, D) and song (S, D).
    """

    Config: ClassVar[type[ModelConfig]] = GATConfig

    def __init__(self, config: GATConfig) -> None:
        super().__init__(config, config.num_users + config.num_songs + config.num_artists)
        layers = (DegreeAttention(config.embedding_dim, config.heads) for _ in range(config.num_layers))
        self.layers = nn.ModuleList(layers)
        self.local = LocalChannel() if config.local else None

    @property
    def num_hops(self) -> int:
        """One per layer."""
        return len(self.layers)

    def node_vectors(self, graph: HeteroData, left_out: Tensor | None = None) -> Tensor:
        """Return the average over the layers: (U + S + A, D)."""
        edges = adjacency(graph, self.table.device)
        keep = None if left_out is None else edges.mask_without(left_out, self.config.num_users)
        return self._mean_of_layers(self.table, [Block(edges, keep)] * self.num_hops)

    def sampled_vectors(self, near: Neighborhood) -> Tensor:
        """Return the average over the layers for the seeds: (S, D)."""
        return self._mean_of_layers(self.table.index_select(0, near.nodes), near.blocks)

    def _mean_of_layers(self, x: Tensor, blocks: Sequence[Block]) -> Tensor:
        total = x
        for layer, block in zip(self.layers, blocks, strict=True):
            keep = None if block.keep is None else block.keep.to(x.dtype)
            x = block.rows_of_targets(layer(x, block.edges, self.config.dropout, keep))
            total = block.rows_of_targets(total) + x
        return total / (len(self.layers) + 1)


def head_products(h: Tensor, vectors: Tensor) -> Tensor:
    """Return each head's dot product with the vector of each relation: (N, H, C) and (R, H, C) give (N, R, H).

    It is one dense product with a matrix that is zero outside a head's own channels. That takes more multiplications
    than one product per head, but is several times faster, because nothing is moved in memory.
    """
    relations, heads, _ = vectors.shape
    own = torch.eye(heads, dtype=vectors.dtype, device=vectors.device)
    blocks = torch.einsum("rhc,hg->hcrg", vectors, own).reshape(-1, relations * heads)  # (D, R * H)
    return (h.flatten(1) @ blocks).view(len(h), relations, heads)

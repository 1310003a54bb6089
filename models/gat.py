"""Graph attention that starts as degree normalisation: the default model."""

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
"""An edge's log weight has bounds, so that one bad step cannot make a message explode or vanish for good."""


class GATConfig(ModelConfig):
    """Keys of ``gat``; ``dropout`` drops edges, each head by itself."""

    num_layers: Annotated[PositiveInt, Range(1, 3)] = 2
    """Rounds of attention."""

    heads: Annotated[PositiveInt, Choices(1, 2, 4, 8)] = Field(4, validate_default=True)
    """Attention heads; each sees its own ``embedding_dim / heads`` channels."""

    local: bool = True
    """Whether a song is also scored by the user's own songs that lead to it; see
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
    """Attention over all edge types whose first guess is the symmetric degree normalisation.

    A stock GAT multiplies every vector by dense matrices and lets each node's neighbours compete in a softmax; on a
    sparse listening graph both are slow to learn and worse than plain degree normalisation. Here each edge of
    relation r from j to i has, in each head, the weight

        a_ij = exp( LeakyReLU(q_r . h_i + k_r . h_j) + b_r + w log c_ij - s_r log deg(j) - t_r log deg(i) )
        h'_i = sum over neighbours j of a_ij h_j

    where c_ij is the confidence of the listen (1 on edges to artists) and deg counts neighbours of all types. With
    q = k = b = w = 0 and s = t = 1/2, where training starts, a_ij = 1 / sqrt(deg(i) deg(j)). The weights of a node
    need not sum to 1, so that an active user and a new one can differ in length as well as direction.

    Sources: Velickovic et al., "Graph Attention Networks", ICLR 2018 (the learned score); He et al., "LightGCN",
    SIGIR 2020 (the start, and no transforms).

    With ``fuse`` (PyG's own switch, on here) no tensor of edges x channels is ever made: on the CPU the weights are
    computed while summing and never kept (``models.kernels.attention``), elsewhere the sum is a sparse product a
    head. Without it, PyG's gather and scatter compute the same in the open, as a reference.

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
        """Attended sum over each node's neighbours, heads side by side: (N, D).

        Args:
            dropout: share of the edges left out in training, each head by itself.
            keep: (E,) factors of the weights, constants for autograd; 0 leaves an edge out.
        """
        h = x.view(len(x), self.heads, -1)  # (N, H, D/H)
        factors = self._factors(dropout, keep)
        if self.fuse and has_kernels(x):
            return attended_sum(edges, h, self._parameters_of_edges(), SCORE_RULE, factors).view(x.shape)
        alpha = factors.apply(self.edge_weights(h, edges))
        index = edges.matrix(edges.weight) if self.fuse else edges.edge_index
        out: Tensor = self.propagate(index, h=h, alpha=alpha, edges=edges)
        return out.reshape(x.shape)

    def _factors(self, dropout: float, keep: Tensor | None) -> EdgeFactors:
        if not self.training or dropout == 0:
            return EdgeFactors(keep)
        return EdgeFactors(keep, dropout, int(torch.randint(2**32, ())))

    def _parameters_of_edges(self) -> AttentionParameters:
        return AttentionParameters(
            self.query, self.key, self.bias, self.source_power, self.target_power, self.confidence_power
        )

    def edge_weights(self, h: Tensor, edges: Adjacency) -> Tensor:
        """The attention of every edge in every head, in the order of ``edges``: (E, H)."""
        log_degree = edges.log_degree.to(h.dtype)[:, None, None]
        # what an end brings to an edge depends on its node and the relation only: two terms of (N, R, H) each
        target = head_products(h, self.query), self.bias - self.target_power * log_degree
        source = head_products(h, self.key), -self.source_power * log_degree
        learned, norm = edge_sums(edges, torch.cat(target, -1), torch.cat(source, -1)).chunk(2, dim=1)
        log_confidence = edges.log_confidence.to(h.dtype)[:, None]
        score = F.leaky_relu(learned, SCORE_RULE.slope) + norm + self.confidence_power * log_confidence
        return score.clamp(SCORE_RULE.low, SCORE_RULE.high).exp()

    def message(self, h_j: Tensor, alpha: Tensor) -> Tensor:
        """The reference: every edge's message, (E, H, D/H)."""
        return alpha[..., None] * h_j

    def message_and_aggregate(self, edge_index: Tensor, h: Tensor, alpha: Tensor, edges: Adjacency) -> Tensor:
        """The same sums without the messages."""
        return neighbor_sum(edges, alpha, h)


class GAT(TableModel):
    """A recommender that learns which listens and which artists say something about a user's taste.

    Two channels of attention make a score. In the first, a table of node vectors goes through layers of
    ``DegreeAttention`` over listens, artists and their reverses; input and layers are averaged,

        x^(l+1) = attention_l(x^(l)),    z = mean of x^(0) ... x^(L),    similarity(u, i) = cos(z_u, z_i).

    Before the first step it is LightGCN with artists in its graph; what it learns beyond that is its attention. In the
    second, the song attends to the user's own songs that lead to it: see ``LocalChannel``, which also adds the two up.

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
        """One a layer."""
        return len(self.layers)

    def node_vectors(self, graph: HeteroData, left_out: Tensor | None = None) -> Tensor:
        """Average over the layers: (U + S + A, D)."""
        edges = adjacency(graph, self.table.device)
        keep = None if left_out is None else edges.without(left_out, self.config.num_users)
        return self._mean_of_layers(self.table, [Block(edges, keep)] * self.num_hops)

    def sampled_vectors(self, near: Neighborhood) -> Tensor:
        """Average over the layers for the seeds: (S, D)."""
        return self._mean_of_layers(self.table.index_select(0, near.nodes), near.blocks)

    def _mean_of_layers(self, x: Tensor, blocks: Sequence[Block]) -> Tensor:
        total = x
        for layer, block in zip(self.layers, blocks, strict=True):
            keep = None if block.keep is None else block.keep.to(x.dtype)
            x = block.received(layer(x, block.edges, self.config.dropout, keep))
            total = block.received(total) + x
        return total / (len(self.layers) + 1)


def head_products(h: Tensor, vectors: Tensor) -> Tensor:
    """Each head's dot product with the vector of each relation: (N, H, C) and (R, H, C) give (N, R, H).

    One dense product with a matrix that is zero outside a head's own channels: more multiplications than one product
    a head, but several times faster, since nothing is moved in memory.
    """
    relations, heads, _ = vectors.shape
    own = torch.eye(heads, dtype=vectors.dtype, device=vectors.device)
    blocks = torch.einsum("rhc,hg->hcrg", vectors, own).reshape(-1, relations * heads)  # (D, R * H)
    return (h.flatten(1) @ blocks).view(len(h), relations, heads)

"""The heterogeneous graph as one sparse matrix; only this file knows where songs and artists start."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, has_masks, message_graph
from models.graph.graph_cache import GraphCache

RELATIONS = ("listens", "rev_listens", "by", "rev_by")
OPPOSITE = (1, 0, 3, 2)
"""The relation of the reverse edges of each relation."""

MIN_CONFIDENCE = 0.01
"""A smaller confidence counts as this one, so that its logarithm is finite."""

NUM_PARTS = 64
"""Ranges of rows that the work is cut into; a fixed number, so that sums over a graph always have the same order."""


class DirectedEdges(NamedTuple):
    """Directed edges in any order. All columns are (E,), as in ``Adjacency``; int64, and float32 for the weight."""

    source: Tensor
    target: Tensor
    relation: Tensor
    weight: Tensor


@dataclass(frozen=True, eq=False)
class Adjacency:
    """All edges of a graph in both directions, over one range of nodes: users, then songs, then artists.

    Edges are sorted by target, then by source: they are a CSR matrix, and messages arrive at its rows. Every edge has
    its reverse, so the matrix and its transpose have the same pattern.

    A slot is a node in one relation: node * number of relations + relation. The edges of a target's slot are neighbours
    in the order of the edges, those of a source's slot are neighbours in the order of ``reverse``.

    Shapes: N nodes, E directed edges, R relations.
        row_start (N + 1,) and source (E,): the CSR pattern. target (E,): the row of each edge.
        relation (E,): index into ``RELATIONS``. weight (E,): confidence of a listen, 1 on edges to artists; equal on an
        edge and its reverse.
        reverse (E,): position of each edge's reverse. degree (N,): number of neighbours.
        target_slot, source_slot (E,): the slots of both ends. target_slots, source_slots (N * R + 1,): where the edges
        of each slot start.
    """

    row_start: Tensor
    source: Tensor
    target: Tensor
    relation: Tensor
    weight: Tensor
    reverse: Tensor
    degree: Tensor
    target_slot: Tensor
    source_slot: Tensor
    target_slots: Tensor
    source_slots: Tensor

    @property
    def num_nodes(self) -> int:
        """Number of users, songs and artists together."""
        return len(self.degree)

    @property
    def edge_index(self) -> Tensor:
        """Source and target of each edge, (2, E) int64, in PyG's format."""
        return torch.stack([self.source, self.target]).long()

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.degree.device

    def to(self, device: torch.device) -> Adjacency:
        """Return the same matrix on another device."""
        return Adjacency(*(getattr(self, field.name).to(device) for field in fields(self)))

    @cached_property
    def log_confidence(self) -> Tensor:
        """Logarithm of each edge's weight, at least that of ``MIN_CONFIDENCE``: (E,)."""
        return self.weight.clamp(min=MIN_CONFIDENCE).log()

    @cached_property
    def log_degree(self) -> Tensor:
        """Logarithm of each node's number of neighbours, 0 if it has none: (N,) float32."""
        return self.degree.clamp(min=1).float().log()

    @cached_property
    def parts(self) -> Tensor:
        """Bounds of ``NUM_PARTS`` ranges of rows with about as many rows and edges each: (NUM_PARTS + 1,) int64."""
        work = self.row_start + torch.arange(self.num_nodes + 1, device=self.device)
        cuts = torch.linspace(0, int(work[-1]), NUM_PARTS + 1, dtype=torch.float64, device=self.device)
        return torch.searchsorted(work, cuts.round().long())

    def mask_without(self, pairs: Tensor, num_users: int) -> Tensor:
        """Return 0 for both edges of each given user-song pair (2, B), and 1 for all other edges: (E,) float32.

        A pair without an edge is ignored: a trainer may learn from pairs that are not in its graph.
        """
        keys = self.target.long() * self.num_nodes + self.source
        users, songs = pairs[0], pairs[1] + num_users
        ends = torch.cat([songs * self.num_nodes + users, users * self.num_nodes + songs])
        place = torch.searchsorted(keys, ends)
        known = (torch.searchsorted(keys, ends, right=True) > place).view(2, -1).all(0) & (users < num_users)
        keep = torch.ones(len(keys), device=self.device)
        keep[place[known.repeat(2)]] = 0
        return keep

    def symmetric_norm(self) -> Tensor:
        """Return 1 / sqrt(deg(target) deg(source)) of each edge: (E,), the normalisation of GCN and LightGCN."""
        scale = self.degree.clamp(min=1).float().rsqrt()
        return scale[self.target] * scale[self.source]

    def matrix(self, values: Tensor) -> Tensor:
        """Return the (N, N) CSR matrix with ``values`` (E,) on the edges."""
        size = (self.num_nodes, self.num_nodes)
        return torch.sparse_csr_tensor(self.row_start, self.source, values, size=size, check_invariants=False)


_cache: GraphCache[Adjacency] = GraphCache()


def adjacency(graph: HeteroData, device: torch.device) -> Adjacency:
    """Return the matrix of a graph's train edges on ``device``.

    It is built once for each graph; treat a graph as immutable after that. If the graph has masks, only its
    ``message_graph`` is read.
    """
    built = _cache.get(graph)
    if built is None or built.device != device:
        built = _cache.set(graph, _build(message_graph(graph) if has_masks(graph) else graph).to(device))
    return built


def _build(graph: HeteroData) -> Adjacency:
    num_users, num_songs = int(graph["user"].num_nodes), int(graph["song"].num_nodes)
    num_artists = int(graph["artist"].num_nodes or 0) if "artist" in graph.node_types else 0
    user, song = graph[LISTENS].edge_index
    song = song + num_users
    by = graph[BY].edge_index if BY in graph.edge_types else user.new_empty(2, 0)
    made, artist = by[0] + num_users, by[1] + num_users + num_songs
    listens, ones = graph[LISTENS].weight, torch.ones(len(made), device=user.device)
    counts = torch.tensor([len(user), len(user), len(made), len(made)], device=user.device)
    edges = DirectedEdges(
        source=torch.cat([user, song, made, artist]),
        target=torch.cat([song, user, artist, made]),
        relation=torch.arange(len(RELATIONS), device=user.device).repeat_interleave(counts),
        weight=torch.cat([listens, listens, ones, ones]),
    )
    return build_adjacency(edges, num_users + num_songs + num_artists)


def build_adjacency(edges: DirectedEdges, num_nodes: int) -> Adjacency:
    """Build the matrix of distinct edges; each edge must come with its reverse."""
    order = (edges.target * num_nodes + edges.source).argsort()
    source, target, relation, weight = (column[order] for column in edges)
    degree = torch.bincount(target, minlength=num_nodes)
    slots = len(RELATIONS)
    _silence_csr_warning()
    return Adjacency(
        # 32-bit indices: MKL and cuSPARSE take them as they are and convert 64-bit ones at every product
        row_start=_row_starts(target, num_nodes),
        source=source.int(),
        target=target.int(),
        relation=relation.int(),
        weight=weight,
        reverse=(source * num_nodes + target).argsort().int(),
        degree=degree,
        target_slot=(target * slots + relation).int(),
        source_slot=(source * slots + relation).int(),
        target_slots=_row_starts(target * slots + relation, num_nodes * slots),
        source_slots=_row_starts(source * slots + relation, num_nodes * slots),
    )


def _row_starts(rows: Tensor, num_rows: int) -> Tensor:
    counts = torch.bincount(rows, minlength=num_rows)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()


def _silence_csr_warning() -> None:
    """Hide torch's warning that CSR tensors are in beta, which it gives once per process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.eye(1).to_sparse_csr()

"""The heterogeneous graph as one sparse matrix: the only place that knows where songs and artists start."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, has_masks, message_graph
from models.graph.per_graph import PerGraph

RELATIONS = ("listens", "rev_listens", "by", "rev_by")
OPPOSITE = (1, 0, 3, 2)
"""Relation of each relation's reverse edges."""

MIN_CONFIDENCE = 0.01
"""A listen of less confidence counts as one of this much: its logarithm has to be finite."""

PARTS = 64
"""Into how many ranges of rows the work is cut: what is summed over a graph is summed in the same order everywhere."""


class DirectedEdges(NamedTuple):
    """Directed edges in any order, columns (E,) as those of ``Adjacency``, int64 but for the weight."""

    source: Tensor
    target: Tensor
    relation: Tensor
    weight: Tensor


@dataclass(frozen=True, eq=False)
class Adjacency:
    """All edges of a graph, both directions, in one index space: users, then songs, then artists.

    Edges are sorted by target, then source, so they are the rows of a CSR matrix whose row is where a message
    arrives. Every edge has its reverse, so the matrix and its transpose have the same pattern.

    A node's slot is its part in one relation: node * number of relations + relation. A CSR row of a target's slot is a
    run of neighbouring edges; that of a source's slot is one in the order of ``reverse``.

    Shapes: N nodes, E directed edges, R relations.
        row_start (N + 1,) and source (E,): the CSR pattern. target (E,): the row of each edge.
        relation (E,): index into ``RELATIONS``. weight (E,): confidence of a listen, 1 on edges to artists, the same
        on an edge and its reverse.
        reverse (E,): position of each edge's reverse. degree (N,): number of neighbours.
        target_slot, source_slot (E,): slot of either end. target_slots, source_slots (N * R + 1,): where the rows of
        their edges start.
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
        """Users, songs and artists together."""
        return len(self.degree)

    @property
    def edge_index(self) -> Tensor:
        """Source and target of each edge, (2, E) int64, as PyG has them."""
        return torch.stack([self.source, self.target]).long()

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.degree.device

    def to(self, device: torch.device) -> Adjacency:
        """The same matrix on another device."""
        return Adjacency(*(getattr(self, field.name).to(device) for field in fields(self)))

    @cached_property
    def log_confidence(self) -> Tensor:
        """Logarithm of each edge's weight, at least that of ``MIN_CONFIDENCE``: (E,)."""
        return self.weight.clamp(min=MIN_CONFIDENCE).log()

    @cached_property
    def log_degree(self) -> Tensor:
        """Logarithm of each node's number of neighbours, 0 where there are none: (N,) float32."""
        return self.degree.clamp(min=1).float().log()

    @cached_property
    def parts(self) -> Tensor:
        """Rows at which ``PARTS`` ranges of about as many rows and edges start: (PARTS + 1,) int64."""
        work = self.row_start + torch.arange(self.num_nodes + 1, device=self.device)
        cuts = torch.linspace(0, int(work[-1]), PARTS + 1, dtype=torch.float64, device=self.device)
        return torch.searchsorted(work, cuts.round().long())

    def without(self, pairs: Tensor, num_users: int) -> Tensor:
        """(E,) 0 on the edges of some user-song pairs (2, B), in both directions, and 1 on all others.

        A pair without an edge sends no message anyway: a trainer may learn from what is not in its graph.
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
        """1 / sqrt(deg(target) deg(source)) of each edge: (E,), the normalisation of GCN and LightGCN."""
        scale = self.degree.clamp(min=1).float().rsqrt()
        return scale[self.target] * scale[self.source]

    def matrix(self, values: Tensor) -> Tensor:
        """The (N, N) CSR matrix with ``values`` (E,) on the edges."""
        size = (self.num_nodes, self.num_nodes)
        return torch.sparse_csr_tensor(self.row_start, self.source, values, size=size, check_invariants=False)


_prepared: PerGraph[Adjacency] = PerGraph()


def adjacency(graph: HeteroData, device: torch.device) -> Adjacency:
    """The matrix of a graph's train edges on ``device``, built once a graph; treat a graph as immutable after that.

    Only train edges are read: a graph with masks goes through ``message_graph`` first.
    """
    known = _prepared.get(graph)
    if known is None or known.device != device:
        known = _prepared.set(graph, _build(message_graph(graph) if has_masks(graph) else graph).to(device))
    return known


def _build(graph: HeteroData) -> Adjacency:
    num_users, num_songs = int(graph["user"].num_nodes), int(graph["song"].num_nodes)
    num_artists = int(graph["artist"].num_nodes or 0) if "artist" in graph.node_types else 0
    return csr_of(_both_directions(graph, num_users, num_songs), num_users + num_songs + num_artists)


def _both_directions(graph: HeteroData, num_users: int, num_songs: int) -> DirectedEdges:
    user, song = graph[LISTENS].edge_index
    song = song + num_users
    by = graph[BY].edge_index if BY in graph.edge_types else user.new_empty(2, 0)
    made, artist = by[0] + num_users, by[1] + num_users + num_songs
    listens, ones = graph[LISTENS].weight, torch.ones(len(made), device=user.device)
    counts = torch.tensor([len(user), len(user), len(made), len(made)], device=user.device)
    return DirectedEdges(
        source=torch.cat([user, song, made, artist]),
        target=torch.cat([song, user, artist, made]),
        relation=torch.arange(len(RELATIONS), device=user.device).repeat_interleave(counts),
        weight=torch.cat([listens, listens, ones, ones]),
    )


def csr_of(edges: DirectedEdges, num_nodes: int) -> Adjacency:
    """The matrix of different edges, each of which has its reverse among them."""
    order = (edges.target * num_nodes + edges.source).argsort()
    source, target, relation, weight = (column[order] for column in edges)
    degree = torch.bincount(target, minlength=num_nodes)
    slots = len(RELATIONS)
    _announce_csr()
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


def _announce_csr() -> None:
    """Let torch say once a process, unheard, that its CSR tensors are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.eye(1).to_sparse_csr()

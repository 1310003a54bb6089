"""Check that further edge types were not derived from held-out listens, for example co-occurrence of songs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from torch_geometric.data import HeteroData

from data.graph import EDGE_TYPES, EdgeType
from evaluation.audit.edges import edge_attributes
from evaluation.audit.node_counts import Matrix, incidence, origin, songs_of_artists
from evaluation.audit.pairs import GraphPairs
from evaluation.audit.result import Check, check

Floats = npt.NDArray[np.float64]

EDGES_AT_ONCE = 50_000
"""Edges to compare at once, to bound the memory."""


@dataclass(frozen=True)
class Support:
    """The number of listens that explain each edge (K,): common listeners of two songs, common songs of two users, …"""

    train: Floats
    all: Floats

    def held_out_only(self) -> int:
        """Count the edges that only held-out listens explain; 0 if there are edges that no listen explains.

        An edge type of another origin (same genre, same label) has edges that no listen explains. Then an edge that
        only held-out listens explain is no proof of a leak.
        """
        return int(np.sum(self.train == 0)) if np.all(self.all > 0) else 0


def check_derived_edges(graph: HeteroData, pairs: GraphPairs) -> Check:
    """Check that no further edge type, and no weight on it, was computed from held-out listens."""
    found = {_name(edge): _count_leaks(graph, edge, pairs) for edge in other_edge_types(graph)}
    named = ", ".join(name for name, count in found.items() if count)
    leak = f"Edges or weights that only held-out listens explain: {{found}} ({named})."
    clean = "No other edge type comes from held-out listens."
    return check("edges from co-occurrence", sum(found.values()), clean, leak)


def unexplained_edge_types(graph: HeteroData, pairs: GraphPairs) -> list[str]:
    """Return the edge types with an edge that no listen explains, so that their origin is unknown."""
    return [_name(edge) for edge in other_edge_types(graph) if np.any(_support(graph, edge, pairs).all == 0)]


def other_edge_types(graph: HeteroData) -> list[EdgeType]:
    """Return the edge types that the pipeline does not make."""
    return [edge for edge in graph.edge_types if edge not in EDGE_TYPES]


def _count_leaks(graph: HeteroData, edge: EdgeType, pairs: GraphPairs) -> int:
    ends = graph[edge].edge_index.cpu()
    if {edge[0], edge[2]} == {"user", "song"}:
        return pairs.num_held_out(ends if edge[0] == "user" else ends.flip(0))
    support = _support(graph, edge, pairs)
    return support.held_out_only() or _count_leaking_weights(graph, edge, support)


def _count_leaking_weights(graph: HeteroData, edge: EdgeType, support: Support) -> int:
    """Count the weights of an edge type that differ because they count held-out listens too."""
    if np.array_equal(support.train, support.all):
        return 0
    for _, value in edge_attributes(graph[edge], len(support.all)):
        values = value.cpu().reshape(len(value), -1)[:, 0].numpy().astype(float)
        if origin(values, {"train": support.train}, {"all": support.all}) == "held out":
            return int(np.sum(support.train != support.all))
    return 0


def _support(graph: HeteroData, edge: EdgeType, pairs: GraphPairs) -> Support:
    ones = np.ones(len(pairs.keys))
    train, everything = (
        _count_common(graph, edge, incidence(pairs, weights)) for weights in (ones * pairs.in_train.numpy(), ones)
    )
    return Support(train, everything)


def _count_common(graph: HeteroData, edge: EdgeType, listens: Matrix) -> Floats:
    """Count what both ends of each edge (K,) have in common in ``listens`` (U, S): songs, or listeners."""
    source, target = graph[edge].edge_index.cpu().numpy()
    first, second = _rows_to_multiply(graph, edge, listens)
    counts = [np.zeros(0)]
    for start in range(0, len(source), EDGES_AT_ONCE):
        chunk = slice(start, start + EDGES_AT_ONCE)
        common = first[source[chunk]].multiply(second[target[chunk]]).sum(axis=1)
        counts.append(np.asarray(common, dtype=float).ravel())
    return np.concatenate(counts)


def _rows_to_multiply(graph: HeteroData, edge: EdgeType, listens: Matrix) -> tuple[Matrix, Matrix]:
    """Return a matrix for each end, a row per node: the songs of users if both ends are users, else the listeners."""
    if edge[0] == edge[2] == "user":
        return listens, listens
    of_users: Matrix = sp.identity(listens.shape[0], format="csr")
    of_artists = (listens @ songs_of_artists(graph) > 0).astype(float).T.tocsr()
    listeners = {"user": of_users, "song": listens.T.tocsr(), "artist": of_artists}
    return listeners[edge[0]], listeners[edge[2]]


def _name(edge: EdgeType) -> str:
    return " ".join(edge)

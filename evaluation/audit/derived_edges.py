"""Whether edges beside the listens were drawn from held-out listens: co-occurrence of songs, of users, and the like."""

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
"""Edges whose ends are compared at once, to bound the memory."""


@dataclass(frozen=True)
class Support:
    """How many listens stand behind each edge (K,): common listeners of two songs, songs in common of two users, …"""

    train: Floats
    all: Floats

    def held_out_only(self) -> int:
        """Edges that only held-out listens explain, where listens explain every edge.

        An edge type of another origin (the same genre, the same label) has edges that nobody's listens explain; then
        nothing follows from one that held-out listens happen to.
        """
        return int(np.sum(self.train == 0)) if np.all(self.all > 0) else 0


def check_derived_edges(graph: HeteroData, pairs: GraphPairs) -> Check:
    """No edge type, and no weight on one, was computed from held-out listens."""
    found = {_name(edge): _leaks(graph, edge, pairs) for edge in other_edge_types(graph)}
    named = ", ".join(name for name, count in found.items() if count)
    leak = f"Edges or weights that held-out listens alone explain: {{found}} ({named})."
    clean = "No edge beside the listens comes from held-out listens."
    return check("edges from co-occurrence", sum(found.values()), clean, leak)


def unexplained_edge_types(graph: HeteroData, pairs: GraphPairs) -> list[str]:
    """Edge types with edges that no listen explains, so that their origin is unknown."""
    return [_name(edge) for edge in other_edge_types(graph) if np.any(_support(graph, edge, pairs).all == 0)]


def other_edge_types(graph: HeteroData) -> list[EdgeType]:
    """Edge types that the pipeline does not make."""
    return [edge for edge in graph.edge_types if edge not in EDGE_TYPES]


def _leaks(graph: HeteroData, edge: EdgeType, pairs: GraphPairs) -> int:
    ends = graph[edge].edge_index.cpu()
    if {edge[0], edge[2]} == {"user", "song"}:
        return pairs.num_held_out(ends if edge[0] == "user" else ends.flip(0))
    support = _support(graph, edge, pairs)
    return support.held_out_only() or _counting_all(graph, edge, support)


def _counting_all(graph: HeteroData, edge: EdgeType, support: Support) -> int:
    """How many weights of an edge type differ because they count held-out listens too."""
    if np.array_equal(support.train, support.all):
        return 0
    for _, value in edge_attributes(graph[edge], len(support.all)):
        values = value.cpu().reshape(len(value), -1)[:, 0].numpy().astype(float)
        if origin(values, {"train": support.train}, {"all": support.all}) == "held out":
            return int(np.sum(support.train != support.all))
    return 0


def _support(graph: HeteroData, edge: EdgeType, pairs: GraphPairs) -> Support:
    of_all = np.ones(len(pairs.keys))
    train, everything = (
        _count(graph, edge, incidence(pairs, weights)) for weights in (of_all * pairs.in_train.numpy(), of_all)
    )
    return Support(train, everything)


def _count(graph: HeteroData, edge: EdgeType, heard: Matrix) -> Floats:
    source, target = graph[edge].edge_index.cpu().numpy()
    first, second = _profiles(graph, edge, heard)
    parts = range(0, len(source), EDGES_AT_ONCE)
    counted = [_dot(first, source[at : at + EDGES_AT_ONCE], second, target[at : at + EDGES_AT_ONCE]) for at in parts]
    return np.concatenate([np.zeros(0), *counted])


def _profiles(graph: HeteroData, edge: EdgeType, heard: Matrix) -> tuple[Matrix, Matrix]:
    """Rows to multiply for each end: users meet in songs, everything else meets in its listeners."""
    if edge[0] == edge[2] == "user":
        return heard, heard
    of_users: Matrix = sp.identity(heard.shape[0], format="csr")
    of_artists = (heard @ songs_of_artists(graph) > 0).astype(float).T.tocsr()
    known = {"user": of_users, "song": heard.T.tocsr(), "artist": of_artists}
    return known[edge[0]], known[edge[2]]


def _dot(first: Matrix, source: npt.NDArray[np.int64], second: Matrix, target: npt.NDArray[np.int64]) -> Floats:
    return np.asarray(first[source].multiply(second[target]).sum(axis=1), dtype=float).ravel()


def _name(edge: EdgeType) -> str:
    return " ".join(edge)

"""Check that no node attribute was counted over held-out listens: popularity, degrees, plays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.special import gammaln
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import BY, NODE_TYPES
from data.listens import Listens
from evaluation.audit.pairs import GraphPairs
from evaluation.audit.result import Check, check

Values = npt.NDArray[np.float64]
Matrix = Any
"""A sparse matrix of scipy, which has no types."""

CHANCE = 1e-6
"""An attribute that follows a count with at least this probability is taken to do so by chance."""

FIRST_NODES = 256
"""Nodes to compare first: a few are enough to tell almost every attribute from a count."""


@dataclass(frozen=True)
class Count:
    """A count (N,) for each node, and its name: what was counted, over which listens."""

    name: str
    values: Values

    @cached_property
    def order(self) -> npt.NDArray[np.intp]:
        return np.argsort(self.values, kind="stable")

    @cached_property
    def repeats(self) -> npt.NDArray[np.bool_]:
        """(N - 1,) True if two neighbours in ``order`` have the same count."""
        ordered = self.values[self.order]
        return ordered[1:] == ordered[:-1]

    def explains(self, values: Values) -> bool:
        """Return True if ``values`` are a function of this count (its bins), or in its order (its logarithm, rank).

        This must hold for every node, and be too unlikely to happen by chance.
        """
        return self._determines(values) or self._orders(values)

    def _determines(self, values: Values) -> bool:
        ordered = values[self.order]
        if np.any((ordered[1:] != ordered[:-1]) & self.repeats):
            return False
        shares = np.unique(values, return_counts=True)[1] / len(values)
        return bool(np.sum(shares**2) ** np.sum(self.repeats) < CHANCE)

    def _orders(self, values: Values) -> bool:
        """Of all N! orders, the ties in both allow some; their share is the probability of the same order by chance."""
        if not any(self._rises(signed[:FIRST_NODES]) and self._rises(signed) for signed in (values, -values)):
            return False
        chance = _log_ties(values) + _log_ties(self.values) - gammaln(len(values) + 1)
        return bool(chance < np.log(CHANCE))

    def _rises(self, values: Values) -> bool:
        """Return True if the counts of the first nodes rise with ``values``; nodes with equal values may differ."""
        counts = self.values[: len(values)]
        return bool(np.all(np.diff(counts[np.lexsort((counts, values))]) >= 0))


def check_node_counts(graph: HeteroData, pairs: GraphPairs, listens: Listens | None = None) -> Check:
    """Check that no node attribute is a count over held-out listens, or a function of one (its logarithm, its bins)."""
    leaking = [name for name, origin in node_origins(graph, pairs, listens).items() if origin == "held out"]
    leak = f"Node attributes counted over held-out listens: {{found}} ({', '.join(leaking)})."
    return check("counts on nodes", len(leaking), "No node attribute is counted over held-out listens.", leak)


def node_origins(graph: HeteroData, pairs: GraphPairs, listens: Listens | None = None) -> dict[str, str]:
    """Return the origin of each node attribute: "train", "held out" or "unknown". Constant attributes are left out."""
    found: dict[str, str] = {}
    for kind in NODE_TYPES:
        columns = dict(_columns(graph, kind))
        if columns:
            train, held_out = counts_of(graph, pairs, kind, listens)
            found |= {name: origin(values, train, held_out) for name, values in columns.items()}
    return found


def origin(values: Values, train: Mapping[str, Values], held_out: Mapping[str, Values]) -> str:
    """Return which counts explain ``values`` (N,): "train", "held out" (with held-out listens), or "unknown"."""
    for name, counts in (("train", train), ("held out", held_out)):
        if any(np.array_equal(values, count) for count in counts.values()):
            return name
    for name, counts in (("train", train), ("held out", held_out)):
        if any(Count(label, count).explains(values) for label, count in counts.items()):
            return name
    return "unknown"


def counts_of(
    graph: HeteroData, pairs: GraphPairs, kind: str, listens: Listens | None
) -> tuple[dict[str, Values], dict[str, Values]]:
    """Count each node of a kind over the train listens, and over all parts with held-out listens.

    Counts over parts with held-out listens that equal a train count are left out: they cannot be told apart.
    """
    weights = {"pairs": np.ones(len(pairs.keys))}
    if listens is not None:
        weights["plays"] = np.add.reduceat(listens.plays, listens.starts()).astype(float)
    in_train = pairs.in_train.numpy()
    train = {name: _per_node(graph, pairs, kind, weight * in_train) for name, weight in weights.items()}
    train["distinct"] = _distinct_neighbours(graph, pairs, kind, in_train)
    held_out: dict[str, Values] = {}
    for part, mask in _parts_with_held_out(pairs).items():
        for name, weight in weights.items():
            held_out[f"{name} {part}"] = _per_node(graph, pairs, kind, weight * mask)
        held_out[f"distinct {part}"] = _distinct_neighbours(graph, pairs, kind, mask)
    same = {name for name, values in held_out.items() if any(np.array_equal(values, count) for count in train.values())}
    return train, {name: values for name, values in held_out.items() if name not in same}


def incidence(pairs: GraphPairs, weights: npt.NDArray[np.float64]) -> Matrix:
    """Return the matrix (U, S) of each pair's summed weights (E,), without pairs of weight zero."""
    user, song = pairs.edges.numpy()
    kept = weights != 0
    shape = (pairs.num_users, pairs.num_songs)
    return sp.csr_matrix((weights[kept], (user[kept], song[kept])), shape=shape)


def songs_of_artists(graph: HeteroData) -> Matrix:
    """Return the matrix (S, A) with 1 where an artist made a song."""
    song, artist = graph[BY].edge_index.cpu().numpy()
    shape = (int(graph["song"].num_nodes), int(graph["artist"].num_nodes))
    return sp.csr_matrix((np.ones(len(song)), (song, artist)), shape=shape)


def _parts_with_held_out(pairs: GraphPairs) -> dict[str, npt.NDArray[np.bool_]]:
    train, val, test = pairs.parts.numpy()
    return {
        "of all listens": np.ones_like(train),
        "of held-out listens": pairs.in_held_out.numpy(),
        "of all masks": train | val | test,
        "of train and val": train | val,
        "of train and test": train | test,
        "of val": val,
        "of test": test,
    }


def _per_node(graph: HeteroData, pairs: GraphPairs, kind: str, weights: npt.NDArray[np.float64]) -> Values:
    user, song = pairs.edges.numpy()
    if kind == "user":
        return np.bincount(user, weights, pairs.num_users).astype(float)
    of_songs = np.bincount(song, weights, pairs.num_songs).astype(float)
    return of_songs if kind == "song" else np.asarray(songs_of_artists(graph).T @ of_songs)


def _distinct_neighbours(graph: HeteroData, pairs: GraphPairs, kind: str, mask: npt.NDArray[np.bool_]) -> Values:
    """Count distinct neighbours: the users of a song or artist, the artists of a user."""
    listens = incidence(pairs, mask.astype(float))
    if kind == "song":
        return listens.getnnz(axis=0).astype(float)
    return (listens @ songs_of_artists(graph)).getnnz(axis=0 if kind == "artist" else 1).astype(float)


def _log_ties(values: Values) -> float:
    """Return the logarithm of the number of orders of the nodes that sort ``values``."""
    return float(np.sum(gammaln(np.unique(values, return_counts=True)[1] + 1)))


def _columns(graph: HeteroData, kind: str) -> Iterator[tuple[str, Values]]:
    """Yield the name and values (N,) of each column of each node attribute that is not constant.

    Attributes of the whole graph count if they have one entry per node of the kind.
    """
    size = int(graph[kind].num_nodes)
    for store in (graph[kind], graph._global_store):
        for name, value in store.items():
            if not isinstance(value, Tensor) or name == "id_hash" or not value.dim() or len(value) != size:
                continue
            columns = value.detach().cpu().reshape(size, -1).T.numpy().astype(float)  # (D, N)
            for number, column in enumerate(columns):
                label = f"{kind}.{name}" + (f"[{number}]" if value.dim() > 1 else "")
                if np.any(column != column[0]):
                    yield label, column

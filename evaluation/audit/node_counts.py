"""Whether something on the nodes was counted over held-out listens: popularity, degrees, plays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
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

BY_ACCIDENT = 1e-6
"""Chance above which an attribute that follows a count is taken to do so by accident."""

GLANCE = 256
"""Nodes that are looked at first, since almost every attribute is told from a count by a few."""


@dataclass(frozen=True)
class Count:
    """A count (N,) for each node, and what it was counted over."""

    name: str
    values: Values

    @cached_property
    def order(self) -> npt.NDArray[np.intp]:
        return np.argsort(self.values, kind="stable")

    @cached_property
    def repeats(self) -> npt.NDArray[np.bool_]:
        """(N - 1,) where two neighbours in ``order`` have the same count."""
        ordered = self.values[self.order]
        return ordered[1:] == ordered[:-1]

    def gives(self, values: Values) -> bool:
        """Whether ``values`` are a function of this count (its bins), or in its order (its logarithm, its rank).

        Either has to hold for every node, and too often to be an accident.
        """
        return self._determines(values) or self._orders(values)

    def _determines(self, values: Values) -> bool:
        ordered = values[self.order]
        if np.any((ordered[1:] != ordered[:-1]) & self.repeats):
            return False
        shares = np.unique(values, return_counts=True)[1] / len(values)
        return bool(np.sum(shares**2) ** np.sum(self.repeats) < BY_ACCIDENT)

    def _orders(self, values: Values) -> bool:
        """By accident at most as likely as the ties among both allow, of all N! orders."""
        if not any(self._rises(signed[:GLANCE]) and self._rises(signed) for signed in (values, -values)):
            return False
        chance = _log_ties(values) + _log_ties(self.values) - gammaln(len(values) + 1)
        return bool(chance < np.log(BY_ACCIDENT))

    def _rises(self, values: Values) -> bool:
        """Whether the counts of the first nodes rise with their ``values``; nodes of one value may differ."""
        counts = self.values[: len(values)]
        return bool(np.all(np.diff(counts[np.lexsort((counts, values))]) >= 0))


def check_node_counts(graph: HeteroData, pairs: GraphPairs, listens: Listens | None = None) -> Check:
    """No node attribute is a count over held-out listens, or a function of one, such as its logarithm or its bins."""
    leaking = [name for name, origin in node_origins(graph, pairs, listens).items() if origin == "held out"]
    leak = f"Node attributes counted over held-out listens: {{found}} ({', '.join(leaking)})."
    return check("counts on nodes", len(leaking), "No node attribute is counted over held-out listens.", leak)


def node_origins(graph: HeteroData, pairs: GraphPairs, listens: Listens | None = None) -> dict[str, str]:
    """Each node attribute's origin: "train", "held out" or "unknown"; constant ones are left out."""
    found: dict[str, str] = {}
    for kind in NODE_TYPES:
        columns = dict(_columns(graph, kind))
        if columns:
            train, held_out = counts_of(graph, pairs, kind, listens)
            found |= {name: origin(values, train, held_out) for name, values in columns.items()}
    return found


def origin(values: Values, train: Mapping[str, Values], others: Mapping[str, Values]) -> str:
    """Which counts give ``values`` (N,): those over train, those that saw held-out listens, or none that we know."""
    for name, counts in (("train", train), ("held out", others)):
        if any(np.array_equal(values, count) for count in counts.values()):
            return name
    for name, counts in (("train", train), ("held out", others)):
        if any(Count(what, count).gives(values) for what, count in counts.items()):
            return name
    return "unknown"


def counts_of(
    graph: HeteroData, pairs: GraphPairs, kind: str, listens: Listens | None
) -> tuple[dict[str, Values], dict[str, Values]]:
    """Counts for each node of a kind over train listens, and the same over parts that have held-out ones."""
    ones = np.ones(len(pairs.keys))
    plays = {} if listens is None else {"plays": np.add.reduceat(listens.plays, listens.starts()).astype(float)}
    weighed = {"pairs": ones, **plays}
    train = pairs.in_train.numpy()
    known = {name: _per_node(graph, pairs, kind, weight * train) for name, weight in weighed.items()}
    known |= {"distinct": _distinct(graph, pairs, kind, train)}
    others: dict[str, Values] = {}
    for part, mask in _parts_with_held_out(pairs).items():
        others |= {f"{name} {part}": _per_node(graph, pairs, kind, w * mask) for name, w in weighed.items()}
        others |= {f"distinct {part}": _distinct(graph, pairs, kind, mask)}
    same = {name for name, values in others.items() if any(np.array_equal(values, known[k]) for k in known)}
    return known, {name: values for name, values in others.items() if name not in same}


def incidence(pairs: GraphPairs, weights: npt.NDArray[np.float64]) -> Matrix:
    """(U, S) sums of the weights (E,) of each pair, without those of weight zero."""
    user, song = pairs.edges.numpy()
    kept = weights != 0
    shape = (pairs.num_users, pairs.num_songs)
    return sp.csr_matrix((weights[kept], (user[kept], song[kept])), shape=shape)


def songs_of_artists(graph: HeteroData) -> Matrix:
    """(S, A) ones where a song is by an artist."""
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


def _distinct(graph: HeteroData, pairs: GraphPairs, kind: str, mask: npt.NDArray[np.bool_]) -> Values:
    """Distinct neighbours: users of an artist, artists of a user; for songs, users again."""
    heard = incidence(pairs, mask.astype(float))
    if kind == "song":
        return heard.getnnz(axis=0).astype(float)
    return (heard @ songs_of_artists(graph)).getnnz(axis=0 if kind == "artist" else 1).astype(float)


def _log_ties(values: Values) -> float:
    """Logarithm of the number of orders that equal values leave open."""
    return float(np.sum(gammaln(np.unique(values, return_counts=True)[1] + 1)))


def _columns(graph: HeteroData, kind: str) -> Iterator[tuple[str, Values]]:
    """Name and values (N,) of each column of each node attribute that varies, global ones of that length included."""
    size = int(graph[kind].num_nodes)
    for store in (graph[kind], graph._global_store):
        for name, value in store.items():
            is_theirs = isinstance(value, Tensor) and name != "id_hash" and value.dim() and len(value) == size
            for number, column in enumerate(_as_columns(value) if is_theirs else ()):
                label = f"{kind}.{name}" + (f"[{number}]" if value.dim() > 1 else "")
                if np.any(column != column[0]):
                    yield label, column


def _as_columns(value: Tensor) -> Values:
    """(D, N) of a tensor (N, ...)."""
    return torch.as_tensor(value).detach().cpu().reshape(len(value), -1).T.numpy().astype(float)

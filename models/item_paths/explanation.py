"""Why a model with a local channel recommends a song: what each song that the user listened to adds to its score."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.item_paths.local_scores import LocalScores
from models.kernels.top_songs import WeightedEdges

Array = npt.NDArray[Any]


class Explanation(NamedTuple):
    """The terms of one score; their sum is the score, to float32's rounding.

    Attributes:
        vectors: what the similarity of user and song adds.
        popularity: what the song's number of listeners adds.
        songs: (n,) the user's songs that lead to the song, the one that adds most first.
        by_listeners: (n,) what each adds because the same users heard both. by_artists: (n,) because of a common
            artist.
    """

    vectors: float
    popularity: float
    songs: Array
    by_listeners: Array
    by_artists: Array

    @property
    def score(self) -> float:
        """The sum of all terms."""
        return float(self.vectors + self.popularity + self.by_listeners.sum() + self.by_artists.sum())


def explain(local: LocalScores, user: int, song: int, similarity: float) -> Explanation:
    """Take the score of a song apart.

    A head is log(1 + c sum of a_ij over the user's songs j), so it is no sum over songs; each gets its share of it,
    a_ij over the sum of them.

    Args:
        local: the local channel.
        user, song: indices.
        similarity: of their vectors.
    """
    heard = local.listens.rows(np.array([user])).node
    sums, gates = local.prepared(np.array([user]), local.num_songs)
    log_d = gates.log_listeners[song]
    gate = gates.user[0] + gates.song * log_d
    by_relation, first = [], 0
    for edges in sums.edges:
        heads = slice(first, first := first + len(edges.weight))
        attention = _attention(edges, sums.history, song)
        by_relation.append(_shares(attention, gates.scale[0, heads]) @ gate[heads])
    order = np.argsort(-sum(by_relation), kind="stable")
    by_listeners, by_artists = (added[order] for added in by_relation)
    leads = (by_listeners != 0) | (by_artists != 0)
    return Explanation(
        vectors=float(gate[-1] * similarity),
        popularity=float(gates.popularity[0] * log_d),
        songs=heard[order][leads],
        by_listeners=by_listeners[leads],
        by_artists=by_artists[leads],
    )


def _attention(edges: WeightedEdges, history: Array, song: int) -> Array:
    """a_ij of the song i and each song j that was heard, by its row of edges: (n, H), zero where no path joins them."""
    found = np.zeros((len(history), len(edges.weight)))
    for n, row in enumerate(history):
        own = slice(edges.start[row], edges.stop[row])
        found[n] = edges.weight[:, own][:, edges.candidate[own] == song].sum(1)
    return found


def _shares(attention: Array, scale: Array) -> Array:
    """Each song's share (n, H) of log(1 + scale times the sum)."""
    total = attention.sum(0)
    share: Array = attention / np.maximum(total, np.finfo(float).tiny) * np.log1p(scale * total)
    return share

"""Why a model with a local channel recommends a song: what each song that the user listened to adds to its score."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.local_scores import LocalScores, Relation
from models.path_kernels import HIGH, LOW

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
    listens = local.listens.rows(np.array([user]))
    log_d = float(local.log_listeners[song])
    gates = local.gates @ np.array([1.0, float(listens.log_degree[0]), log_d])
    by_relation, first = [], 0
    for relation in local.relations:
        heads = slice(first, first := first + len(relation.heads))
        scale = np.exp(-local.user_power[heads] * listens.log_degree[0])
        attention = _attention(local, relation, song, listens.node)
        by_relation.append(_shares(attention, scale) @ gates[heads])
    order = np.argsort(-sum(by_relation), kind="stable")
    by_listeners, by_artists = (added[order] for added in by_relation)
    leads = (by_listeners != 0) | (by_artists != 0)
    return Explanation(
        vectors=float(gates[-1] * similarity),
        popularity=local.popularity * log_d,
        songs=listens.node[order][leads],
        by_listeners=by_listeners[leads],
        by_artists=by_artists[leads],
    )


def _attention(local: LocalScores, relation: Relation, song: int, heard: Array) -> Array:
    """a_ij of the song i and each song j that was heard: (n, H), zero where no path joins them."""
    edges, heads = relation.paths.edges(np.array([song])), relation.heads.astype(np.float64)
    ends = np.broadcast_to([1.0, local.log_listeners[song]], (len(edges.other), 2))
    features = np.column_stack([ends, local.log_listeners[edges.other], np.log(edges.strength)])
    found = np.zeros((local.num_songs, len(heads)))
    found[edges.other] = np.exp(np.clip(features @ heads.T, LOW, HIGH))
    return found[heard]


def _shares(attention: Array, scale: Array) -> Array:
    """Each song's share (n, H) of log(1 + scale times the sum)."""
    total = attention.sum(0)
    share: Array = attention / np.maximum(total, np.finfo(float).tiny) * np.log1p(scale * total)
    return share

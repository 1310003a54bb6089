"""Explains a score of a model with a local channel: what each song that the user listened to adds to it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.item_paths.local_scorer import LocalScorer
from models.kernels.top_songs import WeightedEdges

Array = npt.NDArray[Any]


class Explanation(NamedTuple):
    """The terms of one score; their sum is the score, except for float32 rounding.

    Attributes:
        vectors: the term of the similarity of user and song.
        popularity: the term of the song's number of listeners.
        songs: (n,) the user's songs that lead to the song, the largest term first.
        by_listeners: (n,) what each of these songs adds through common listeners.
        by_artists: (n,) what each of them adds through common artists.
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


def explain_score(local: LocalScorer, user: int, song: int, similarity: float) -> Explanation:
    """Split the score of a song into terms.

    A head is log(1 + c sum of a_ij over the user's songs j), which is not a sum over songs. So each song j gets the
    share a_ij / (sum of all a_ij) of the head.

    Args:
        local: the local channel.
        user, song: indices.
        similarity: of the user's vector and the song's.
    """
    own_songs = local.listens.rows(np.array([user])).node
    listened, gates = local.kernel_inputs(np.array([user]), local.num_songs)
    log_d = gates.log_listeners[song]
    gate = gates.user[0] + gates.song * log_d
    by_kind, first = [], 0
    for edges in listened.edges:
        heads = slice(first, first := first + len(edges.weight))
        attention = _attention(edges, listened.row, song)
        # a head is log(1 + scale times the sum); each song gets its share of the sum
        total = attention.sum(0)
        share = attention / np.maximum(total, np.finfo(float).tiny) * np.log1p(gates.scale[0, heads] * total)
        by_kind.append(share @ gate[heads])
    order = np.argsort(-sum(by_kind), kind="stable")
    by_listeners, by_artists = (added[order] for added in by_kind)
    leads = (by_listeners != 0) | (by_artists != 0)
    return Explanation(
        vectors=float(gate[-1] * similarity),
        popularity=float(gates.popularity[0] * log_d),
        songs=own_songs[order][leads],
        by_listeners=by_listeners[leads],
        by_artists=by_artists[leads],
    )


def _attention(edges: WeightedEdges, rows: Array, song: int) -> Array:
    """Return a_ij of the song i and each song j, given by its row of edges: (n, H), zero if no path joins them."""
    found = np.zeros((len(rows), len(edges.weight)))
    for n, row in enumerate(rows):
        own = slice(edges.start[row], edges.stop[row])
        found[n] = edges.weight[:, own][:, edges.candidate[own] == song].sum(1)
    return found

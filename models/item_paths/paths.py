"""Song-to-song edges: paths of two steps through the users or the artists that two songs share.

Numpy only, so that a registered model answers without loading torch. The edges are counted when they are asked for,
in no graph and no file: a song's row costs as many steps as its listeners have listens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data.machine import threads
from models.kernels.compiled import balanced, in_balanced_parts, in_parallel
from models.kernels.path_counts import Attention, Pairs, Rows, Steps, pair_edges, song_edges, weighed_edges
from models.kernels.top_songs import WeightedEdges

Array = npt.NDArray[Any]


class Neighbors(NamedTuple):
    """The neighbours of each of N nodes, as CSR rows: start (N + 1,) int64, node (E,) int32, ascending in a row."""

    start: Array
    node: Array

    @classmethod
    def of(cls, rows: Array, nodes: Array, num_rows: int) -> Neighbors:
        """From pairs in any order."""
        order = np.lexsort((nodes, rows))
        start = np.zeros(num_rows + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=num_rows), out=start[1:])
        return cls(start, nodes[order].astype(np.int32))

    @property
    def degree(self) -> Array:
        """(N,) how many neighbours each has."""
        return np.diff(self.start)

    @property
    def log_degree(self) -> Array:
        """(N,) float32, logarithm of ``degree``; 0 where it is 0."""
        log: Array = np.log(np.maximum(self.degree, 1)).astype(np.float32)
        return log

    @property
    def owner(self) -> Array:
        """(E,) whose neighbour each entry of ``node`` is."""
        return np.repeat(np.arange(len(self.start) - 1), self.degree)

    def rows(self, wanted: Array) -> Neighbors:
        """The rows of some nodes (n,), in their order."""
        start, place = _gathered(self.start[wanted], self.degree[wanted])
        return Neighbors(start, self.node[place])


class SongEdges(NamedTuple):
    """Edges that arrive at each of n songs or pairs.

    start (n + 1,) int64. other (E,) int32, the song at the far end. strength (E, F) float32, one a power of ``Paths``.
    """

    start: Array
    other: Array
    strength: Array

    @property
    def owner(self) -> Array:
        """(E,) which of the n each edge arrives at."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))


@dataclass(frozen=True, eq=False)
class Paths:
    """Song - middle - song, where a middle is a user or an artist.

    An edge between songs i and j has, for each power p, the strength: sum over their common middles m of size(m)^-p,
    size being the number of the middle's songs. So p = 0 counts middles, and p = 1 is a random walk's probability.

    Attributes:
        middles: of each song. songs: of each middle.
        powers: the F powers p. weight: (M, F) float32, size^-p.
    """

    middles: Neighbors
    songs: Neighbors
    powers: tuple[float, ...]
    weight: Array

    @classmethod
    def of(cls, songs: Array, middles: Array, num_songs: int, num_middles: int, powers: Sequence[float]) -> Paths:
        """From pairs (B,) of a song and a middle."""
        of_middle = Neighbors.of(middles, songs, num_middles)
        size = np.maximum(of_middle.degree, 1)[:, None].astype(np.float64)
        weight = (size ** -np.asarray(powers, dtype=np.float64)).astype(np.float32)
        return cls(Neighbors.of(songs, middles, num_songs), of_middle, tuple(map(float, powers)), weight)

    def edges(self, wanted: Array) -> SongEdges:
        """All edges of some songs (n,), those to themselves left out."""
        bound = self._row_bounds(wanted)
        return self._run(song_edges, bound, bound, wanted)

    def weighed(self, wanted: Array, attention: Attention) -> WeightedEdges:
        """All edges from some songs (n,), with the weight of each head instead of strengths.

        Nothing is set aside but what is returned. Its arrays have room for more edges than there are; memory that is
        never written to costs nothing.
        """
        songs, bound = len(self.middles.degree), self._room(wanted)
        parts = balanced(bound)
        begin = np.concatenate([[0], np.cumsum(bound)])
        edges = WeightedEdges(
            start=np.empty(len(wanted), dtype=np.int64),
            stop=np.empty(len(wanted), dtype=np.int64),
            candidate=np.empty(begin[-1], dtype=_index_type(songs)),
            weight=np.empty((len(attention.of_strength), begin[-1]), dtype=np.float32),
        )
        shares = len(parts) - 1
        in_parallel(weighed_edges, threads(), shares, parts, wanted, self._steps, attention, begin[parts], edges)
        return edges

    def weighed_bytes(self, wanted: Array, heads: int) -> int:
        """Memory that ``weighed`` takes at most."""
        edge = np.dtype(_index_type(len(self.middles.degree))).itemsize + 4 * heads
        return int(self._room(wanted).sum()) * edge

    def pair_edges(self, users: Array, songs: Array, history: Neighbors, through_users: bool) -> SongEdges:
        """The edges from each user's other songs to one of them, in a world where the user never heard that one.

        Args:
            users, songs: (P,) pairs of the history.
            history: each user's songs.
            through_users: whether the middles are the users, so that each pair's own user does not count.
        """
        order = np.argsort(songs, kind="stable")
        wanted, first = np.unique(songs[order], return_index=True)
        groups = np.append(first, len(songs)).astype(np.int64)
        bound = np.maximum(history.degree[users] - 1, 0)
        cost = self._row_bounds(wanted)
        return self._run(pair_edges, cost, bound, wanted, Pairs(groups, order, users, *history), through_users)

    @property
    def _steps(self) -> Steps:
        return Steps(*self.middles, *self.songs, self.weight)

    def _room(self, wanted: Array) -> Array:
        """(n,) the most other songs that each song can have an edge to."""
        room: Array = np.minimum(self._row_bounds(wanted), len(self.middles.degree))
        return room

    def _row_bounds(self, wanted: Array) -> Array:
        """(n,) the most edges that the row of each song can have: what its middles' songs sum up to."""
        rows = self.middles.rows(wanted)
        sizes = np.concatenate([[0], np.cumsum(self.songs.degree[rows.node])])
        bound: Array = sizes[rows.start[1:]] - sizes[rows.start[:-1]]
        return bound

    def _run(self, kernel: Any, cost: Array, bound: Array, *arguments: Any) -> SongEdges:
        """Let a kernel, whose songs cost ``cost``, fill rows of ``bound`` places, and close the gaps that it leaves."""
        start = np.concatenate([[0], np.cumsum(bound)]).astype(np.int64)
        other = np.empty(start[-1], dtype=np.int32)
        strength = np.empty((start[-1], self.weight.shape[1]), dtype=np.float32)
        length = np.zeros(len(bound), dtype=np.int64)
        in_balanced_parts(kernel, cost, *arguments, self._steps, Rows(start[:-1], length, other, strength))
        tight, place = _gathered(start[:-1], length)
        return SongEdges(tight, other[place], strength[place])


def _index_type(songs: int) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if songs <= 2**16 else np.uint32


def _gathered(start: Array, length: Array) -> tuple[Array, Array]:
    """Runs of ``length`` places from ``start``, one after the other: where each begins now, and all their places."""
    begin = np.concatenate([[0], np.cumsum(length)])
    return begin, np.repeat(start - begin[:-1], length) + np.arange(begin[-1])

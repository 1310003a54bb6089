"""Song-to-song edges: paths of two steps through the users or the artists that two songs share.

This is numpy only, so that a registered model answers without loading torch. Edges are computed on demand and stored
nowhere: the edges of a song cost as many steps as its listeners have listens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data.machine import threads
from models.kernels.compiled import balanced_bounds, in_balanced_parts, in_parallel
from models.kernels.path_counts import (
    EdgeRows,
    HeadTerms,
    PairsBySong,
    PathGraph,
    pair_edges,
    song_edges,
    weighted_edges,
)
from models.kernels.top_songs import WeightedEdges

Array = npt.NDArray[Any]


class Neighbors(NamedTuple):
    """The neighbours of each of N nodes, as CSR rows: start (N + 1,) int64, node (E,) int32, ascending in a row."""

    start: Array
    node: Array

    @classmethod
    def of(cls, rows: Array, nodes: Array, num_rows: int) -> Neighbors:
        """Build the rows from pairs (row, node) in any order."""
        order = np.lexsort((nodes, rows))
        start = np.zeros(num_rows + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=num_rows), out=start[1:])
        return cls(start, nodes[order].astype(np.int32))

    @property
    def degree(self) -> Array:
        """(N,) number of neighbours."""
        return np.diff(self.start)

    @property
    def log_degree(self) -> Array:
        """(N,) float32, logarithm of ``degree``; 0 if the degree is 0."""
        log: Array = np.log(np.maximum(self.degree, 1)).astype(np.float32)
        return log

    @property
    def owner(self) -> Array:
        """(E,) the row of each entry of ``node``."""
        return np.repeat(np.arange(len(self.start) - 1), self.degree)

    def rows(self, wanted: Array) -> Neighbors:
        """Return the rows of some nodes (n,), in that order."""
        start, place = _gathered(self.start[wanted], self.degree[wanted])
        return Neighbors(start, self.node[place])


class SongEdges(NamedTuple):
    """Edges that arrive at each of n songs or pairs.

    start (n + 1,) int64. other (E,) int32: the song at the other end. strength (E, F) float32: one per power of
    ``Paths``.
    """

    start: Array
    other: Array
    strength: Array

    @property
    def owner(self) -> Array:
        """(E,) the song or pair, 0 to n - 1, that each edge arrives at."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))


@dataclass(frozen=True, eq=False)
class Paths:
    """Paths song - middle - song; a middle is a user or an artist.

    For each power p, the edge between songs i and j has a strength: the sum over their common middles m of size(m)^-p,
    and size(m) is the number of songs of m. So p = 0 counts common middles, and p = 1 is the probability of a random
    walk, up to a factor of the first song.

    Attributes:
        middles: the middles of each song.
        songs: the songs of each middle.
        powers: the F powers p.
        weight: (M, F) float32, size^-p of each middle.
    """

    middles: Neighbors
    songs: Neighbors
    powers: tuple[float, ...]
    weight: Array

    @classmethod
    def of(cls, songs: Array, middles: Array, num_songs: int, num_middles: int, powers: Sequence[float]) -> Paths:
        """Build the paths from pairs (B,) of a song and a middle."""
        of_middle = Neighbors.of(middles, songs, num_middles)
        size = np.maximum(of_middle.degree, 1)[:, None].astype(np.float64)
        weight = (size ** -np.asarray(powers, dtype=np.float64)).astype(np.float32)
        return cls(Neighbors.of(songs, middles, num_songs), of_middle, tuple(map(float, powers)), weight)

    def edges(self, wanted: Array) -> SongEdges:
        """Return all edges of some songs (n,), except those from a song to itself."""
        bound = self._max_paths(wanted)
        return self._run(song_edges, bound, bound, wanted)

    def weighted_edges(self, wanted: Array, terms: HeadTerms) -> WeightedEdges:
        """Return all edges from some songs (n,), with the weights of the heads instead of strengths.

        The returned arrays have room for more edges than there are, which costs no memory as long as it is not written.
        """
        songs, bound = len(self.middles.degree), self._max_neighbors(wanted)
        parts = balanced_bounds(bound)
        begin = np.concatenate([[0], np.cumsum(bound)])
        edges = WeightedEdges(
            start=np.empty(len(wanted), dtype=np.int64),
            stop=np.empty(len(wanted), dtype=np.int64),
            candidate=np.empty(begin[-1], dtype=_index_type(songs)),
            weight=np.empty((len(terms.of_strength), begin[-1]), dtype=np.float32),
        )
        shares = len(parts) - 1
        in_parallel(weighted_edges, threads(), shares, parts, wanted, self._graph, terms, begin[parts], edges)
        return edges

    def max_weighted_bytes(self, wanted: Array, heads: int) -> int:
        """Return the most memory, in bytes, that ``weighted_edges`` can take."""
        edge = np.dtype(_index_type(len(self.middles.degree))).itemsize + 4 * heads
        return int(self._max_neighbors(wanted).sum()) * edge

    def pair_edges(self, users: Array, songs: Array, listens: Neighbors, through_users: bool) -> SongEdges:
        """Return the edges from each user's other songs to one song, as if the user had never listened to that song.

        Args:
            users, songs: (P,) pairs of a user and a song of ``listens``.
            listens: each user's songs.
            through_users: whether the middles are users; then the pair's own user does not count as a middle.
        """
        order = np.argsort(songs, kind="stable")
        wanted, first = np.unique(songs[order], return_index=True)
        groups = np.append(first, len(songs)).astype(np.int64)
        bound = np.maximum(listens.degree[users] - 1, 0)
        cost = self._max_paths(wanted)
        return self._run(pair_edges, cost, bound, wanted, PairsBySong(groups, order, users, *listens), through_users)

    @property
    def _graph(self) -> PathGraph:
        return PathGraph(*self.middles, *self.songs, self.weight)

    def _max_neighbors(self, wanted: Array) -> Array:
        """Return the most edges that each song (n,) can have: its paths, or all songs if these are fewer."""
        room: Array = np.minimum(self._max_paths(wanted), len(self.middles.degree))
        return room

    def _max_paths(self, wanted: Array) -> Array:
        """Return the number of paths from each song (n,): the sum over its middles of their number of songs."""
        rows = self.middles.rows(wanted)
        sizes = np.concatenate([[0], np.cumsum(self.songs.degree[rows.node])])
        bound: Array = sizes[rows.start[1:]] - sizes[rows.start[:-1]]
        return bound

    def _run(self, kernel: Any, cost: Array, bound: Array, *arguments: Any) -> SongEdges:
        """Run a kernel that fills rows with at most ``bound`` edges, and close the gaps between the rows.

        ``cost`` is the work for each song.
        """
        start = np.concatenate([[0], np.cumsum(bound)]).astype(np.int64)
        other = np.empty(start[-1], dtype=np.int32)
        strength = np.empty((start[-1], self.weight.shape[1]), dtype=np.float32)
        length = np.zeros(len(bound), dtype=np.int64)
        in_balanced_parts(kernel, cost, *arguments, self._graph, EdgeRows(start[:-1], length, other, strength))
        tight, place = _gathered(start[:-1], length)
        return SongEdges(tight, other[place], strength[place])


def _index_type(songs: int) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if songs <= 2**16 else np.uint32


def _gathered(start: Array, length: Array) -> tuple[Array, Array]:
    """Put runs of ``length`` places from ``start`` one after the other; return their new starts, and all old places."""
    begin = np.concatenate([[0], np.cumsum(length)])
    return begin, np.repeat(start - begin[:-1], length) + np.arange(begin[-1])

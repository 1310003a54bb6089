"""Loops over paths song - middle - song, where a middle is a user or an artist; see ``models.kernels.compiled``.

The edges of a song are added up in a dense array over all songs and read at the songs that were met, so nothing is
sorted. One thread writes each output, in one fixed order: the bits do not depend on the number of threads. ``exact``
compiles everything that defines a score, so that a score has the same bits in all loops.

Letters in shapes: S songs, M middles, F powers, H heads, C candidates, E edges.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.kernels.compiled import exact, inner, kernel
from models.kernels.fast_math import exp, log
from models.kernels.top_songs import WeightedEdges

Array = npt.NDArray[Any]

LOW, HIGH = -20.0, 15.0
"""Bounds of an edge's log weight, so that one bad step cannot make a sum infinite."""

LOWEST, HIGHEST = np.float32(LOW), np.float32(HIGH)


class PathGraph(NamedTuple):
    """Both steps of a path as CSR rows, and what a middle counts.

    middle_start (S + 1,), middle: the middles of each song. song_start (M + 1,), song: the songs of each middle.
    weight (M, F): of a middle, one for each power.
    """

    middle_start: Array
    middle: Array
    song_start: Array
    song: Array
    weight: Array


class EdgeRows(NamedTuple):
    """Where edges are written: row n takes ``length[n]`` places from ``start[n]`` on; other (E,), strength (E, F)."""

    start: Array
    length: Array
    other: Array
    strength: Array


class PairsBySong(NamedTuple):
    """User-song pairs, grouped by song.

    The pairs of song n are ``order[groups[n]:groups[n + 1]]``. users (P,): the user of each pair. User u listened to
    ``listened[listened_start[u]:listened_start[u + 1]]``.
    """

    groups: Array
    order: Array
    users: Array
    listened_start: Array
    listened: Array


class HeadTerms(NamedTuple):
    """What the log weight of an edge is the sum of, in each head.

    of_strength (H, F): factors of the log strengths. listened, candidate (S, H): terms of the two songs.
    """

    of_strength: Array
    listened: Array
    candidate: Array


@kernel
def song_edges(first: int, last: int, parts: Array, wanted: Array, graph: PathGraph, rows: EdgeRows) -> None:
    """Write the edges of the songs ``wanted`` (n,)."""
    sums = _new_path_sums(graph)
    for row in range(parts[first], parts[last]):
        found = _add_paths(wanted[row], graph, sums)
        place = rows.start[row]
        for n in range(found):
            j = sums.met[n]
            if j != wanted[row]:
                rows.other[place] = j
                rows.strength[place] = sums.total[j]
                place += 1
        rows.length[row] = place - rows.start[row]
        _clear(found, sums)


@kernel
def pair_edges(
    first: int, last: int, parts: Array, wanted: Array, pairs: PairsBySong, through_users: bool, graph: PathGraph,
    rows: EdgeRows,
) -> None:  # fmt: skip
    """Write, for each pair of the songs ``wanted`` (n,), the edges from the user's other songs to the pair's song."""
    sums = _new_path_sums(graph)
    for row in range(parts[first], parts[last]):
        found = _add_paths(wanted[row], graph, sums)
        for n in range(pairs.groups[row], pairs.groups[row + 1]):
            _write_pair(wanted[row], pairs.order[n], pairs, through_users, graph, sums, rows)
        _clear(found, sums)


@kernel
def weighted_edges(
    first: int, last: int, parts: Array, wanted: Array, graph: PathGraph, terms: HeadTerms, bound: Array,
    edges: WeightedEdges,
) -> None:  # fmt: skip
    """Write the edges of the songs ``wanted`` (n,) with their weights; those of part p start at ``bound[p]``."""
    sums = _new_path_sums(graph)
    for part in range(first, last):
        place = bound[part]
        for row in range(parts[part], parts[part + 1]):
            found = _add_paths(wanted[row], graph, sums)
            edges.start[row] = place
            place = _write_candidates(wanted[row], found, sums, edges, place)
            edges.stop[row] = place
            _write_weights(wanted[row], edges.start[row], place, terms, sums, edges)
            _clear(found, sums)


@kernel
def listened_sums(
    first: int, last: int, parts: Array, listened_start: Array, listened: Array,
    edge_start: Array, candidate: Array, weight: Array, out: Array,
) -> None:  # fmt: skip
    """Write ``out[user, c, h]``: the sum of the weights of the edges from the user's songs to candidate c."""
    for user in range(parts[first], parts[last]):
        out[user] = 0.0
        for n in range(listened_start[user], listened_start[user + 1]):
            j = listened[n]
            for edge in range(edge_start[j], edge_start[j + 1]):
                for h in range(weight.shape[1]):
                    out[user, candidate[edge], h] += weight[edge, h]


@kernel
def listened_sums_backward(
    first: int, last: int, parts: Array, listener_start: Array, listener: Array,
    edge_start: Array, candidate: Array, grad: Array, out: Array,
) -> None:  # fmt: skip
    """Write ``out[edge, h]``: the gradient of the edge's weight, the sum of ``grad`` over the listeners of its song."""
    for j in range(parts[first], parts[last]):
        for edge in range(edge_start[j], edge_start[j + 1]):
            out[edge] = 0.0
        for n in range(listener_start[j], listener_start[j + 1]):
            user = listener[n]
            for edge in range(edge_start[j], edge_start[j + 1]):
                for h in range(out.shape[1]):
                    out[edge, h] += grad[user, candidate[edge], h]


class _PathSums(NamedTuple):
    """Working memory of one thread: strengths (S, F) and numbers of paths (S,) of one song, and the songs met (S,)."""

    total: Array
    paths: Array
    met: Array


@inner
def _new_path_sums(graph: PathGraph) -> Any:
    songs, powers = len(graph.middle_start) - 1, graph.weight.shape[1]
    return _PathSums(np.zeros((songs, powers)), np.zeros(songs, dtype=np.int32), np.empty(songs, dtype=np.int32))


@inner
def _add_paths(i: int, graph: PathGraph, sums: _PathSums) -> int:
    """Add up all paths from song ``i``; return how many songs they lead to, itself included."""
    found = 0
    for step in range(graph.middle_start[i], graph.middle_start[i + 1]):
        m = graph.middle[step]
        for back in range(graph.song_start[m], graph.song_start[m + 1]):
            j = graph.song[back]
            if sums.paths[j] == 0:
                sums.met[found] = j
                found += 1
            sums.paths[j] += 1
            for f in range(graph.weight.shape[1]):
                sums.total[j, f] += graph.weight[m, f]
    return found


@inner
def _write_pair(
    i: int, pair: int, pairs: PairsBySong, through_users: bool, graph: PathGraph, sums: _PathSums, rows: EdgeRows
) -> None:
    """Write the edges of one pair; if middles are users, the pair's own user does not count as a middle."""
    user, place = pairs.users[pair], rows.start[pair]
    for edge in range(pairs.listened_start[user], pairs.listened_start[user + 1]):
        j = pairs.listened[edge]
        if j != i and sums.paths[j] > (1 if through_users else 0):
            rows.other[place] = j
            for f in range(graph.weight.shape[1]):
                own = graph.weight[user, f] if through_users else 0.0
                rows.strength[place, f] = sums.total[j, f] - own
            place += 1
    rows.length[pair] = place - rows.start[pair]


@inner
def _write_candidates(j: int, found: int, sums: _PathSums, edges: WeightedEdges, place: int) -> int:
    """Write the songs that were met, except ``j`` itself, from ``place`` on; return where they end."""
    for n in range(found):
        if sums.met[n] != j:
            edges.candidate[place] = sums.met[n]
            place += 1
    return place


@exact
def _write_weights(j: int, start: int, stop: int, terms: HeadTerms, sums: _PathSums, edges: WeightedEdges) -> None:
    """Write the weights of the edges from ``j``: the same bits, however many edges there are."""
    candidate = edges.candidate[start:stop]
    strength = np.empty(len(candidate), dtype=np.float32)
    for h in range(len(edges.weight)):
        _begin_with_songs(terms.listened[j, h], terms.candidate[:, h], candidate, edges.weight[h, start:stop])
    for f in range(sums.total.shape[1]):
        _log_strength(sums.total[:, f], candidate, strength)
        for h in range(len(edges.weight)):
            _add_scaled(terms.of_strength[h, f], strength, edges.weight[h, start:stop])
    for h in range(len(edges.weight)):
        _exp_all(edges.weight[h, start:stop])


@exact
def _begin_with_songs(listened: float, of_candidate: Array, candidate: Array, out: Array) -> None:
    for n in range(len(out)):
        out[n] = listened + of_candidate[candidate[n]]


@exact
def _log_strength(total: Array, candidate: Array, out: Array) -> None:
    for n in range(len(out)):
        out[n] = total[candidate[n]]
    for n in range(len(out)):
        out[n] = log(out[n])


@exact
def _add_scaled(factor: float, values: Array, out: Array) -> None:
    for n in range(len(out)):
        out[n] += factor * values[n]


@exact
def _exp_all(out: Array) -> None:
    for n in range(len(out)):
        out[n] = exp(min(max(out[n], LOWEST), HIGHEST))


@inner
def _clear(found: int, sums: _PathSums) -> None:
    for n in range(found):
        sums.paths[sums.met[n]] = 0
        sums.total[sums.met[n]] = 0.0

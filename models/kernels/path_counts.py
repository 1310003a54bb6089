"""Loops over paths of two steps between songs, compiled by Numba; see ``models.kernels.compiled``.

A row is added up in a dense array of all songs and read off at the songs that were met, so no row is ever sorted.
Every output is written by one thread, in one order: the same bits at any number of threads. What a score is defined by
is compiled by ``exact``, so that it has the same bits in all loops.

Letters in shapes: S songs, F powers, H heads, C candidates.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.kernels.compiled import exact, inner, kernel
from models.kernels.fast_math import exp, log
from models.kernels.top_songs import WeightedEdges

Array = npt.NDArray[Any]


class Steps(NamedTuple):
    """Both steps of a path: the middles of each song, the songs of each middle, and ``weight`` (M, F) of a middle."""

    middle_start: Array
    middle: Array
    song_start: Array
    song: Array
    weight: Array


class Rows(NamedTuple):
    """Where edges are written: row n from ``start[n]`` on, ``length[n]`` of them; other (E,), strength (E, F)."""

    start: Array
    length: Array
    other: Array
    strength: Array


class Pairs(NamedTuple):
    """Pairs by song: row n of the songs has ``order[groups[n]:groups[n + 1]]``. users (P,), and the songs of each."""

    groups: Array
    order: Array
    users: Array
    history_start: Array
    history: Array


class Attention(NamedTuple):
    """Heads: of_strength (H, F) of the log strengths; listened, candidate (S, H): what either end brings."""

    of_strength: Array
    listened: Array
    candidate: Array


@kernel
def song_edges(first: int, last: int, parts: Array, wanted: Array, steps: Steps, rows: Rows) -> None:
    """The edges of ``wanted`` (n,)."""
    scratch = _scratch(steps)
    for row in range(parts[first], parts[last]):
        found = _add_row(wanted[row], steps, scratch)
        place = rows.start[row]
        for n in range(found):
            j = scratch.met[n]
            if j != wanted[row]:
                rows.other[place] = j
                rows.strength[place] = scratch.total[j]
                place += 1
        rows.length[row] = place - rows.start[row]
        _clear(found, scratch)


@kernel
def pair_edges(
    first: int, last: int, parts: Array, wanted: Array, pairs: Pairs, through_users: bool, steps: Steps, rows: Rows
) -> None:
    """Edges to each wanted song from the other songs of its pairs' users."""
    scratch = _scratch(steps)
    for row in range(parts[first], parts[last]):
        found = _add_row(wanted[row], steps, scratch)
        for n in range(pairs.groups[row], pairs.groups[row + 1]):
            _add_pair(wanted[row], pairs.order[n], pairs, through_users, steps, scratch, rows)
        _clear(found, scratch)


@kernel
def weighed_edges(
    first: int, last: int, parts: Array, wanted: Array, steps: Steps, attention: Attention, bound: Array,
    edges: WeightedEdges,
) -> None:  # fmt: skip
    """The edges of ``wanted`` (n,), exp of the heads' scores; a part's are side by side from ``bound`` on."""
    scratch = _scratch(steps)
    for part in range(first, last):
        place = bound[part]
        for row in range(parts[part], parts[part + 1]):
            found = _add_row(wanted[row], steps, scratch)
            edges.start[row] = place
            place = _put(wanted[row], found, scratch, edges, place)
            edges.stop[row] = place
            _weigh(wanted[row], edges.start[row], place, attention, scratch, edges)
            _clear(found, scratch)


@kernel
def history_sums(
    first: int, last: int, parts: Array, history_start: Array, history: Array,
    edge_start: Array, candidate: Array, weight: Array, out: Array,
) -> None:  # fmt: skip
    """``out[row, c, h]``: sum of the weights of the edges from a user's songs to each candidate."""
    for row in range(parts[first], parts[last]):
        out[row] = 0.0
        for n in range(history_start[row], history_start[row + 1]):
            j = history[n]
            for edge in range(edge_start[j], edge_start[j + 1]):
                for h in range(weight.shape[1]):
                    out[row, candidate[edge], h] += weight[edge, h]


@kernel
def history_sums_backward(
    first: int, last: int, parts: Array, listener_start: Array, listener: Array,
    edge_start: Array, candidate: Array, grad: Array, out: Array,
) -> None:  # fmt: skip
    """``out[edge, h]``: sum of the gradients at the edge's candidate over the listeners of its song."""
    for j in range(parts[first], parts[last]):
        for edge in range(edge_start[j], edge_start[j + 1]):
            out[edge] = 0.0
        for n in range(listener_start[j], listener_start[j + 1]):
            row = listener[n]
            for edge in range(edge_start[j], edge_start[j + 1]):
                for h in range(out.shape[1]):
                    out[edge, h] += grad[row, candidate[edge], h]


LOW, HIGH = -20.0, 15.0
"""Bounds of a score of attention, so that one bad step cannot make a sum infinite."""

LOWEST, HIGHEST = np.float32(LOW), np.float32(HIGH)


class _Scratch(NamedTuple):
    """A row while it is added up: total (S, F), how many paths (S,), and the songs met so far."""

    total: Array
    paths: Array
    met: Array


@inner
def _scratch(steps: Steps) -> Any:
    songs, powers = len(steps.middle_start) - 1, steps.weight.shape[1]
    return _Scratch(np.zeros((songs, powers)), np.zeros(songs, dtype=np.int32), np.empty(songs, dtype=np.int32))


@inner
def _add_row(i: int, steps: Steps, scratch: _Scratch) -> int:
    """Add up a song's row; how many songs it met, itself among them."""
    found = 0
    for step in range(steps.middle_start[i], steps.middle_start[i + 1]):
        m = steps.middle[step]
        for back in range(steps.song_start[m], steps.song_start[m + 1]):
            j = steps.song[back]
            if scratch.paths[j] == 0:
                scratch.met[found] = j
                found += 1
            scratch.paths[j] += 1
            for f in range(steps.weight.shape[1]):
                scratch.total[j, f] += steps.weight[m, f]
    return found


@inner
def _add_pair(
    i: int, pair: int, pairs: Pairs, through_users: bool, steps: Steps, scratch: _Scratch, rows: Rows
) -> None:
    """A pair's edges; through users, those that its own user is the only middle of are none."""
    user, place = pairs.users[pair], rows.start[pair]
    for edge in range(pairs.history_start[user], pairs.history_start[user + 1]):
        j = pairs.history[edge]
        if j != i and scratch.paths[j] > (1 if through_users else 0):
            rows.other[place] = j
            for f in range(steps.weight.shape[1]):
                own = steps.weight[user, f] if through_users else 0.0
                rows.strength[place, f] = scratch.total[j, f] - own
            place += 1
    rows.length[pair] = place - rows.start[pair]


@inner
def _put(j: int, found: int, scratch: _Scratch, edges: WeightedEdges, place: int) -> int:
    """Write down the songs that were met, without the song itself; where they end."""
    for n in range(found):
        if scratch.met[n] != j:
            edges.candidate[place] = scratch.met[n]
            place += 1
    return place


@exact
def _weigh(j: int, start: int, stop: int, attention: Attention, scratch: _Scratch, edges: WeightedEdges) -> None:
    """Weights of the edges from ``j``: the same bits, however many there are."""
    candidate = edges.candidate[start:stop]
    strength = np.empty(len(candidate), dtype=np.float32)
    for h in range(len(edges.weight)):
        _begin(attention.listened[j, h], attention.candidate[:, h], candidate, edges.weight[h, start:stop])
    for f in range(scratch.total.shape[1]):
        _log_strength(scratch.total[:, f], candidate, strength)
        for h in range(len(edges.weight)):
            _add_scaled(attention.of_strength[h, f], strength, edges.weight[h, start:stop])
    for h in range(len(edges.weight)):
        _exp_all(edges.weight[h, start:stop])


@exact
def _begin(listened: float, of_candidate: Array, candidate: Array, out: Array) -> None:
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
def _clear(found: int, scratch: _Scratch) -> None:
    for n in range(found):
        scratch.paths[scratch.met[n]] = 0
        scratch.total[scratch.met[n]] = 0.0

"""Loops that score songs for users and keep the best, compiled by Numba; see ``models.kernels.compiled``.

A score is defined by exact sums (``evaluation.exact_products``) and by float32 operations in one order, so it has the
same bits wherever and beside whatever it is computed (``exact``). To rank, all songs are scored from a float32 product,
which is fast and rounds as it likes. A user's ``margin`` bounds twice the error of that, so whoever is more than the
margin below the k-th cannot be among the best k. The few others are scored by the definition.

Letters in shapes: B users, S songs, D dimensions, H heads, R relations, k length of the lists.
"""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.kernels.compiled import exact, inner, kernel
from models.kernels.fast_math import ONE, log

Array = npt.NDArray[Any]

SCORED, SIFTED = 1024, 64
"""Songs whose scores are added up, and that are compared with the cut, before the next ones."""

MOST = np.float32(1e37)
"""Scores above are left to those who find out where they come from."""

SPARE = 64
"""Candidates that may wait before the worst are sorted out."""


class WeightedEdges(NamedTuple):
    """Edges of a relation by the song that was listened to.

    start, stop (n,) int64: where a song's edges are, since rows do not lie side by side. candidate (E,): uint32,
    since an index that may be negative costs a comparison, or uint16 where that is enough. weight (H, E) float32.
    """

    start: Array
    stop: Array
    candidate: Array
    weight: Array


class Sums(NamedTuple):
    """What the local sums of users are added up from: ``history`` (n,) row of edges, user b's from ``start[b]`` on."""

    start: Array
    history: Array
    edges: tuple[WeightedEdges, ...]


class Gates(NamedTuple):
    """What sums and similarities count; the last of the H + 1 gates is the similarity's. All float32.

    user (B, H + 1): of a user. song (H + 1,): factor of a song's ``log_listeners`` (S,); a gate is the sum of both.
    scale (B, H): of each sum. popularity (1,): another factor of ``log_listeners``.
    """

    user: Array
    song: Array
    scale: Array
    popularity: Array
    log_listeners: Array


class Vectors(NamedTuple):
    """On the grids of ``evaluation.exact_products``, float32: user (B, D), song (S, D)."""

    user: Array
    song: Array


class Wanted(NamedTuple):
    """What is looked for: user b's songs ``hidden[start[b]:start[b + 1]]`` stay out; margin (B,) float64, see above."""

    start: Array
    hidden: Array
    margin: Array


class Found(NamedTuple):
    """Lists, best first: items (B, k) int64, -1 from where no song is left; scores (B, k) float32, -inf there.

    sound (B,) bool: False where a score may not be finite. That row means nothing.
    """

    items: Array
    scores: Array
    sound: Array


@kernel
def score_songs(first: int, last: int, parts: Array, sums: Sums, gates: Gates, out: Array) -> None:
    """Turn the similarities in ``out`` (B, S) into scores."""
    total = np.zeros((gates.scale.shape[1], out.shape[1]), dtype=np.float32)
    for row in range(parts[first], parts[last]):
        _add_up(row, sums, total)
        _score_all(row, gates, total, out[row])


@kernel
def best_by_vectors(
    first: int, last: int, parts: Array, vectors: Vectors, wanted: Wanted, near: Array, found: Found
) -> None:
    """The best songs by dot product; ``near`` (B, S) is that in float32."""
    scratch = _scratch(near.shape[1])
    for row in range(parts[first], parts[last]):
        count = _candidates(row, near[row], wanted, found, scratch)
        for n in range(count):
            scratch.score[n] = _dot(vectors.user[row], vectors.song[scratch.song[n]])
        _keep(row, count, scratch, found)


@kernel
def best_by_local(
    first: int, last: int, parts: Array, vectors: Vectors, sums: Sums, gates: Gates, wanted: Wanted, near: Array,
    found: Found,
) -> None:  # fmt: skip
    """The best songs of a model with a local channel; ``near`` (B, S), float32 products, is written over."""
    scratch = _scratch(near.shape[1])
    total = np.zeros((gates.scale.shape[1], near.shape[1]), dtype=np.float32)
    for row in range(parts[first], parts[last]):
        _add_up(row, sums, total)
        _score_all(row, gates, total, near[row])
        count = _candidates(row, near[row], wanted, found, scratch)
        for n in range(count):
            i = scratch.song[n]
            scratch.score[n] = _score(row, i, _dot(vectors.user[row], vectors.song[i]), gates, total)
        _keep(row, count, scratch, found)


class _Scratch(NamedTuple):
    """Room for candidates (S,): which songs, and their scores; and (S,) which songs are hidden."""

    song: Array
    score: Array
    hidden: Array


@inner
def _scratch(songs: int) -> Any:
    return _Scratch(np.empty(songs, np.int64), np.empty(songs, np.float32), np.zeros(songs, np.bool_))


@exact
def _add_up(row: int, sums: Sums, total: Array) -> None:
    """``total`` (H, S): of the edges from a user's songs to each song, in the order of the history."""
    total[:] = 0.0
    for n in range(sums.start[row], sums.start[row + 1]):
        j, head = sums.history[n], 0
        for edges in sums.edges:
            start, stop, heads = edges.start[j], edges.stop[j], len(edges.weight)
            for h in range(0, heads - 1, 2):  # two at a time: a candidate is read once for both
                _add_two(start, stop, edges, h, total[head + h], total[head + h + 1])
            if heads % 2:
                _add_one(start, stop, edges.candidate, edges.weight[heads - 1], total[head + heads - 1])
            head += heads


@exact
def _add_two(start: int, stop: int, edges: WeightedEdges, h: int, one: Array, two: Array) -> None:
    of_one, of_two = edges.weight[h], edges.weight[h + 1]
    for edge in range(start, stop):
        i = edges.candidate[edge]
        one[i] += of_one[edge]
        two[i] += of_two[edge]


@exact
def _add_one(start: int, stop: int, candidate: Array, weight: Array, one: Array) -> None:
    for edge in range(start, stop):
        one[candidate[edge]] += weight[edge]


@exact
def _score(row: int, i: int, similarity: float, gates: Gates, total: Array) -> float:
    """The definition: of one song, from its similarity."""
    heads, log_d = len(total), gates.log_listeners[i]
    score = (gates.user[row, heads] + gates.song[heads] * log_d) * similarity + gates.popularity[0] * log_d
    for h in range(heads):
        score += (gates.user[row, h] + gates.song[h] * log_d) * log(ONE + total[h, i] * gates.scale[row, h])
    return score


@exact
def _score_all(row: int, gates: Gates, total: Array, out: Array) -> None:
    """The same operations on all songs at once, block by block; ``out`` (S,) from similarities to scores."""
    heads, songs = len(total), len(out)
    for start in range(0, songs, SCORED):
        stop = min(start + SCORED, songs)
        log_d, block = gates.log_listeners[start:stop], out[start:stop]
        _begin(gates.user[row, heads], gates.song[heads], gates.popularity[0], log_d, block)
        for h in range(heads):
            _add_head(gates.user[row, h], gates.song[h], gates.scale[row, h], total[h, start:stop], log_d, block)


@exact
def _begin(user: float, song: float, popularity: float, log_d: Array, out: Array) -> None:
    for n in range(len(out)):
        out[n] = (user + song * log_d[n]) * out[n] + popularity * log_d[n]


@exact
def _add_head(user: float, song: float, scale: float, total: Array, log_d: Array, out: Array) -> None:
    for n in range(len(out)):
        out[n] += (user + song * log_d[n]) * log(ONE + total[n] * scale)


@inner
def _dot(user: Array, song: Array) -> Any:
    """Exact in any order, so its sum may be vectorised, and then rounded once."""
    total = 0.0
    for d in range(len(user)):
        total += np.float64(user[d]) * np.float64(song[d])
    return np.float32(total)


@inner
def _candidates(row: int, near: Array, wanted: Wanted, found: Found, scratch: _Scratch) -> int:
    """Put the songs that may be among the best into ``scratch``, by rising index; how many they are."""
    hidden = wanted.hidden[wanted.start[row] : wanted.start[row + 1]]
    for i in hidden:
        scratch.hidden[i] = True
    count, finite = _sift(near, found.items.shape[1], wanted.margin[row], scratch)
    for i in hidden:
        scratch.hidden[i] = False
    found.sound[row] = finite and wanted.margin[row] <= MOST
    return count if found.sound[row] else 0


@inner
def _sift(near: Array, k: int, margin: float, scratch: _Scratch) -> tuple[int, bool]:
    """Songs not below the cut, which rises with the k-th best of those seen; and whether all scores are finite."""
    count, full, cut, finite = 0, 2 * k + SPARE, np.float32(-inf), True
    for start in range(0, len(near), SIFTED):
        block = near[start : start + SIFTED]
        above, odd = False, False
        for n in range(len(block)):
            above |= block[n] >= cut
            odd |= not abs(block[n]) <= MOST  # NaN is not
        finite &= not odd
        if above:
            for n in range(len(block)):
                if block[n] >= cut and not scratch.hidden[start + n]:
                    scratch.song[count] = start + n
                    scratch.score[count] = block[n]
                    count += 1
            if count >= full:
                cut = _cut(scratch.score[:count], k, margin)
                count = _drop(count, cut, scratch)
                full = max(full, 2 * count)  # where all scores are about the same, to sort out is no use
    if count > k:
        count = _drop(count, _cut(scratch.score[:count], k, margin), scratch)
    return count, finite


@inner
def _cut(scores: Array, k: int, margin: float) -> Any:
    return np.float32(np.partition(scores, len(scores) - k)[len(scores) - k] - margin)


@inner
def _drop(count: int, cut: float, scratch: _Scratch) -> int:
    kept = 0
    for n in range(count):
        if scratch.score[n] >= cut:
            scratch.song[kept] = scratch.song[n]
            scratch.score[kept] = scratch.score[n]
            kept += 1
    return kept


@inner
def _keep(row: int, count: int, scratch: _Scratch, found: Found) -> None:
    """The best k of the candidates in their order: by falling score, then by rising index, as they came."""
    k = found.items.shape[1]
    order = np.argsort(-scratch.score[:count], kind="mergesort")
    found.items[row] = -1
    found.scores[row] = -inf
    for place in range(min(k, count)):
        found.items[row, place] = scratch.song[order[place]]
        found.scores[row, place] = scratch.score[order[place]]

"""Loops that score songs for users and keep the best; Numba compiles them, see ``models.kernels.compiled``.

A score is defined by exact sums (``evaluation.exact_products``) and by float32 operations in one fixed order
(``exact``), so it has the same bits in every batch and in every loop.

The ranking scores all songs from a float32 matrix product, which is fast but rounded. A user's ``margin`` is at least
twice the error of such a score, so a song that is more than the margin below the k-th best cannot be among the best k.
Only the few remaining candidates get the exact score.

Letters in shapes: B users, S songs, D dimensions, H heads, k length of the lists.
"""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.kernels.compiled import exact, inner, kernel
from models.kernels.fast_math import ONE, log

Array = npt.NDArray[Any]

SCORE_BLOCK = 1024
"""Songs whose scores are computed together, head by head."""

SHORTLIST_BLOCK = 64
"""Songs that are compared with the cut together."""

MAX_SCORE = np.float32(1e37)
"""The loops give up on users with a greater score; the caller then looks at all exact scores."""

SPARE = 64
"""Candidates beyond 2 k that are collected before the worst are dropped."""


class WeightedEdges(NamedTuple):
    """Edges from songs that were listened to, through users or through artists, to candidate songs.

    start, stop (n,) int64: where the edges of each song are; the rows do not lie side by side. candidate (E,): uint32,
    because Numba checks signed indices for negative values, or uint16 if that is enough. weight (H, E) float32.
    """

    start: Array
    stop: Array
    candidate: Array
    weight: Array


class ListenedEdges(NamedTuple):
    """The edges of the songs that users listened to.

    User b listened to the songs whose rows of ``edges`` are ``row[start[b]:start[b + 1]]``. start (B + 1,), row (n,).
    """

    start: Array
    row: Array
    edges: tuple[WeightedEdges, ...]


class Gates(NamedTuple):
    """The factors of the heads and of the similarity in a score. All float32.

    Gate h of user b and song i is ``user[b, h] + song[h] * log_listeners[i]``; the last gate is that of the similarity.
    user (B, H + 1), song (H + 1,), log_listeners (S,). scale (B, H) multiplies each sum before the logarithm.
    popularity (1,) is the factor of ``log_listeners`` itself.
    """

    user: Array
    song: Array
    scale: Array
    popularity: Array
    log_listeners: Array


class QuantizedVectors(NamedTuple):
    """Vectors as ``evaluation.exact_products`` quantizes them, float32: user (B, D), song (S, D)."""

    user: Array
    song: Array


class TopSongsQuery(NamedTuple):
    """Which songs may be listed: all but ``hidden[start[b]:start[b + 1]]`` of user b.

    start (B + 1,) and hidden (n,) int64. margin (B,) float64: see the module.
    """

    start: Array
    hidden: Array
    margin: Array


class TopSongs(NamedTuple):
    """The best songs of each user, best first.

    items (B, k) int64, -1 if no song is left; scores (B, k) float32, -inf there. valid (B,) bool: False if a score of
    the user may not be finite; the rest of that row has no meaning.
    """

    items: Array
    scores: Array
    valid: Array


@kernel
def score_songs(first: int, last: int, parts: Array, listened: ListenedEdges, gates: Gates, out: Array) -> None:
    """Replace the similarities in ``out`` (B, S) by scores."""
    total = np.zeros((gates.scale.shape[1], out.shape[1]), dtype=np.float32)
    for user in range(parts[first], parts[last]):
        _add_up(user, listened, total)
        _score_all(user, gates, total, out[user])


@kernel
def best_by_vectors(
    first: int, last: int, parts: Array, vectors: QuantizedVectors, query: TopSongsQuery, near: Array, top: TopSongs
) -> None:
    """Fill ``top`` with the best songs by dot product; ``near`` (B, S) holds the float32 products."""
    candidates = _room_for_candidates(near.shape[1])
    for user in range(parts[first], parts[last]):
        count = _collect_candidates(user, near[user], query, top, candidates)
        for n in range(count):
            candidates.score[n] = _dot(vectors.user[user], vectors.song[candidates.song[n]])
        _keep_best(user, count, candidates, top)


@kernel
def best_by_local(
    first: int, last: int, parts: Array, vectors: QuantizedVectors, listened: ListenedEdges, gates: Gates,
    query: TopSongsQuery, near: Array, top: TopSongs,
) -> None:  # fmt: skip
    """Fill ``top`` for a model with a local channel; overwrites the float32 products in ``near`` (B, S)."""
    candidates = _room_for_candidates(near.shape[1])
    total = np.zeros((gates.scale.shape[1], near.shape[1]), dtype=np.float32)
    for user in range(parts[first], parts[last]):
        _add_up(user, listened, total)
        _score_all(user, gates, total, near[user])
        count = _collect_candidates(user, near[user], query, top, candidates)
        for n in range(count):
            i = candidates.song[n]
            candidates.score[n] = _score(user, i, _dot(vectors.user[user], vectors.song[i]), gates, total)
        _keep_best(user, count, candidates, top)


class _Candidates(NamedTuple):
    """Working memory of one thread: candidate songs and their scores (S,), and which songs are hidden (S,)."""

    song: Array
    score: Array
    hidden: Array


@inner
def _room_for_candidates(songs: int) -> Any:
    return _Candidates(np.empty(songs, np.int64), np.empty(songs, np.float32), np.zeros(songs, np.bool_))


@exact
def _add_up(user: int, listened: ListenedEdges, total: Array) -> None:
    """Set ``total`` (H, S) to the sum of the weights from the user's songs to each song, song by song."""
    total[:] = 0.0
    for n in range(listened.start[user], listened.start[user + 1]):
        j, head = listened.row[n], 0
        for edges in listened.edges:
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
def _score(user: int, i: int, similarity: float, gates: Gates, total: Array) -> float:
    """Return the score of song ``i``: this is the definition."""
    heads, log_d = len(total), gates.log_listeners[i]
    score = (gates.user[user, heads] + gates.song[heads] * log_d) * similarity + gates.popularity[0] * log_d
    for h in range(heads):
        score += (gates.user[user, h] + gates.song[h] * log_d) * log(ONE + total[h, i] * gates.scale[user, h])
    return score


@exact
def _score_all(user: int, gates: Gates, total: Array, out: Array) -> None:
    """Replace the similarities in ``out`` (S,) by scores: the operations of ``_score``, on blocks of songs."""
    heads, songs = len(total), len(out)
    for start in range(0, songs, SCORE_BLOCK):
        stop = min(start + SCORE_BLOCK, songs)
        log_d, block = gates.log_listeners[start:stop], out[start:stop]
        _begin_with_vectors(gates.user[user, heads], gates.song[heads], gates.popularity[0], log_d, block)
        for h in range(heads):
            _add_head(gates.user[user, h], gates.song[h], gates.scale[user, h], total[h, start:stop], log_d, block)


@exact
def _begin_with_vectors(user: float, song: float, popularity: float, log_d: Array, out: Array) -> None:
    for n in range(len(out)):
        out[n] = (user + song * log_d[n]) * out[n] + popularity * log_d[n]


@exact
def _add_head(user: float, song: float, scale: float, total: Array, log_d: Array, out: Array) -> None:
    for n in range(len(out)):
        out[n] += (user + song * log_d[n]) * log(ONE + total[n] * scale)


@inner
def _dot(user: Array, song: Array) -> Any:
    """Return the dot product, rounded once: of quantized vectors the float64 sum is exact in any order."""
    total = 0.0
    for d in range(len(user)):
        total += np.float64(user[d]) * np.float64(song[d])
    return np.float32(total)


@inner
def _collect_candidates(user: int, near: Array, query: TopSongsQuery, top: TopSongs, candidates: _Candidates) -> int:
    """Put the songs that may be among the best k into ``candidates``, by rising index; return how many they are."""
    hidden = query.hidden[query.start[user] : query.start[user + 1]]
    for i in hidden:
        candidates.hidden[i] = True
    count, finite = _shortlist(near, top.items.shape[1], query.margin[user], candidates)
    for i in hidden:
        candidates.hidden[i] = False
    top.valid[user] = finite and query.margin[user] <= MAX_SCORE
    return count if top.valid[user] else 0


@inner
def _shortlist(near: Array, k: int, margin: float, candidates: _Candidates) -> tuple[int, bool]:
    """Collect the songs that are not below the cut, which rises with the k-th best song so far.

    Returns the number of candidates, and whether all scores are finite.
    """
    count, full, cut, finite = 0, 2 * k + SPARE, np.float32(-inf), True
    for start in range(0, len(near), SHORTLIST_BLOCK):
        block = near[start : start + SHORTLIST_BLOCK]
        above, odd = False, False
        for n in range(len(block)):
            above |= block[n] >= cut
            odd |= not abs(block[n]) <= MAX_SCORE  # true for NaN
        finite &= not odd
        if above:
            for n in range(len(block)):
                if block[n] >= cut and not candidates.hidden[start + n]:
                    candidates.song[count] = start + n
                    candidates.score[count] = block[n]
                    count += 1
            if count >= full:
                cut = _cut(candidates.score[:count], k, margin)
                count = _drop_below(cut, count, candidates)
                full = max(full, 2 * count)  # dropping is useless if all scores are about the same
    if count > k:
        count = _drop_below(_cut(candidates.score[:count], k, margin), count, candidates)
    return count, finite


@inner
def _cut(scores: Array, k: int, margin: float) -> Any:
    return np.float32(np.partition(scores, len(scores) - k)[len(scores) - k] - margin)


@inner
def _drop_below(cut: float, count: int, candidates: _Candidates) -> int:
    kept = 0
    for n in range(count):
        if candidates.score[n] >= cut:
            candidates.song[kept] = candidates.song[n]
            candidates.score[kept] = candidates.score[n]
            kept += 1
    return kept


@inner
def _keep_best(user: int, count: int, candidates: _Candidates, top: TopSongs) -> None:
    """Write the best k candidates, by falling score; equal scores stay in the order of their index."""
    k = top.items.shape[1]
    order = np.argsort(-candidates.score[:count], kind="mergesort")
    top.items[user] = -1
    top.scores[user] = -inf
    for place in range(min(k, count)):
        top.items[user, place] = candidates.song[order[place]]
        top.scores[user, place] = candidates.score[order[place]]

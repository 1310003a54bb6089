"""Loops over paths of two steps between songs, compiled by Numba; see ``models.compiled``.

A row is added up in a dense array of all songs and read off at the songs that were met, so no row is ever sorted.
Every output is written by one thread, in one order: the same bits at any number of threads.

Letters in shapes: S songs, F powers, H heads, C candidates.
"""

from __future__ import annotations

from math import exp, log, log1p
from typing import Any

import numpy as np
import numpy.typing as npt

from models.compiled import inner, kernel

Array = npt.NDArray[Any]


@kernel
def song_edges(
    first: int, last: int, parts: Array, wanted: Array,
    middle_start: Array, middle: Array, song_start: Array, song: Array, weight: Array,
    start: Array, other: Array, strength: Array, length: Array,
) -> None:  # fmt: skip
    """Rows of ``wanted`` (n,), each at ``start[row]``, ``length[row]`` edges long."""
    total, count, met = _scratch(len(middle_start) - 1, weight.shape[1])
    for row in range(parts[first], parts[last]):
        found = _add_row(wanted[row], middle_start, middle, song_start, song, weight, total, count, met)
        place = start[row]
        for n in range(found):
            j = met[n]
            if j != wanted[row]:
                other[place] = j
                strength[place] = total[j]
                place += 1
        length[row] = place - start[row]
        _clear(found, total, count, met)


@kernel
def pair_edges(
    first: int, last: int, parts: Array, wanted: Array, groups: Array, order: Array, users: Array,
    history_start: Array, history: Array, through_users: bool,
    middle_start: Array, middle: Array, song_start: Array, song: Array, weight: Array,
    start: Array, other: Array, strength: Array, length: Array,
) -> None:  # fmt: skip
    """Edges to each wanted song from the other songs of its pairs' users; its pairs are ``order[groups[row]:...]``."""
    total, count, met = _scratch(len(middle_start) - 1, weight.shape[1])
    for row in range(parts[first], parts[last]):
        found = _add_row(wanted[row], middle_start, middle, song_start, song, weight, total, count, met)
        for n in range(groups[row], groups[row + 1]):
            pair = order[n]
            user, place = users[pair], start[pair]
            for edge in range(history_start[user], history_start[user + 1]):
                j = history[edge]
                if j != wanted[row] and count[j] > (1 if through_users else 0):
                    other[place] = j
                    for f in range(weight.shape[1]):
                        strength[place, f] = total[j, f] - (weight[user, f] if through_users else 0.0)
                    place += 1
            length[pair] = place - start[pair]
        _clear(found, total, count, met)


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


@kernel
def edge_weights(
    first: int, last: int, parts: Array, start: Array, song: Array, other: Array, strength: Array,
    of_strength: Array, constant: Array, out: Array,
) -> None:  # fmt: skip
    """exp of each head's score: ``of_strength`` (H, F) of the log strengths, and what either end brings.

    ``constant`` (2, S, H): of the song that is listened from, then of the one that is recommended.
    """
    for row in range(parts[first], parts[last]):
        for edge in range(start[row], start[row + 1]):
            for h in range(of_strength.shape[0]):
                score = constant[0, song[row], h] + constant[1, other[edge], h]
                for f in range(of_strength.shape[1]):
                    score += of_strength[h, f] * log(strength[edge, f])
                out[edge, h] = exp(min(max(score, LOW), HIGH))


@kernel
def combined_scores(
    first: int, last: int, parts: Array, history_start: Array, history: Array, scale: Array,
    edge_start: tuple[Array, ...], candidate: tuple[Array, ...], weight: tuple[Array, ...],
    user_gate: Array, song_gate: Array, constant: Array, out: Array,
) -> None:  # fmt: skip
    """Turn the similarities in ``out`` (B, S) into scores.

    scale (B, H): of each head's sum, for a user. user_gate (B, H + 1), song_gate (S, H + 1): their sum is what a
    head's logarithm and, last, the similarity count. constant (S,) is added.
    """
    heads, songs = scale.shape[1], len(song_gate)
    total = np.zeros((songs, heads), dtype=np.float32)
    for row in range(parts[first], parts[last]):
        total[:] = 0.0
        for n in range(history_start[row], history_start[row + 1]):
            head = 0
            for relation in range(len(edge_start)):
                _add_edges(history[n], edge_start[relation], candidate[relation], weight[relation], head, total)
                head += weight[relation].shape[1]
        for i in range(songs):
            score = (user_gate[row, heads] + song_gate[i, heads]) * out[row, i] + constant[i]
            for h in range(heads):
                if total[i, h] > 0.0:
                    score += (user_gate[row, h] + song_gate[i, h]) * log1p(total[i, h] * scale[row, h])
            out[row, i] = score


LOW, HIGH = -20.0, 15.0
"""Bounds of a score of attention, so that one bad step cannot make a sum infinite."""


@inner
def _scratch(songs: int, powers: int) -> Any:
    return np.zeros((songs, powers)), np.zeros(songs, dtype=np.int32), np.empty(songs, dtype=np.int32)


@inner
def _add_row(
    i: int, middle_start: Array, middle: Array, song_start: Array, song: Array, weight: Array,
    total: Array, count: Array, met: Array,
) -> int:  # fmt: skip
    """Add up a song's row; how many songs it met, itself among them."""
    found = 0
    for step in range(middle_start[i], middle_start[i + 1]):
        m = middle[step]
        for back in range(song_start[m], song_start[m + 1]):
            j = song[back]
            if count[j] == 0:
                met[found] = j
                found += 1
            count[j] += 1
            for f in range(weight.shape[1]):
                total[j, f] += weight[m, f]
    return found


@inner
def _add_edges(j: int, start: Array, candidate: Array, weight: Array, head: int, total: Array) -> None:
    """Add the edges from song ``j`` to the sums of a relation's heads, the first of which is ``head``."""
    for edge in range(start[j], start[j + 1]):
        for h in range(weight.shape[1]):
            total[candidate[edge], head + h] += weight[edge, h]


@inner
def _clear(found: int, total: Array, count: Array, met: Array) -> None:
    for n in range(found):
        count[met[n]] = 0
        total[met[n]] = 0.0

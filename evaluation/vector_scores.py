"""Scores of vectors, alone or with a local channel, and the best songs by them without exact scores of all.

The exact score of a pair is a sum in float64 on a grid (``evaluation.exact_products``). A float32 product of the same
vectors takes half the time and is off by a bound that is known beforehand (N. J. Higham, "Accuracy and Stability of
Numerical Algorithms", 2002, section 3.1: at most D u / (1 - D u) times the product of absolute values, in any order of
the sum). So only songs that are within the bound of the k-th best are scored exactly; see ``models.kernels.top_songs``.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evaluation.exact_products import quantize_songs, quantize_users
from models.item_paths.local_scores import LocalScores
from models.kernels.compiled import in_balanced_parts
from models.kernels.top_songs import Found, Gates, Vectors, Wanted, best_by_local, best_by_vectors

Array = npt.NDArray[Any]

UNIT = 2.0**-24
"""Greatest relative error of a float32 operation."""

TINY = 2.0**-125
"""More than what a float32 product may lose where it is too small for full precision."""

GREATEST_LOG = 89.0
"""Above the logarithm of any float32."""


class Hidden(NamedTuple):
    """Songs that must not be listed: user b's are ``songs[start[b]:start[b + 1]]``; both int64."""

    start: Array
    songs: Array


class VectorScores:
    """The score function of embeddings: their dot product, and what a local channel makes of it where there is one.

    A float32 matrix product rounds differently with the shape of the batch, which reorders near ties. Here the factors
    are rounded to a fixed-point grid on which float64 sums are exact, so that a score is the same to the last bit at
    any batch size, number of threads and device.

    Args:
        user: (U, D) embeddings. song: (S, D) embeddings on the device on which the scores are computed.
        local: makes the scores from the dot products of the same users and songs, or None.
    """

    def __init__(self, user: Tensor, song: Tensor, local: LocalScores | None = None) -> None:
        self.user, self.song, self.local = user, song, local

    def __call__(self, users: Tensor) -> Tensor:
        """Exact scores (B, S) float32 of all songs for users (B,)."""
        rows = torch.from_numpy(self._users(users))  # (B, D)
        similarity = (rows.to(self._exact_songs.device) @ self._exact_songs.T).float()  # (B, S)
        if self.local is None:
            return similarity
        return torch.from_numpy(self.local(users.cpu().numpy(), similarity.cpu().numpy()))

    @property
    def num_songs(self) -> int:
        """Songs that it scores."""
        return len(self.song)

    def best(self, users: Tensor, hidden: Hidden, k: int, at_once: int) -> Found | None:
        """The best k songs of users (N,), equal scores by song index, on the CPU; scores of ``at_once`` users are held.

        Returns:
            None where only the scores themselves can tell: on another device, or where one may not be finite.
        """
        if self.song.device.type != "cpu":
            return None
        found, count = _nothing_found(len(users), k), min(at_once, len(users))
        room = np.empty((count, self.num_songs), dtype=np.float32)  # new memory for each batch costs half a product
        for first in range(0, len(users), at_once):
            batch = slice(first, first + at_once)
            own = Found(*(part[batch] for part in found))
            start = hidden.start[first : first + len(own.sound) + 1]
            self._find(users[batch], Hidden(start, hidden.songs), room[: len(own.sound)], own)
            if not own.sound.all():
                return None
        return found

    def _find(self, users: Tensor, hidden: Hidden, near: Array, found: Found) -> None:
        """Fill ``found`` of one batch; ``near`` (B, S) is room for float32 products."""
        rows = self._users(users)
        vectors = Vectors(rows.astype(np.float32), self._songs)
        if not np.array_equal(vectors.user, rows):
            return  # NaN, or too small for float32: not sound
        with np.errstate(over="ignore", invalid="ignore"):  # the loops see it
            np.matmul(vectors.user, vectors.song.T, out=near)
        error = self._product_error(vectors.user)
        if self.local is None:
            in_balanced_parts(best_by_vectors, np.ones(len(near)), vectors, Wanted(*hidden, 2 * error), near, found)
        else:
            sums, gates = self.local.prepared(users.cpu().numpy(), self.num_songs)
            wanted = Wanted(*hidden, 2 * self._local_error(error, vectors.user, gates))
            in_balanced_parts(best_by_local, np.diff(sums.start), vectors, sums, gates, wanted, near, found)

    def _product_error(self, user: Array) -> Array:
        """(B,) how far a float32 product of each user (B, D) with any song may be from the exact score."""
        count = user.shape[1] + 4  # the exact score is rounded too, and what is compared with it
        relative = count * UNIT / (1 - count * UNIT)
        return relative * self._greatest_product(user) + count * TINY

    def _local_error(self, error: Array, user: Array, gates: Gates) -> Array:
        """(B,) the same once a similarity that is off by ``error`` has gone through the gates.

        Both ways a score is a sum of rounded products; none is above what the gates are at most times a logarithm.
        """
        log_d = float(gates.log_listeners.max(initial=0))
        greatest = (np.abs(gates.user) + np.abs(gates.song) * log_d).astype(np.float64)  # (B, H + 1)
        heads, similarity = greatest[:, :-1].sum(1), greatest[:, -1]
        size = (
            heads * GREATEST_LOG + similarity * self._greatest_product(user) + abs(float(gates.popularity[0])) * log_d
        )
        return similarity * error + 2 * (greatest.shape[1] + 10) * UNIT * size

    def _greatest_product(self, user: Array) -> Array:
        return np.linalg.norm(user.astype(np.float64), axis=1) * self._longest_song

    def _users(self, users: Tensor) -> Array:
        return quantize_users(_array(self.user[users.to(self.user.device)]))

    @cached_property
    def _exact_songs(self) -> Tensor:
        return torch.from_numpy(quantize_songs(_array(self.song))).to(self.song.device)

    @cached_property
    def _songs(self) -> Array:
        """(S, D) on the grid in float32, which has room for its numbers; NaN where one is too small for it."""
        songs = quantize_songs(_array(self.song))
        near = songs.astype(np.float32)
        return near if np.array_equal(near, songs) else np.full_like(near, np.nan)

    @cached_property
    def _longest_song(self) -> float:
        return float(np.linalg.norm(self._songs.astype(np.float64), axis=1).max(initial=0.0))


def _nothing_found(count: int, k: int) -> Found:
    return Found(np.empty((count, k), np.int64), np.empty((count, k), np.float32), np.zeros(count, np.bool_))


def _array(embeddings: Tensor) -> Array:
    return embeddings.detach().float().cpu().numpy()

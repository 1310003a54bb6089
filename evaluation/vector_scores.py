"""Score songs by vectors, with or without a local channel, and find the best songs without all exact scores.

The exact score of a pair is a sum in float64 of quantized vectors (``evaluation.exact_products``). A float32 product of
the same vectors takes half the time, and a bound on its error is known: at most D u / (1 - D u) times the product of
absolute values, in any order of the sum (N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section
3.1). So only songs within the bound of the k-th best are scored exactly; see ``models.kernels.top_songs``.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evaluation.exact_products import quantize_songs, quantize_users
from models.item_paths.local_scorer import LocalScorer
from models.kernels.compiled import in_balanced_parts
from models.kernels.top_songs import Gates, QuantizedVectors, TopSongs, TopSongsQuery, best_by_local, best_by_vectors

Array = npt.NDArray[Any]

UNIT = 2.0**-24
"""Largest relative error of a float32 operation."""

TINY = 2.0**-125
"""An upper bound on the error of a float32 product that is too small for full precision."""

LARGEST_LOG = 89.0
"""An upper bound on the logarithm of any float32."""


class HiddenSongs(NamedTuple):
    """Songs that must not be listed: those of user b are ``songs[start[b]:start[b + 1]]``; both int64."""

    start: Array
    songs: Array


class VectorScores:
    """The score function of embeddings: their dot product, changed by a local channel if there is one.

    A float32 matrix product rounds differently for each shape of the batch, which reorders near ties. Here the vectors
    are quantized so that float64 sums are exact. So a score is the same to the last bit at any batch size, number of
    threads and device.

    Args:
        user: (U, D) embeddings.
        song: (S, D) embeddings, on the device that computes the scores.
        local: computes the scores from the dot products of the same users and songs; None for dot products alone.
    """

    def __init__(self, user: Tensor, song: Tensor, local: LocalScorer | None = None) -> None:
        self.user, self.song, self.local = user, song, local

    def __call__(self, users: Tensor) -> Tensor:
        """Compute the exact scores (B, S) float32 of all songs for users (B,)."""
        rows = torch.from_numpy(self._users(users))  # (B, D)
        similarity = (rows.to(self._exact_songs.device) @ self._exact_songs.T).float()  # (B, S)
        if self.local is None:
            return similarity
        return torch.from_numpy(self.local(users.cpu().numpy(), similarity.cpu().numpy()))

    @property
    def num_songs(self) -> int:
        """Number of songs that it scores."""
        return len(self.song)

    def best(self, users: Tensor, hidden: HiddenSongs, k: int, at_once: int) -> TopSongs | None:
        """Return the best k songs of users (N,), equal scores by song index; works on the CPU only.

        Args:
            users: (N,) user indices.
            hidden: songs that must not be listed.
            k: length of the lists.
            at_once: users whose scores are held in memory at the same time.

        Returns:
            None if all exact scores are needed: on another device, or if a score may not be finite.
        """
        if self.song.device.type != "cpu":
            return None
        shape = len(users), k
        found = TopSongs(np.empty(shape, np.int64), np.empty(shape, np.float32), np.zeros(len(users), np.bool_))
        count = min(at_once, len(users))
        room = np.empty((count, self.num_songs), dtype=np.float32)  # new memory for each batch costs half a product
        for first in range(0, len(users), at_once):
            batch = slice(first, first + at_once)
            own = TopSongs(*(part[batch] for part in found))
            start = hidden.start[first : first + len(own.valid) + 1]
            self._find(users[batch], HiddenSongs(start, hidden.songs), room[: len(own.valid)], own)
            if not own.valid.all():
                return None
        return found

    def _find(self, users: Tensor, hidden: HiddenSongs, near: Array, found: TopSongs) -> None:
        """Fill ``found`` for one batch; ``near`` (B, S) is a buffer for float32 products."""
        rows = self._users(users)
        vectors = QuantizedVectors(rows.astype(np.float32), self._songs)
        if not np.array_equal(vectors.user, rows):
            return  # NaN, or too small for float32: ``valid`` stays False
        with np.errstate(over="ignore", invalid="ignore"):  # the loops check for it
            np.matmul(vectors.user, vectors.song.T, out=near)
        error = self._product_error(vectors.user)
        if self.local is None:
            in_balanced_parts(
                best_by_vectors, np.ones(len(near)), vectors, TopSongsQuery(*hidden, 2 * error), near, found
            )
        else:
            sums, gates = self.local.kernel_inputs(users.cpu().numpy(), self.num_songs)
            wanted = TopSongsQuery(*hidden, 2 * self._local_error(error, vectors.user, gates))
            in_balanced_parts(best_by_local, np.diff(sums.start), vectors, sums, gates, wanted, near, found)

    def _product_error(self, user: Array) -> Array:
        """Bound the error of a float32 product of each user (B, D) with any song, against the exact score: (B,)."""
        count = user.shape[1] + 4  # the exact score is rounded too, and so is the number that it is compared with
        relative = count * UNIT / (1 - count * UNIT)
        return relative * self._largest_product(user) + count * TINY

    def _local_error(self, error: Array, user: Array, gates: Gates) -> Array:
        """Bound the error of the local channel's score (B,) if the similarity has an error of at most ``error``.

        The exact score and the float32 score are both sums of rounded products. Each product is at most the largest
        gate times a logarithm.
        """
        log_d = float(gates.log_listeners.max(initial=0))
        largest = (np.abs(gates.user) + np.abs(gates.song) * log_d).astype(np.float64)  # (B, H + 1)
        heads, similarity = largest[:, :-1].sum(1), largest[:, -1]
        size = heads * LARGEST_LOG + similarity * self._largest_product(user) + abs(float(gates.popularity[0])) * log_d
        return similarity * error + 2 * (largest.shape[1] + 10) * UNIT * size

    def _largest_product(self, user: Array) -> Array:
        return np.linalg.norm(user.astype(np.float64), axis=1) * self._longest_song

    def _users(self, users: Tensor) -> Array:
        return quantize_users(_array(self.user[users.to(self.user.device)]))

    @cached_property
    def _exact_songs(self) -> Tensor:
        return torch.from_numpy(quantize_songs(_array(self.song))).to(self.song.device)

    @cached_property
    def _songs(self) -> Array:
        """Quantized songs (S, D) as float32, which holds them exactly; all NaN if a number is too small for it."""
        songs = quantize_songs(_array(self.song))
        near = songs.astype(np.float32)
        return near if np.array_equal(near, songs) else np.full_like(near, np.nan)

    @cached_property
    def _longest_song(self) -> float:
        return float(np.linalg.norm(self._songs.astype(np.float64), axis=1).max(initial=0.0))


def _array(embeddings: Tensor) -> Array:
    return embeddings.detach().float().cpu().numpy()

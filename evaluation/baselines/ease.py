"""EASE: a linear model from songs to songs in closed form. Its memory grows with the square of the songs."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor
from torch_geometric.data import HeteroData

from evaluation.baselines.baseline import Baseline
from evaluation.baselines.matrix import train_matrix
from evaluation.ranking import Score

logger = logging.getLogger(__name__)

GB = 10**9
BYTES_A_CELL = 4
ROWS_AT_ONCE = 1024
"""Rows of the square matrix in one block."""

Ints = npt.NDArray[np.int64]


class EASE(Baseline):
    """Ridge regression that predicts each song from a user's other songs, all songs at once.

    With X (U, n) the matrix of which user heard which song, and P the inverse of X'X + lambda I::

        B[i, j] = -P[i, j] / P[j, j], the diagonal 0;    scores = X B

    Steck, "Embarrassingly shallow autoencoders for sparse data" (WWW 2019). One float32 matrix (n, n) is inverted in
    place, which takes about n^3 operations. Songs that are left out have the score 0.
    """

    regularization: float = Field(50.0, gt=0)
    """lambda, added to the diagonal; a larger value trusts rare songs less."""
    min_listeners: int = Field(3, ge=1)
    """Songs with fewer train listeners are left out."""
    max_memory_gb: float = Field(8.0, gt=0)
    """Take only as many of the most popular songs as fit into a matrix of this size (8: 44,721 songs)."""

    def why_not(self, graph: HeteroData) -> str:
        if len(self._songs(train_matrix(graph, weighted=False))):
            return ""
        return f"No song has {self.min_listeners} train listeners, so nothing can be learned about any two."

    def fit(self, graph: HeteroData) -> Score:
        listens = train_matrix(graph, weighted=False).astype(np.float32)
        songs = self._affordable(self._songs(listens))
        logger.info("EASE of %d songs needs %.2f GB of memory for its matrix.", len(songs), _gb(len(songs)))
        taken = listens[:, songs]
        return _score(taken, _weights(taken, self.regularization), songs, listens.shape[1])

    def _songs(self, listens: csr_matrix) -> Ints:
        """Return the songs with enough listeners, the most popular first, and by index if equal."""
        listeners = np.bincount(listens.indices, minlength=listens.shape[1])
        order = np.argsort(-listeners, kind="stable")
        return order[listeners[order] >= self.min_listeners]

    def _affordable(self, songs: Ints) -> Ints:
        most = max(1, int((self.max_memory_gb * GB / BYTES_A_CELL) ** 0.5))
        if len(songs) > most:
            logger.warning(
                "EASE takes the %d most popular of %d songs: all would need %.2f GB, above max_memory_gb = %g.",
                most, len(songs), _gb(len(songs)), self.max_memory_gb,
            )  # fmt: skip
        return np.sort(songs[:most])


def _gb(num_songs: int) -> float:
    return num_songs**2 * BYTES_A_CELL / GB


def _weights(listens: csr_matrix, regularization: float) -> Tensor:
    """Compute B (n, n) in the memory of X'X."""
    weights = _gram(listens)
    weights.diagonal().add_(regularization)
    _invert_and_negate(weights)
    weights /= -weights.diagonal().clone()
    weights.fill_diagonal_(0)
    return weights


def _gram(listens: csr_matrix) -> Tensor:
    """Compute X'X (n, n), some rows at a time: a sparse result can be larger than a dense one."""
    columns, num_songs = listens.tocsc(), listens.shape[1]
    gram = torch.empty((num_songs, num_songs))
    for rows in _blocks(num_songs):
        gram[rows] = torch.from_numpy((columns[:, rows].T @ listens).toarray())
    return gram


def _invert_and_negate(matrix: Tensor) -> None:
    """Replace a symmetric positive definite matrix by minus its inverse, in place.

    It applies the sweep operator (Goodnight, "A tutorial on the SWEEP operator", 1979) to blocks, above the diagonal
    only. LAPACK's ``spotrf`` is not used: in scipy 1.17 (OpenBLAS 0.3.30) on two threads it crashed at 27,810 rows.
    """
    blocks = list(_blocks(len(matrix)))
    for pivot in blocks:
        inverse = torch.linalg.inv(matrix[pivot, pivot].double()).float()  # (b, b)
        row = torch.cat([matrix[: pivot.start, pivot].T, matrix[pivot, pivot.start :]], dim=1)  # (b, n)
        row[:, pivot] = 0
        swept = inverse @ row
        for rows in blocks:
            matrix[rows, rows.start :].addmm_(row[:, rows].T, swept[:, rows.start :], alpha=-1)
        matrix[: pivot.start, pivot] = swept[:, : pivot.start].T
        matrix[pivot, pivot.stop :] = swept[:, pivot.stop :]
        matrix[pivot, pivot] = -inverse
    for rows in blocks:
        matrix[rows.stop :, rows] = matrix[rows, rows.stop :].T


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + ROWS_AT_ONCE, count)) for start in range(0, count, ROWS_AT_ONCE))


def _score(listens: csr_matrix, weights: Tensor, songs: Ints, num_songs: int) -> Score:
    columns, dense = torch.from_numpy(songs), weights.numpy()

    def score(users: Tensor) -> Tensor:
        scores = torch.zeros((len(users), num_songs))
        scores[:, columns] = torch.from_numpy(listens[users.cpu().numpy()] @ dense)  # (B, n)
        return scores

    return score

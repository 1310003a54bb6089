"""Nearest neighbours of songs (item-kNN), computed by ``implicit``: songs are similar if the same users hear them."""

from __future__ import annotations

import logging
from abc import abstractmethod

from implicit.nearest_neighbours import ItemItemRecommender, bm25_weight, normalize
from pydantic import Field
from scipy.sparse import csr_matrix
from torch_geometric.data import HeteroData

from evaluation.baselines.baseline import Baseline
from evaluation.baselines.matrix import listens_times, train_matrix
from evaluation.ranking import Score

logger = logging.getLogger(__name__)

GB = 10**9
BYTES_A_NEIGHBOUR = 28
"""Row, column and value as ``implicit`` collects them (16), and column and value again in the sparse matrix (12)."""


class ItemKNN(Baseline):
    """A song's score is the sum of its similarities to the user's train songs, over the nearest neighbours of each.

    Deshpande and Karypis, "Item-based top-N recommendation algorithms" (2004).
    """

    neighbours: int = Field(500, ge=1)
    """Most similar songs to keep for each song. The song itself counts as one, and is removed afterwards."""
    weighted: bool = False
    """True: a listen counts by its confidence (plays, completion and age). False: every heard song counts 1."""
    max_memory_gb: float = Field(8.0, gt=0)
    """Keep fewer neighbours if they would need more memory than this."""

    def fit(self, graph: HeteroData) -> Score:
        listens = train_matrix(graph, self.weighted)
        knn = ItemItemRecommender(K=self._affordable(listens.shape[1]))
        knn.fit(self._columns(listens), show_progress=False)
        return listens_times(listens, _without_diagonal(knn.similarity))

    @abstractmethod
    def _columns(self, listens: csr_matrix) -> csr_matrix:
        """Return the matrix (U, S); the product of two columns is the similarity of their songs."""

    def _affordable(self, num_songs: int) -> int:
        wanted = min(self.neighbours, num_songs)
        affordable = max(1, int(self.max_memory_gb * GB / BYTES_A_NEIGHBOUR / num_songs))
        if wanted > affordable:
            logger.warning(
                "Keeps %d neighbours of each song: %d would need %.1f GB, above max_memory_gb = %g.",
                affordable, wanted, wanted * num_songs * BYTES_A_NEIGHBOUR / GB, self.max_memory_gb,
            )  # fmt: skip
        return min(wanted, affordable)


class CosineItemKNN(ItemKNN):
    """The similarity of two songs is the cosine of their columns of listeners."""

    def _columns(self, listens: csr_matrix) -> csr_matrix:
        return normalize(listens.T).T.tocsr()


class BM25ItemKNN(ItemKNN):
    """The similarity of two songs is the product of their columns of listeners, weighted by BM25.

    A song is a document and its listeners are its words. With w the confidence of a listen, L the song's sum of w
    divided by the mean of all songs, n the user's number of songs, and N the number of all songs::

        bm25 = w (K1 + 1) / (w + K1 (1 - B + B L)) * log(N / (1 + n))

    Robertson and Zaragoza, "The probabilistic relevance framework: BM25 and beyond" (2009).
    """

    weighted: bool = True
    """True: a listen counts by its confidence (plays, completion and age). False: every heard song counts 1."""
    K1: float = Field(1.2, ge=0)
    """How much a higher confidence of one listen counts; 0: not at all."""
    B: float = Field(0.5, ge=0, le=1)
    """How much songs with many listens are weighted down; 0: not at all."""

    def _columns(self, listens: csr_matrix) -> csr_matrix:
        return bm25_weight(listens.T, self.K1, self.B).T.tocsr()


def _without_diagonal(similarity: csr_matrix) -> csr_matrix:
    """Remove the similarity of each song to itself; otherwise heard songs would come first where they are shown."""
    entries = similarity.tocoo()
    others = entries.row != entries.col
    return csr_matrix((entries.data[others], (entries.row[others], entries.col[others])), shape=similarity.shape)

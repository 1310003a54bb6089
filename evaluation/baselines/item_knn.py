"""Nearest neighbours of songs: a user likes what is heard by those who hear what the user hears. By ``implicit``."""

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
"""Row, column and value as ``implicit`` collects them (16), and column and value once more as rows of a matrix (12)."""


class ItemKNN(Baseline):
    """A song's score is the sum of its similarities to the user's train songs, over the nearest neighbours of each.

    Deshpande and Karypis, "Item-based top-N recommendation algorithms" (2004).
    """

    neighbours: int = Field(500, ge=1)
    """Most similar songs that are kept of each song; the song itself, which is then left out, is counted."""
    weighted: bool = False
    """Whether a listen counts by its confidence (plays, completion and age), or every song that was heard as 1."""
    max_memory_gb: float = Field(8.0, gt=0)
    """Fewer neighbours are kept where they would need more memory than this."""

    def fit(self, graph: HeteroData) -> Score:
        listens = train_matrix(graph, self.weighted)
        knn = ItemItemRecommender(K=self._affordable(listens.shape[1]))
        knn.fit(self._columns(listens), show_progress=False)
        return listens_times(listens, _without_diagonal(knn.similarity))

    @abstractmethod
    def _columns(self, listens: csr_matrix) -> csr_matrix:
        """The matrix (U, S) whose columns' products are the similarities."""

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
    """Similarity of two songs: the cosine of their columns of listeners."""

    def _columns(self, listens: csr_matrix) -> csr_matrix:
        return normalize(listens.T).T.tocsr()


class BM25ItemKNN(ItemKNN):
    """Similarity of two songs: the product of their columns of listeners, weighted as words are by BM25.

    With w the confidence of a listen, L the song's sum of them over the mean of all songs, n the user's songs of N::

        bm25 = w (K1 + 1) / (w + K1 (1 - B + B L)) * log(N / (1 + n))

    Robertson and Zaragoza, "The probabilistic relevance framework: BM25 and beyond" (2009); a song is the document, its
    listeners are the words.
    """

    weighted: bool = True
    """Whether a listen counts by its confidence (plays, completion and age), or every song that was heard as 1."""
    K1: float = Field(1.2, ge=0)
    """How much a greater confidence of one listener still counts; 0: not at all."""
    B: float = Field(0.5, ge=0, le=1)
    """How much songs with many listens are held back; 0: not at all."""

    def _columns(self, listens: csr_matrix) -> csr_matrix:
        return bm25_weight(listens.T, self.K1, self.B).T.tocsr()


def _without_diagonal(similarity: csr_matrix) -> csr_matrix:
    """A song says nothing about itself, or what was heard would come first wherever it is shown."""
    entries = similarity.tocoo()
    others = entries.row != entries.col
    return csr_matrix((entries.data[others], (entries.row[others], entries.col[others])), shape=similarity.shape)

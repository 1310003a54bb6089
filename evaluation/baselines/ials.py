"""Matrix factorisation by alternating least squares, by ``implicit``."""

from __future__ import annotations

import torch
from implicit.cpu.als import AlternatingLeastSquares
from pydantic import Field
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits
from torch_geometric.data import HeteroData

from evaluation.baselines.baseline import Baseline
from evaluation.baselines.matrix import train_matrix
from evaluation.ranking import Score
from evaluation.vector_scores import VectorScores

FEWEST_FACTORS = 8


class IALS(Baseline):
    """Vectors of users and songs that explain every cell of the matrix, the heard ones with more confidence.

    Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets" (ICDM 2008), solved as in Takács,
    Pilászy and Tikk, "Applications of the conjugate gradient method for implicit feedback collaborative filtering"
    (RecSys 2011). Rendle, Krichene, Zhang and Koren, "Revisiting the performance of iALS on item recommendation
    benchmarks" (RecSys 2022), show that it keeps up with newer models where it is tuned.
    """

    factors: int = Field(256, ge=1)
    """Length of the vectors at most."""
    users_a_factor: int = Field(24, ge=1)
    """A log of fewer users gets shorter vectors, one factor for so many users (8 at least): it overfits longer ones."""
    regularization: float = Field(0.05, ge=0)
    """Penalty on the squares of the vectors."""
    alpha: float = Field(10.0, gt=0)
    """Confidence of a listen of weight 1, where a song that was not heard has 1."""
    iterations: int = Field(15, ge=1)
    """How often users and songs are solved for."""
    seed: int = Field(0, ge=0)
    """Of the first vectors."""

    def fit(self, graph: HeteroData) -> Score:
        listens = train_matrix(graph, weighted=True)
        with threadpool_limits(1, "blas"):  # users are shared out among threads already; sums of one order
            als = AlternatingLeastSquares(
                factors=self._length(listens), regularization=self.regularization, alpha=self.alpha,
                iterations=self.iterations, random_state=self.seed,
            )  # fmt: skip
            als.fit(listens, show_progress=False)
        return VectorScores(torch.from_numpy(als.user_factors), torch.from_numpy(als.item_factors))

    def _length(self, listens: csr_matrix) -> int:
        users = int((listens.getnnz(axis=1) > 0).sum())
        return min(self.factors, max(FEWEST_FACTORS, users // self.users_a_factor))

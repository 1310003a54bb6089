"""Matrix factorisation by alternating least squares (iALS), computed by ``implicit``."""

from __future__ import annotations

import torch
from implicit.cpu.als import AlternatingLeastSquares
from pydantic import Field
from threadpoolctl import threadpool_limits
from torch_geometric.data import HeteroData

from evaluation.baselines.baseline import Baseline
from evaluation.baselines.matrix import train_matrix
from evaluation.ranking import Score
from evaluation.vector_scores import VectorScores

FEWEST_FACTORS = 8


class IALS(Baseline):
    """Vectors of users and songs that predict every cell of the matrix; heard songs have more confidence.

    Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets" (ICDM 2008), solved as in Takács,
    Pilászy and Tikk, "Applications of the conjugate gradient method for implicit feedback collaborative filtering"
    (RecSys 2011). Rendle, Krichene, Zhang and Koren, "Revisiting the performance of iALS on item recommendation
    benchmarks" (RecSys 2022), show that a tuned iALS is as good as newer models.
    """

    factors: int = Field(256, ge=1)
    """Maximum length of the vectors."""
    users_a_factor: int = Field(24, ge=1)
    """Users per factor: a log with few users gets shorter vectors (8 at least), since longer ones overfit."""
    regularization: float = Field(0.05, ge=0)
    """Penalty on the squares of the vectors."""
    alpha: float = Field(10.0, gt=0)
    """Confidence of a listen of weight 1; a song that was not heard has 1."""
    iterations: int = Field(15, ge=1)
    """How many times users and songs are solved."""
    seed: int = Field(0, ge=0)
    """Seed of the initial vectors."""

    def fit(self, graph: HeteroData) -> Score:
        listens = train_matrix(graph, weighted=True)
        num_users = int((listens.getnnz(axis=1) > 0).sum())
        factors = min(self.factors, max(FEWEST_FACTORS, num_users // self.users_a_factor))
        with threadpool_limits(1, "blas"):  # implicit has its own threads; one BLAS thread keeps the order of sums
            als = AlternatingLeastSquares(
                factors=factors, regularization=self.regularization, alpha=self.alpha,
                iterations=self.iterations, random_state=self.seed,
            )  # fmt: skip
            als.fit(listens, show_progress=False)
        return VectorScores(torch.from_numpy(als.user_factors), torch.from_numpy(als.item_factors))

"""Adversarial personalised ranking: adds the loss at vectors that were moved to where it is greater."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import HeteroData

from models.base import Embeddings, RecommenderModel, SomeEmbeddings
from trainers.adversarial.adversarial_config import AdversarialConfig
from trainers.objective import PairObjective, Step


class AdversarialObjective(PairObjective):
    """Adds the loss at perturbed vectors to the loss at the vectors themselves.

    With Z the vectors of all users and songs of a step, l their ranking loss and g the gradient of l at Z, constant,

        loss = l(Z) + adversarial_weight l(Z + delta),    delta = epsilon sqrt(N) g / |g|,

    where N vectors have a gradient. So vectors move by epsilon in the root mean square, and those that matter most to
    the loss move most. With ``loss = "bpr"`` each of them moves by epsilon, as in He et al.: the rows of g are scaled
    to one length first. With softmax this would bring all songs near at once that hardly matter to the loss.

    The encoded vectors are moved, not the weights behind them. So any model can be trained like this, and a step costs
    one more loss but not one more encoding. The loss of a local channel does not change: vectors are constants in it.

    Source: He et al., "Adversarial Personalized Ranking for Recommendation", SIGIR 2018, where the model is a matrix
    factorisation, whose vectors are its weights.

    Args:
        config: also ``epsilon`` and ``adversarial_weight`` are read.

    Attributes:
        weight: of the second term, for the next steps; with 0 nothing is perturbed.
    """

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__(config)
        self.epsilon, self.weight = config.epsilon, config.adversarial_weight

    def ranking_loss(
        self, model: RecommenderModel, graph: HeteroData, embeddings: Embeddings | SomeEmbeddings, step: Step
    ) -> Tensor:
        """See ``PairObjective.ranking_loss``."""
        loss = super().ranking_loss(model, graph, embeddings, step)
        if not self.weight:
            return loss
        uphill = gradient(loss, embeddings, retain_graph=True)
        if self.config.loss == "bpr":
            uphill = with_unit_rows(uphill)
        perturbed = moved(embeddings, uphill, self.epsilon, on_sphere=model.config.similarity == "cosine")
        return loss + self.weight * super().ranking_loss(model, graph, perturbed, step)


def gradient(loss: Tensor, embeddings: Embeddings | SomeEmbeddings, retain_graph: bool = False) -> Embeddings:
    """Return the gradient of a loss with respect to its vectors, in their shapes."""
    return Embeddings(*torch.autograd.grad(loss, _vectors(embeddings), retain_graph=retain_graph))


def with_unit_rows(direction: Embeddings) -> Embeddings:
    """Return the direction with each row scaled to length 1; a row of zeros stays."""
    # by the greatest entry first: the squares of a tiny gradient would be 0 in float32
    largest = (rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny) for rows in direction)
    return Embeddings(*(F.normalize(rows / most, dim=1) for rows, most in zip(direction, largest, strict=True)))


def moved(
    embeddings: Embeddings | SomeEmbeddings, direction: Embeddings, length: float, on_sphere: bool
) -> Embeddings | SomeEmbeddings:
    """Move the vectors along a direction, by ``length`` in the root mean square over the vectors that it moves.

    Args:
        direction: in the shapes of the vectors' user and song; only where it points counts.
        on_sphere: scale the results to length 1, for vectors that had it.
    """
    scale = length / root_mean_square(direction).clamp(min=torch.finfo(torch.float32).tiny)
    pairs = zip(_vectors(embeddings), direction, strict=True)
    rows = (vectors + scale * along for vectors, along in pairs)
    result = Embeddings(*(F.normalize(row, dim=1) if on_sphere else row for row in rows))
    return result if isinstance(embeddings, Embeddings) else embeddings._replace(vectors=result)


def root_mean_square(rows: Embeddings) -> Tensor:
    """Return the root mean square length of the rows that are not zero: users outside of a batch do not count."""
    squares = torch.cat(tuple(rows)).square().sum(1)
    return (squares.sum() / squares.count_nonzero().clamp(min=1)).sqrt()


def _vectors(embeddings: Embeddings | SomeEmbeddings) -> Embeddings:
    return embeddings if isinstance(embeddings, Embeddings) else embeddings.vectors

"""From a batch of pairs to a loss: encodes the graph, samples negatives, adds the L2 term."""

from __future__ import annotations

from torch import Generator, Tensor
from torch_geometric.data import HeteroData

from models.base import Embeddings, RecommenderModel
from models.per_graph import PerGraph
from trainers.config import TrainingConfig
from trainers.losses import Candidates, bpr, sampled_softmax
from trainers.sampling import KnownPairs, columns_of, sample_songs, train_pairs


class PairObjective:
    """The loss that ``training_config`` names, for any model.

    Args:
        config: ``loss``, ``temperature``, ``num_negatives`` and ``l2`` are read.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self._known: PerGraph[KnownPairs] = PerGraph()

    def loss(
        self, model: RecommenderModel, graph: HeteroData, users: Tensor, songs: Tensor, generator: Generator
    ) -> Tensor:
        """Loss of a batch of train pairs, users (B,) and songs (B,): a scalar."""
        embeddings = model.encode(graph)
        ranking = self._softmax if self.config.loss == "softmax" else self._bpr
        loss = ranking(embeddings, graph, users, songs, generator)
        if self.config.l2:
            loss = loss + self.config.l2 / (2 * len(users)) * model.penalty(users, songs)
        return loss

    def _softmax(
        self, embeddings: Embeddings, graph: HeteroData, users: Tensor, songs: Tensor, generator: Generator
    ) -> Tensor:
        num_songs = len(embeddings.song)
        chosen = sample_songs(num_songs, self.config.num_negatives, generator).to(users.device)
        # index_select, here and below: its gradient is several times faster than that of indexing
        competing = embeddings.song.index_select(0, chosen)
        candidates = Candidates(competing, columns_of(songs, chosen, num_songs), num_songs)
        own = embeddings.user.index_select(0, users), embeddings.song.index_select(0, songs)
        return sampled_softmax(*own, candidates, self.config.temperature)

    def _bpr(
        self, embeddings: Embeddings, graph: HeteroData, users: Tensor, songs: Tensor, generator: Generator
    ) -> Tensor:
        negatives = self._known_pairs(graph, len(embeddings.song)).negatives(users, generator)
        own, other = embeddings.user.index_select(0, users), embeddings.song.index_select(0, negatives)
        return bpr(own, embeddings.song.index_select(0, songs), other, self.config.temperature)

    def _known_pairs(self, graph: HeteroData, num_songs: int) -> KnownPairs:
        known = self._known.get(graph)
        return known or self._known.set(graph, KnownPairs(train_pairs(graph), num_songs))

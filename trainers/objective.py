"""From a batch of pairs to a loss: encodes the graph, samples negatives, adds the L2 term."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Generator, Tensor
from torch_geometric.data import HeteroData

from models.base import Embeddings, RecommenderModel
from models.paths import Neighbors
from models.per_graph import PerGraph
from trainers.channels import Calibration, channel_loss
from trainers.config import TrainingConfig
from trainers.losses import Candidates, Positives, bpr, sampled_softmax
from trainers.sampling import KnownPairs, known_columns, sample_songs, train_pairs

MOST_LEFT_OUT = 0.25
"""Share of the train edges that may lack in the messages of one step; a greater batch takes several."""


class Positive:
    """The pairs that vectors learn from: what their negatives avoid.

    Args:
        pairs: (2, P).
        num_users, num_songs: of the graph.
    """

    def __init__(self, pairs: Tensor, num_users: int, num_songs: int) -> None:
        self.pairs, self.num_users, self.num_songs = pairs, num_users, num_songs

    @cached_property
    def listens(self) -> Neighbors:
        """Each user's songs among them."""
        return Neighbors.of(*self.pairs.cpu().numpy(), self.num_users)

    @cached_property
    def known(self) -> KnownPairs:
        """For losses that draw negatives pair by pair."""
        return KnownPairs(self.pairs, self.num_songs)


class PairObjective:
    """The loss that ``training_config`` names, for any model.

    The edges of a batch's own pairs carry no messages while its loss is computed: at evaluation a pair's edge is not
    there either. A model with a local channel learns what its channels are worth beside that, on pairs that its
    vectors do not learn from; see ``trainers.channels``.

    Args:
        config: ``loss``, ``temperature``, ``num_negatives``, ``l2`` and ``calibration_ratio`` are read.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.calibration = Calibration(config.calibration_ratio, config.seed)
        self._positives: PerGraph[Positive] = PerGraph()

    def loss(
        self, model: RecommenderModel, graph: HeteroData, users: Tensor, songs: Tensor, generator: Generator
    ) -> Tensor:
        """Loss of a batch of train pairs, users (B,) and songs (B,): a scalar."""
        pairs = torch.stack([users, songs])
        most = max(1, int(MOST_LEFT_OUT * train_pairs(graph).shape[1]))
        parts = [self._loss(model, graph, part, generator) * part.shape[1] for part in pairs.split(most, dim=1)]
        return torch.stack(parts).sum() / len(users)

    def _loss(self, model: RecommenderModel, graph: HeteroData, pairs: Tensor, generator: Generator) -> Tensor:
        if model.local is None:
            return self._vector_loss(model, graph, model.encode_without(graph, pairs), pairs, generator)
        kept = self.calibration.pairs(graph)
        pairs = pairs[:, ~self.calibration.contains(graph, pairs)]
        embeddings = model.encode_without(graph, torch.cat([pairs, kept], 1))
        loss = channel_loss(model.local, graph, embeddings, kept, self.config.num_negatives, generator)
        if pairs.shape[1]:
            loss = loss + self._vector_loss(model, graph, embeddings, pairs, generator)
        return loss

    def _vector_loss(
        self, model: RecommenderModel, graph: HeteroData, embeddings: Embeddings, pairs: Tensor, generator: Generator
    ) -> Tensor:
        ranking = self._softmax if self.config.loss == "softmax" else self._bpr
        loss = ranking(embeddings, self._learned_from(model, graph), pairs, generator)
        if self.config.l2:
            loss = loss + self.config.l2 / (2 * pairs.shape[1]) * model.penalty(*pairs)
        return loss

    def _softmax(self, embeddings: Embeddings, positive: Positive, pairs: Tensor, generator: Generator) -> Tensor:
        num_songs, device = len(embeddings.song), pairs.device
        chosen = sample_songs(num_songs, self.config.num_negatives, generator)
        users, rows = pairs[0].unique(return_inverse=True)
        rows, by_user = rows.sort(stable=True)
        known = known_columns(positive.listens, users, chosen, num_songs).to(device)
        # index_select, here and below: its gradient is several times faster than that of indexing
        competing = Candidates(embeddings.song.index_select(0, chosen.to(device)), known, num_songs)
        positives = Positives(rows, embeddings.song.index_select(0, pairs[1][by_user]))
        return sampled_softmax(embeddings.user.index_select(0, users), positives, competing, self.config.temperature)

    def _bpr(self, embeddings: Embeddings, positive: Positive, pairs: Tensor, generator: Generator) -> Tensor:
        negatives = positive.known.negatives(pairs[0], generator)
        own, other = embeddings.user.index_select(0, pairs[0]), embeddings.song.index_select(0, negatives)
        return bpr(own, embeddings.song.index_select(0, pairs[1]), other, self.config.temperature)

    def _learned_from(self, model: RecommenderModel, graph: HeteroData) -> Positive:
        return self._positives.get(graph) or self._positives.set(graph, self._positive(model, graph))

    def _positive(self, model: RecommenderModel, graph: HeteroData) -> Positive:
        """All train pairs, or those that are not kept for calibration.

        To the vectors a calibration song is like any that its user never heard. It competes with the positives as the
        songs of validation do; were it spared, it would stand out by never having been pushed away.
        """
        pairs = train_pairs(graph)
        if model.local is not None:
            pairs = pairs[:, ~self.calibration.contains(graph, pairs)]
        return Positive(pairs, int(graph["user"].num_nodes), int(graph["song"].num_nodes))

"""From a batch of pairs to a loss: draws negatives, encodes the graph, adds the L2 term."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from models.base import Embeddings, RecommenderModel, SomeEmbeddings
from models.graph.graph_cache import GraphCache
from models.graph.neighborhood import NeighborSampler
from trainers.calibration import Calibration, CalibrationBatch, channel_loss
from trainers.config import TrainingConfig
from trainers.losses import Candidates, bpr, sampled_softmax
from trainers.sampling import KnownPairs, known_columns, sample_songs, train_pairs

MOST_LEFT_OUT = 0.25
"""Share of the train edges that may be left out of the messages of one step."""


class Step(NamedTuple):
    """The input of one step's loss.

    Shapes: pairs (2, P), which the vectors learn; negatives, the songs that the pairs compete with: (C,) for the
    softmax loss, (P,) for bpr; calibration, the pairs that the channels learn from, None for a model without channels.
    """

    pairs: Tensor
    negatives: Tensor
    calibration: CalibrationBatch | None

    @property
    def users(self) -> Tensor:
        """Users whose vectors the step reads, in any order and possibly twice."""
        others = () if self.calibration is None else (self.calibration.users,)
        return _joined(self.pairs[0], *others)

    @property
    def songs(self) -> Tensor:
        """Songs whose vectors the step reads, in any order and possibly twice."""
        others = () if self.calibration is None else (self.calibration.songs, self.calibration.negatives)
        return _joined(self.pairs[1], self.negatives, *others)


class PairObjective:
    """The loss that ``training_config`` names, for any model.

    The edges of a batch's own pairs carry no messages while its loss is computed: at evaluation a pair's edge is not
    there either. A model with a local channel also learns how much to trust each of its channels, from pairs that its
    vectors do not learn from; see ``trainers.calibration``.

    Args:
        config: ``loss``, ``temperature``, ``num_negatives``, ``l2``, ``calibration_ratio`` and ``num_neighbors`` are
            read.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.calibration = Calibration(config.calibration_ratio, config.seed)
        self._learned: GraphCache[KnownPairs] = GraphCache()
        self._most: GraphCache[int] = GraphCache()

    def loss(
        self, model: RecommenderModel, graph: HeteroData, users: Tensor, songs: Tensor, generator: Generator
    ) -> Tensor:
        """Return the loss of a batch of train pairs, users (B,) and songs (B,): a scalar.

        A batch of more than ``MOST_LEFT_OUT`` of the train edges is taken in several steps, and their losses averaged.
        """
        pairs = torch.stack([users, songs])
        most = self._most.get(graph) or self._most.set(graph, max(1, int(MOST_LEFT_OUT * train_pairs(graph).shape[1])))
        parts = [self.step_loss(model, graph, part, generator) * part.shape[1] for part in pairs.split(most, dim=1)]
        return torch.stack(parts).sum() / len(users)

    def step_loss(self, model: RecommenderModel, graph: HeteroData, pairs: Tensor, generator: Generator) -> Tensor:
        """Return the loss of train pairs (2, P) in one step, a scalar; 0 if nothing may learn from any of them."""
        if self.keeps_pairs_back(model):
            pairs = pairs[:, ~self.calibration.contains(graph, pairs)]
        if model.local is None and not pairs.shape[1]:
            return 0 * torch.stack([parameter.sum() for parameter in model.parameters()]).sum()
        step = self._draw(model, graph, pairs, generator)
        embeddings = self._encode(model, graph, step, generator)
        if model.local is None or step.calibration is None:
            return self.vector_loss(model, graph, embeddings, step)
        loss = channel_loss(model.local, graph, embeddings, step.calibration)
        return loss + self.vector_loss(model, graph, embeddings, step) if pairs.shape[1] else loss

    def keeps_pairs_back(self, model: RecommenderModel) -> bool:
        """Return whether the vectors do not learn the calibration pairs, because something else learns from them."""
        return model.local is not None

    def learned(self, model: RecommenderModel, graph: HeteroData) -> KnownPairs:
        """Return the pairs that the vectors learn from: all train pairs, or all but the calibration pairs.

        For the vectors a calibration song is like any song that its user never heard. It competes with the positives
        as the songs of validation do. If it did not compete, it would stand out by never having been pushed away.
        """
        known = self._learned.get(graph)
        if known is None:
            pairs = train_pairs(graph)
            if self.keeps_pairs_back(model):
                pairs = pairs[:, ~self.calibration.contains(graph, pairs)]
            known = KnownPairs(pairs, int(graph["song"].num_nodes), int(graph["user"].num_nodes))
            self._learned.set(graph, known)
        return known

    def _draw(self, model: RecommenderModel, graph: HeteroData, pairs: Tensor, generator: Generator) -> Step:
        """Draw the negatives of the pairs, and the calibration pairs of the step."""
        num_songs, count = int(graph["song"].num_nodes), self.config.num_negatives
        calibration, negatives = None, pairs[1, :0]
        if model.local is not None:
            kept = self.calibration.pairs(graph)
            calibration = CalibrationBatch.draw(kept, num_songs, pairs.shape[1], count, generator)
        if pairs.shape[1] and self.config.loss == "bpr":
            negatives = self.learned(model, graph).negatives(pairs[0], generator)
        elif pairs.shape[1]:
            negatives = sample_songs(num_songs, count, generator)
        return Step(pairs, negatives, calibration)

    def _encode(
        self, model: RecommenderModel, graph: HeteroData, step: Step, generator: Generator
    ) -> Embeddings | SomeEmbeddings:
        """Return the vectors while the edges of the pairs and of all calibration pairs carry no message."""
        silent = [KnownPairs(step.pairs, int(graph["song"].num_nodes))]
        if self.keeps_pairs_back(model):
            silent.append(self.calibration.known(graph))
        if self.config.num_neighbors is None:
            return model.encode_without(graph, torch.cat([known.pairs for known in silent], 1))

        def without(users: Tensor, songs: Tensor) -> Tensor:
            return torch.stack([known.contains(users, songs) for known in silent if known.pairs.shape[1]]).any(0)

        sampler = NeighborSampler(self.config.num_neighbors, generator, without)
        return model.encode_some(graph, step.users, step.songs, sampler)

    def vector_loss(
        self, model: RecommenderModel, graph: HeteroData, embeddings: Embeddings | SomeEmbeddings, step: Step
    ) -> Tensor:
        """Return the loss that the vectors learn from: that of the ranking, and the L2 term; a scalar."""
        loss = self.ranking_loss(model, graph, embeddings, step)
        if self.config.l2:
            loss = loss + self.config.l2 / (2 * step.pairs.shape[1]) * model.penalty(*step.pairs)
        return loss

    def ranking_loss(
        self, model: RecommenderModel, graph: HeteroData, embeddings: Embeddings | SomeEmbeddings, step: Step
    ) -> Tensor:
        """Return the loss of the pairs under the similarity of the vectors, a scalar; a subclass may replace it."""
        temperature = self.config.temperature
        if self.config.loss == "bpr":
            own, other = embeddings.of_users(step.pairs[0]), embeddings.of_songs(step.negatives)
            return bpr(own, embeddings.of_songs(step.pairs[1]), other, temperature)
        learned = self.learned(model, graph)
        users, rows = step.pairs[0].unique(return_inverse=True)
        rows, by_user = rows.sort(stable=True)
        known = known_columns(learned.listens, users, step.negatives, learned.num_songs).to(users.device)
        candidates = Candidates(embeddings.of_songs(step.negatives), known, learned.num_songs)
        songs = embeddings.of_songs(step.pairs[1][by_user])
        return sampled_softmax(embeddings.of_users(users), songs, rows, candidates, temperature)


def check_num_neighbors(num_neighbors: Sequence[int] | None, model: RecommenderModel) -> None:
    """Raise InputError unless the model has as many layers as there are numbers, and samples neighbours at all."""
    if num_neighbors is None:
        return
    if model.num_hops == 0:
        raise InputError(
            f"training_config.num_neighbors is {list(num_neighbors)}, but {type(model).__name__} takes no sampled "
            f"neighbourhoods; remove num_neighbors or choose an architecture that does, for example gat or lightgcn."
        )
    if len(num_neighbors) != model.num_hops:
        raise InputError(
            f"training_config.num_neighbors is {list(num_neighbors)}, but the model has {model.num_hops} layers; give "
            f"one number a layer, the layer nearest to the result first, or change num_layers."
        )


def _joined(first: Tensor, *others: Tensor) -> Tensor:
    return torch.cat([first, *(other.to(first.device) for other in others)])

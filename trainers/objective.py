"""From a batch of pairs to a loss: encodes the graph, samples negatives, adds the L2 term."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from models.base import Embeddings, RecommenderModel, SomeEmbeddings
from models.graph.graph_cache import GraphCache
from models.graph.neighborhood import NeighborSampler
from models.item_paths.paths import Neighbors
from trainers.calibration import Calibration, Draw, channel_loss
from trainers.config import TrainingConfig
from trainers.losses import Candidates, Positives, bpr, sampled_softmax
from trainers.sampling import KnownPairs, known_columns, sample_songs, train_pairs

MOST_LEFT_OUT = 0.25
"""Share of the train edges that may lack in the messages of one step; a greater batch takes several."""


class TrainPairs:
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
        users, songs = self.pairs.cpu().numpy()
        return Neighbors.of(users, songs, self.num_users)

    @cached_property
    def known(self) -> KnownPairs:
        """For losses that draw negatives pair by pair."""
        return KnownPairs(self.pairs, self.num_songs)


class Step(NamedTuple):
    """All that a step's loss is of.

    Shapes: pairs (2, P), of which the vectors learn; negatives, the songs that they compete with: (C,), or (P,) one a
    pair; draw, of which the channels learn, None for a model without them.
    """

    pairs: Tensor
    negatives: Tensor
    draw: Draw | None

    @property
    def users(self) -> Tensor:
        """Users whose vectors are read, in any order and perhaps twice."""
        drawn = () if self.draw is None else (self.draw.users,)
        return _joined(self.pairs[0], *drawn)

    @property
    def songs(self) -> Tensor:
        """Songs whose vectors are read, in any order and perhaps twice."""
        drawn = () if self.draw is None else (self.draw.songs, self.draw.negatives)
        return _joined(self.pairs[1], self.negatives, *drawn)


class PairObjective:
    """The loss that ``training_config`` names, for any model.

    The edges of a batch's own pairs carry no messages while its loss is computed: at evaluation a pair's edge is not
    there either. A model with a local channel learns what its channels are worth beside that, on pairs that its
    vectors do not learn from; see ``trainers.calibration``.

    Args:
        config: ``loss``, ``temperature``, ``num_negatives``, ``l2``, ``calibration_ratio`` and ``fan_out`` are
            read.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.calibration = Calibration(config.calibration_ratio, config.seed)
        self._learned: GraphCache[TrainPairs] = GraphCache()
        self._most: GraphCache[int] = GraphCache()

    def loss(
        self, model: RecommenderModel, graph: HeteroData, users: Tensor, songs: Tensor, generator: Generator
    ) -> Tensor:
        """Loss of a batch of train pairs, users (B,) and songs (B,): a scalar."""
        pairs = torch.stack([users, songs])
        most = self._most.get(graph) or self._most.set(graph, max(1, int(MOST_LEFT_OUT * train_pairs(graph).shape[1])))
        parts = [self._loss(model, graph, part, generator) * part.shape[1] for part in pairs.split(most, dim=1)]
        return torch.stack(parts).sum() / len(users)

    def keeps(self, model: RecommenderModel) -> bool:
        """Whether the vectors learn nothing of the calibration pairs: where something else has to learn from them."""
        return model.local is not None

    def _loss(self, model: RecommenderModel, graph: HeteroData, pairs: Tensor, generator: Generator) -> Tensor:
        if self.keeps(model):
            pairs = pairs[:, ~self.calibration.contains(graph, pairs)]
        step = self._step(model, graph, pairs, generator)
        embeddings = self._encode(model, graph, step, generator)
        if model.local is None or step.draw is None:
            return self._vector_loss(model, graph, embeddings, step)
        loss = channel_loss(model.local, graph, embeddings, step.draw)
        return loss + self._vector_loss(model, graph, embeddings, step) if pairs.shape[1] else loss

    def _step(self, model: RecommenderModel, graph: HeteroData, pairs: Tensor, generator: Generator) -> Step:
        num_songs, draw, negatives = int(graph["song"].num_nodes), None, pairs[1, :0]
        if model.local is not None:
            kept, count = self.calibration.pairs(graph), self.config.num_negatives
            draw = Draw.of(kept, num_songs, pairs.shape[1], count, generator)
        if pairs.shape[1]:
            negatives = self._negatives(self._learned_from(model, graph), pairs, generator)
        return Step(pairs, negatives, draw)

    def _negatives(self, learned: TrainPairs, pairs: Tensor, generator: Generator) -> Tensor:
        if self.config.loss == "bpr":
            return learned.known.negatives(pairs[0], generator)
        return sample_songs(learned.num_songs, self.config.num_negatives, generator)

    def _encode(
        self, model: RecommenderModel, graph: HeteroData, step: Step, generator: Generator
    ) -> Embeddings | SomeEmbeddings:
        """Vectors while the edges of the pairs and of all calibration pairs carry no message."""
        if self.config.fan_out is None:
            kept = self.calibration.pairs(graph) if self.keeps(model) else step.pairs[:, :0]
            return model.encode_without(graph, torch.cat([step.pairs, kept], 1))
        silent = [KnownPairs(step.pairs, int(graph["song"].num_nodes))]
        if self.keeps(model):
            silent.append(self.calibration.known(graph))
        sampler = NeighborSampler(self.config.fan_out, generator, lambda *ends: _any_contains(silent, *ends))
        return model.encode_some(graph, step.users, step.songs, sampler)

    def _vector_loss(
        self, model: RecommenderModel, graph: HeteroData, embeddings: Embeddings | SomeEmbeddings, step: Step
    ) -> Tensor:
        loss = self.ranking_loss(model, graph, embeddings, step)
        if self.config.l2:
            loss = loss + self.config.l2 / (2 * step.pairs.shape[1]) * model.penalty(*step.pairs)
        return loss

    def ranking_loss(
        self, model: RecommenderModel, graph: HeteroData, embeddings: Embeddings | SomeEmbeddings, step: Step
    ) -> Tensor:
        """Loss of the step's pairs under the similarity of the vectors, a scalar: what a subclass may add to."""
        if self.config.loss == "softmax":
            return self._softmax(embeddings, self._learned_from(model, graph), step)
        return self._bpr(embeddings, step)

    def _softmax(self, embeddings: Embeddings | SomeEmbeddings, learned: TrainPairs, step: Step) -> Tensor:
        users, rows = step.pairs[0].unique(return_inverse=True)
        rows, by_user = rows.sort(stable=True)
        known = known_columns(learned.listens, users, step.negatives, learned.num_songs).to(users.device)
        competing = Candidates(embeddings.of_songs(step.negatives), known, learned.num_songs)
        positives = Positives(rows, embeddings.of_songs(step.pairs[1][by_user]))
        return sampled_softmax(embeddings.of_users(users), positives, competing, self.config.temperature)

    def _bpr(self, embeddings: Embeddings | SomeEmbeddings, step: Step) -> Tensor:
        own, other = embeddings.of_users(step.pairs[0]), embeddings.of_songs(step.negatives)
        return bpr(own, embeddings.of_songs(step.pairs[1]), other, self.config.temperature)

    def _learned_from(self, model: RecommenderModel, graph: HeteroData) -> TrainPairs:
        return self._learned.get(graph) or self._learned.set(graph, self._pairs(model, graph))

    def _pairs(self, model: RecommenderModel, graph: HeteroData) -> TrainPairs:
        """All train pairs, or those that are not kept for calibration.

        To the vectors a calibration song is like any that its user never heard. It competes with the positives as the
        songs of validation do; were it spared, it would stand out by never having been pushed away.
        """
        pairs = train_pairs(graph)
        if self.keeps(model):
            pairs = pairs[:, ~self.calibration.contains(graph, pairs)]
        return TrainPairs(pairs, int(graph["user"].num_nodes), int(graph["song"].num_nodes))


def check_fan_out(fan_out: Sequence[int] | None, model: RecommenderModel) -> None:
    """Raise InputError unless the model can take so many fan-outs."""
    if fan_out is None:
        return
    if model.num_hops == 0:
        raise InputError(
            f"training_config.fan_out is {list(fan_out)}, but {type(model).__name__} takes no sampled neighbourhoods; "
            f"remove fan_out or choose an architecture that does, for example gat or lightgcn."
        )
    if len(fan_out) != model.num_hops:
        raise InputError(
            f"training_config.fan_out is {list(fan_out)}, but the model has {model.num_hops} layers; give one number a "
            f"layer, the layer nearest to the result first, or change num_layers."
        )


def _any_contains(known: Sequence[KnownPairs], users: Tensor, songs: Tensor) -> Tensor:
    return torch.stack([pairs.contains(users, songs) for pairs in known if len(pairs.keys)]).any(0)


def _joined(first: Tensor, *others: Tensor) -> Tensor:
    return torch.cat([first, *(other.to(first.device) for other in others)])

"""Score calibration: a model with a local channel learns how much to trust each of its channels."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch_geometric.data import HeteroData

from models.base import Embeddings, SomeEmbeddings
from models.graph.graph_cache import GraphCache
from models.item_paths.listened_songs import listened_songs
from models.item_paths.local_channel import LocalChannel
from trainers.sampling import KnownPairs, known_columns, sample_songs, train_pairs

LEAST_PAIRS, MOST_PAIRS, SHARE = 256, 4096, 8
"""Calibration pairs in a step: an eighth of the batch, within bounds, so that channels cost no more than vectors."""

MOST_SONGS = 1024
"""Songs that the calibration pairs compete with, at most."""


class Calibration:
    """Chooses the train pairs that the vectors do not learn from.

    Vectors remember the pairs that they were trained on: their scores of these are far better than of new pairs. A
    model that learned from these pairs how much to trust its vectors would trust nothing else. So the channels' weights
    are learned from a few pairs that are no positives of the vectors' loss and carry no messages.

    Args:
        ratio: their share of the train pairs.
        seed: the same seed chooses the same pairs of a graph.
    """

    def __init__(self, ratio: float, seed: int) -> None:
        self.ratio, self.seed = ratio, seed
        self._chosen: GraphCache[KnownPairs] = GraphCache()

    def pairs(self, graph: HeteroData) -> Tensor:
        """Return the calibration pairs (2, K) of a graph, at least one."""
        return self.known(graph).pairs

    def contains(self, graph: HeteroData, pairs: Tensor) -> Tensor:
        """Return which of pairs (2, B) are calibration pairs: (B,) bool."""
        return self.known(graph).contains(*pairs)

    def known(self, graph: HeteroData) -> KnownPairs:
        """Return the calibration pairs of a graph, chosen once."""
        chosen = self._chosen.get(graph)
        if chosen is None:
            pairs = train_pairs(graph)
            count = max(1, round(self.ratio * pairs.shape[1]))
            order = torch.randperm(pairs.shape[1], generator=torch.Generator().manual_seed(self.seed))
            kept = pairs[:, order[:count].to(pairs.device)]
            chosen = self._chosen.set(graph, KnownPairs(kept, int(graph["song"].num_nodes)))
        return chosen


class CalibrationBatch(NamedTuple):
    """The calibration pairs of one step, and the songs that they compete with.

    Shapes: users (B,), ascending; row (K,), the place of each pair's user among them; songs (K,), the pairs' songs;
    negatives (C,).
    """

    users: Tensor
    row: Tensor
    songs: Tensor
    negatives: Tensor

    @classmethod
    def draw(
        cls, pairs: Tensor, num_songs: int, batch_size: int, num_negatives: int, generator: Generator
    ) -> CalibrationBatch:
        """Draw some of the calibration pairs (2, K), and some of all songs.

        Args:
            batch_size: pairs that the vectors learn from in the step.
            num_negatives: songs that those compete with; 0 means all.
        """
        count = min(max(batch_size // SHARE, LEAST_PAIRS), MOST_PAIRS)
        pairs = pairs[:, torch.randperm(pairs.shape[1], generator=generator)[:count].to(pairs.device)].cpu()
        users, row = pairs[0].unique(return_inverse=True)
        negatives = sample_songs(num_songs, min(num_negatives or MOST_SONGS, MOST_SONGS), generator)
        return cls(users, row, pairs[1], negatives)


def channel_loss(
    local: LocalChannel, graph: HeteroData, embeddings: Embeddings | SomeEmbeddings, batch: CalibrationBatch
) -> Tensor:
    """Return the cross-entropy of calibration pairs against sampled songs under the whole score: a scalar.

    The formula is that of ``sampled_softmax``. The vectors are constants here, and only those of the batch are read:
    only the channel's parameters get a gradient.
    """
    known = listened_songs(graph)
    num_songs = len(known.log_listeners)
    user, song = embeddings.of_users(batch.users).detach(), embeddings.of_songs(batch.songs).detach()
    similarity = (user[batch.row.to(user.device)] * song).sum(1).cpu()  # (K,)
    others = (user @ embeddings.of_songs(batch.negatives).detach().T).cpu()  # (B, C)
    own = local.pair_scores(known, batch.users[batch.row], batch.songs, similarity)
    scores = local.scores(known, batch.users, batch.negatives, others)
    scores[known_columns(known.listens, batch.users, batch.negatives, num_songs).unbind()] = -math.inf
    rest = scores.logsumexp(1) + math.log(num_songs / len(batch.negatives))
    return (torch.logaddexp(rest[batch.row], own) - own).mean().to(embeddings.device)

"""How a model with a local channel learns what each of its channels is worth."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch_geometric.data import HeteroData

from models.base import Embeddings, SomeEmbeddings
from models.graph.graph_cache import GraphCache
from models.item_paths.listened_songs import ListenedSongs, listened_songs
from models.item_paths.local_channel import LocalChannel
from trainers.sampling import KnownPairs, known_columns, sample_songs, train_pairs

LEAST_PAIRS, MOST_PAIRS, SHARE = 256, 4096, 8
"""Calibration pairs a step: an eighth of the batch, within bounds, so that channels cost no more than vectors."""

MOST_SONGS = 1024
"""Songs that they compete with."""


class Calibration:
    """The train pairs that the vectors do not learn from.

    Vectors remember the pairs that they were trained on, so on those their scores look far better than on new ones,
    and a model that learned there how much to trust them would trust nothing else. The channels' weights are learned
    on a few pairs that are no positives of the vectors' loss and carry no messages.

    Args:
        ratio: their share of the train pairs.
        seed: the same seed chooses the same pairs of a graph.
    """

    def __init__(self, ratio: float, seed: int) -> None:
        self.ratio, self.seed = ratio, seed
        self._chosen: GraphCache[tuple[Tensor, KnownPairs]] = GraphCache()

    def pairs(self, graph: HeteroData) -> Tensor:
        """The calibration pairs (2, K) of a graph, at least one."""
        return self._of(graph)[0]

    def contains(self, graph: HeteroData, pairs: Tensor) -> Tensor:
        """(B,) which pairs (2, B) are calibration pairs."""
        return self.known(graph).contains(*pairs)

    def known(self, graph: HeteroData) -> KnownPairs:
        """The calibration pairs, sorted once."""
        return self._of(graph)[1]

    def _of(self, graph: HeteroData) -> tuple[Tensor, KnownPairs]:
        return self._chosen.get(graph) or self._chosen.set(graph, self._choose(graph))

    def _choose(self, graph: HeteroData) -> tuple[Tensor, KnownPairs]:
        known = train_pairs(graph)
        count = max(1, round(self.ratio * known.shape[1]))
        order = torch.randperm(known.shape[1], generator=torch.Generator().manual_seed(self.seed))
        pairs = known[:, order[:count].to(known.device)]
        return pairs, KnownPairs(pairs, int(graph["song"].num_nodes))


class Draw(NamedTuple):
    """Pairs of which the channels learn in a step, and the songs that they compete with.

    Shapes: users (B,), ascending; row (K,), each pair's place among them; songs (K,), the pairs' songs; negatives (C,).
    """

    users: Tensor
    row: Tensor
    songs: Tensor
    negatives: Tensor

    @classmethod
    def of(cls, pairs: Tensor, num_songs: int, batch: int, negatives: int, generator: Generator) -> Draw:
        """Draw from the calibration pairs (2, K) and from all songs.

        Args:
            batch: pairs that the vectors learn from in the step.
            negatives: songs that those compete with; 0 means all.
        """
        count = min(max(batch // SHARE, LEAST_PAIRS), MOST_PAIRS)
        pairs = pairs[:, torch.randperm(pairs.shape[1], generator=generator)[:count].to(pairs.device)].cpu()
        users, row = pairs[0].unique(return_inverse=True)
        chosen = sample_songs(num_songs, min(negatives or MOST_SONGS, MOST_SONGS), generator)
        return cls(users, row, pairs[1], chosen)


def channel_loss(local: LocalChannel, graph: HeteroData, embeddings: Embeddings | SomeEmbeddings, draw: Draw) -> Tensor:
    """Cross-entropy of calibration pairs against sampled songs under the whole score; see ``sampled_softmax``.

    The vectors are taken as they are, and only those of the drawn users and songs are read: only the channel's
    parameters get a gradient.
    """
    known = listened_songs(graph)
    num_songs = len(known.log_listeners)
    own, others = _scores(local, known, embeddings, draw)
    others[known_columns(known.listens, draw.users, draw.negatives, num_songs).unbind()] = -math.inf
    rest = others.logsumexp(1) + math.log(num_songs / len(draw.negatives))
    return (torch.logaddexp(rest[draw.row], own) - own).mean().to(embeddings.device)


def _scores(
    local: LocalChannel, known: ListenedSongs, embeddings: Embeddings | SomeEmbeddings, draw: Draw
) -> tuple[Tensor, Tensor]:
    """Scores of the pairs (K,) and of each user's candidates (B, C)."""
    user, song = embeddings.of_users(draw.users).detach(), embeddings.of_songs(draw.songs).detach()
    own = (user[draw.row.to(user.device)] * song).sum(1).cpu()
    others = (user @ embeddings.of_songs(draw.negatives).detach().T).cpu()
    pairs = local.pair_scores(known, draw.users[draw.row], draw.songs, own)
    return pairs, local.scores(known, draw.users, draw.negatives, others)

"""How a model with a local channel learns what each of its channels is worth."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch_geometric.data import HeteroData

from models.base import Embeddings
from models.history import History, history
from models.local import LocalChannel
from models.per_graph import PerGraph
from trainers.sampling import known_columns, sample_songs, train_pairs

PAIRS, SCORES = 4096, 2**22
"""Pairs a step, and scores of songs that they compete with: as many songs as that leaves for each user."""

MIN_SONGS = 256


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
        self._chosen: PerGraph[tuple[Tensor, Tensor]] = PerGraph()

    def pairs(self, graph: HeteroData) -> Tensor:
        """The calibration pairs (2, K) of a graph, at least one."""
        return self._of(graph)[0]

    def contains(self, graph: HeteroData, pairs: Tensor) -> Tensor:
        """(B,) which pairs (2, B) are calibration pairs."""
        return torch.isin(_keys(graph, pairs), self._of(graph)[1])

    def _of(self, graph: HeteroData) -> tuple[Tensor, Tensor]:
        return self._chosen.get(graph) or self._chosen.set(graph, self._choose(graph))

    def _choose(self, graph: HeteroData) -> tuple[Tensor, Tensor]:
        known = train_pairs(graph)
        count = max(1, round(self.ratio * known.shape[1]))
        order = torch.randperm(known.shape[1], generator=torch.Generator().manual_seed(self.seed))
        pairs = known[:, order[:count].to(known.device)]
        return pairs, _keys(graph, pairs)


def channel_loss(
    local: LocalChannel, graph: HeteroData, embeddings: Embeddings, pairs: Tensor, negatives: int, generator: Generator
) -> Tensor:
    """Cross-entropy of calibration pairs against sampled songs under the whole score; see ``sampled_softmax``.

    The vectors are taken as they are: only the channel's parameters get a gradient.

    Args:
        pairs: (2, K) calibration pairs; at most ``PAIRS`` of them are drawn.
        negatives: most songs to sample; 0 means all.
    """
    known = history(graph)
    pairs = pairs[:, torch.randperm(pairs.shape[1], generator=generator)[:PAIRS].to(pairs.device)].cpu()
    users, row = pairs[0].unique(return_inverse=True)
    most = max(MIN_SONGS, SCORES // len(users))
    num_songs = len(embeddings.song)
    chosen = sample_songs(num_songs, min(negatives, most) if negatives else most, generator)
    own, others = _scores(local, known, embeddings, users, row, pairs[1], chosen)
    others[known_columns(known.listens, users, chosen, num_songs).unbind()] = -math.inf
    rest = others.logsumexp(1) + math.log(num_songs / len(chosen))
    return (torch.logaddexp(rest[row], own) - own).mean().to(embeddings.user.device)


def _scores(
    local: LocalChannel,
    known: History,
    embeddings: Embeddings,
    users: Tensor,
    row: Tensor,
    songs: Tensor,
    chosen: Tensor,
) -> tuple[Tensor, Tensor]:
    """Scores of the pairs (K,) and of each user's candidates (B, C)."""
    user, song = (vectors.detach() for vectors in embeddings)
    user = user[users.to(user.device)]
    own = (user[row.to(user.device)] * song[songs.to(song.device)]).sum(1).cpu()
    others = (user @ song[chosen.to(song.device)].T).cpu()
    return local.pair_scores(known, users[row], songs, own), local.scores(known, users, chosen, others)


def _keys(graph: HeteroData, pairs: Tensor) -> Tensor:
    return pairs[0] * int(graph["song"].num_nodes) + pairs[1]

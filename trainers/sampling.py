"""Batches of train pairs and the songs they compete with, from one restorable random stream."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator, Tensor
from torch_geometric.data import HeteroData

from data.graph import LISTENS, message_graph
from models.paths import Neighbors

MAX_REDRAWS = 20
"""Rounds in which a negative that the user knows is drawn again; a user of nearly all songs keeps one at the end."""


def train_pairs(graph: HeteroData) -> Tensor:
    """User and song of each train edge: (2, E). All edges of a graph without masks."""
    return message_graph(graph)[LISTENS].edge_index


def batches(pairs: Tensor, size: int, generator: Generator) -> Iterator[Tensor]:
    """``pairs`` (2, E) in random order, ``size`` of them at a time, the last batch being the rest."""
    order = torch.randperm(pairs.shape[1], generator=generator).to(pairs.device)
    for chosen in order.split(size):
        yield pairs[:, chosen]


def num_batches(pairs: Tensor, size: int) -> int:
    """How many batches ``batches`` gives."""
    return -(-pairs.shape[1] // size)


def sample_songs(num_songs: int, count: int, generator: Generator) -> Tensor:
    """``count`` different songs, uniformly: (count,). All songs, in order, for 0 or when there are no more."""
    if count == 0 or count >= num_songs:
        return torch.arange(num_songs)
    return torch.randperm(num_songs, generator=generator)[:count]


def known_columns(listens: Neighbors, users: Tensor, candidates: Tensor, num_songs: int) -> Tensor:
    """Where users (B,) know candidates (C,): (2, M), row of the user and column of the song, by row."""
    rows = listens.rows(users.cpu().numpy())
    column = np.full(num_songs, -1)
    column[candidates.numpy()] = np.arange(len(candidates))
    columns = column[rows.node]
    return torch.from_numpy(np.stack([rows.owner, columns])[:, columns >= 0])


class KnownPairs:
    """Says which user-song pairs are train edges, to keep them out of the negatives.

    Args:
        pairs: (2, E) train edges; nothing else is ever asked, so a held-out song is as likely a negative as any.
        num_songs: songs in the graph.
    """

    def __init__(self, pairs: Tensor, num_songs: int) -> None:
        self.num_songs = num_songs
        self.keys = (pairs[0] * num_songs + pairs[1]).sort().values

    def contains(self, users: Tensor, songs: Tensor) -> Tensor:
        """True where (user, song) is a train edge: (B,) bool."""
        wanted = users * self.num_songs + songs
        place = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
        return self.keys[place] == wanted

    def negatives(self, users: Tensor, generator: Generator) -> Tensor:
        """One song for each user, uniform over those the user has no train edge to: (B,)."""
        songs = self._draw(len(users), generator).to(users.device)
        for _ in range(MAX_REDRAWS):
            known = self.contains(users, songs).nonzero().squeeze(1)
            if len(known) == 0:
                break
            songs[known] = self._draw(len(known), generator).to(users.device)
        return songs

    def _draw(self, count: int, generator: Generator) -> Tensor:
        return torch.randint(self.num_songs, (count,), generator=generator)

"""Batches of train pairs and the songs they compete with, from one restorable random stream."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Generator, Tensor
from torch_geometric.data import HeteroData

from data.graph import LISTENS, message_graph
from models.item_paths.paths import Neighbors

MANY = 2**62
"""Numbers that a draw is from before it is taken modulo the songs: by so much it fails to be uniform."""


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
        self.keys = (pairs[0] * num_songs + pairs[1]).unique()

    def contains(self, users: Tensor, songs: Tensor) -> Tensor:
        """True where (user, song) is a train edge: (B,) bool."""
        wanted = users * self.num_songs + songs
        place = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
        return self.keys[place] == wanted

    def negatives(self, users: Tensor, generator: Generator) -> Tensor:
        """One song for each user, uniform over those the user has no train edge to: (B,).

        A user of all songs has no such song and gets any.
        """
        last = len(self._start) - 1
        first, end = (self._start[place.clamp(max=last)] for place in (users, users + 1))
        unknown = self.num_songs - (end - first)
        drawn = torch.randint(MANY, users.shape, generator=generator).to(users.device)
        rank = drawn % torch.where(unknown > 0, unknown, self.num_songs)
        known_before = torch.searchsorted(self._unknown, users * self.num_songs + rank, right=True) - first
        return torch.where(unknown > 0, rank + known_before, rank)

    @cached_property
    def _start(self) -> Tensor:
        """Where the keys of each user begin, up to the last who has any, and where they end: (U + 1,)."""
        count = (self.keys // self.num_songs).bincount()
        return torch.cat([count.new_zeros(1), count.cumsum(0)])

    @cached_property
    def _unknown(self) -> Tensor:
        """The keys with each song replaced by how many the user does not know before it: (E,), ascending.

        The unknown song of rank r comes after as many known ones as have at most r unknown before them.
        """
        place = torch.arange(len(self.keys), device=self.keys.device)
        return self.keys - (place - self._start[self.keys // self.num_songs])

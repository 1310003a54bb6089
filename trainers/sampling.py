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

RANDOM_RANGE = 2**62
"""Random integers below it are taken modulo the number of songs: the bias is below num_songs / 2^62."""


def train_pairs(graph: HeteroData) -> Tensor:
    """Return user and song of each train edge, (2, E); all edges of a graph without masks."""
    return message_graph(graph)[LISTENS].edge_index


def batches(pairs: Tensor, size: int, generator: Generator) -> Iterator[Tensor]:
    """Yield ``pairs`` (2, E) in random order, ``size`` at a time; the last batch is the rest."""
    order = torch.randperm(pairs.shape[1], generator=generator).to(pairs.device)
    for chosen in order.split(size):
        yield pairs[:, chosen]


def num_batches(pairs: Tensor, size: int) -> int:
    """Return the number of batches that ``batches`` makes."""
    return -(-pairs.shape[1] // size)


def sample_songs(num_songs: int, count: int, generator: Generator) -> Tensor:
    """Draw ``count`` different songs uniformly, (count,); all songs in order if ``count`` is 0 or not below them."""
    if count == 0 or count >= num_songs:
        return torch.arange(num_songs)
    return torch.randperm(num_songs, generator=generator)[:count]


def known_columns(listens: Neighbors, users: Tensor, candidates: Tensor, num_songs: int) -> Tensor:
    """Return which of candidates (C,) users (B,) know: (2, M), row of the user and column of the song, by row."""
    rows = listens.rows(users.cpu().numpy())
    column = np.full(num_songs, -1)
    column[candidates.numpy()] = np.arange(len(candidates))
    columns = column[rows.node]
    return torch.from_numpy(np.stack([rows.owner, columns])[:, columns >= 0])


class KnownPairs:
    """User-song pairs, sorted when they are first looked up: tells which songs a user knows, and draws others.

    Args:
        pairs: (2, E), for example the train edges. Nothing else is known: a held-out song is as likely a negative as
            any other.
        num_songs: songs in the graph.
        num_users: users in the graph, where ``listens`` is asked about users who have no pair.
    """

    def __init__(self, pairs: Tensor, num_songs: int, num_users: int = 0) -> None:
        self.pairs, self.num_songs, self.num_users = pairs, num_songs, num_users

    @cached_property
    def keys(self) -> Tensor:
        """The pairs as one number each, ascending: (E,)."""
        return (self.pairs[0] * self.num_songs + self.pairs[1]).unique()

    @cached_property
    def listens(self) -> Neighbors:
        """The songs of each user."""
        users, songs = self.pairs.cpu().numpy()
        return Neighbors.of(users, songs, max(self.num_users, int(users.max(initial=-1)) + 1))

    def contains(self, users: Tensor, songs: Tensor) -> Tensor:
        """Return for users (B,) and songs (B,) which of them are known pairs: (B,) bool."""
        wanted = users * self.num_songs + songs
        place = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
        return self.keys[place] == wanted

    def negatives(self, users: Tensor, generator: Generator) -> Tensor:
        """Draw a song for each of users (B,), uniformly from the songs that the user does not know: (B,).

        A user who knows all songs gets any song.
        """
        last = len(self._start) - 1
        first, end = (self._start[place.clamp(max=last)] for place in (users, users + 1))
        unknown = self.num_songs - (end - first)
        drawn = torch.randint(RANDOM_RANGE, users.shape, generator=generator).to(users.device)
        rank = drawn % torch.where(unknown > 0, unknown, self.num_songs)
        known_before = torch.searchsorted(self._unknown, users * self.num_songs + rank, right=True) - first
        return torch.where(unknown > 0, rank + known_before, rank)

    @cached_property
    def _start(self) -> Tensor:
        """The place where the keys of each user start, up to the last user with keys, and their end: (U + 1,)."""
        count = (self.keys // self.num_songs).bincount()
        return torch.cat([count.new_zeros(1), count.cumsum(0)])

    @cached_property
    def _unknown(self) -> Tensor:
        """The keys with each song replaced by the number of unknown songs before it: (E,), ascending.

        The unknown song of rank r comes after all known songs that have at most r unknown ones before them.
        """
        place = torch.arange(len(self.keys), device=self.keys.device)
        return self.keys - (place - self._start[self.keys // self.num_songs])

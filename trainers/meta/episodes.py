"""Episodes: train users as if they were new. Some of their train songs are known, the others are to be found."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from models.few_shot import KnownSongs
from models.item_paths.paths import Neighbors


class Episode(NamedTuple):
    """An episode of B users.

    ``users`` (B,), ascending; ``known``, the known songs of each. The songs to be found are Q pairs: ``rows`` (Q,),
    rising, the place of each pair's user among the users, and ``songs`` (Q,).
    """

    users: Tensor
    known: KnownSongs
    rows: Tensor
    songs: Tensor

    @classmethod
    def draw(cls, listens: Neighbors, users: Tensor, most_known: int, generator: Generator) -> Episode:
        """Split each user's songs at random: 1 to ``most_known`` are known, uniformly, and at least one is not.

        Args:
            listens: each user's train songs.
            users: (B,), each with at least two songs.
        """
        users = users.sort().values
        shuffled, counts = _shuffled_rows(listens, users, generator)
        drawn = torch.randint(1, most_known + 1, (len(users),), generator=generator)
        known = torch.minimum(drawn, counts - 1)
        places = torch.arange(shuffled.shape[1])
        hidden = (places >= known[:, None]) & (places < counts[:, None])
        rows, columns = hidden.nonzero(as_tuple=True)
        return cls(users, _known(shuffled, known), rows, shuffled[rows, columns])


def known_songs(listens: Neighbors, users: Tensor, most_known: int, generator: Generator) -> KnownSongs:
    """Draw 1 to ``most_known`` of the songs of each of users (B,), or all if there are fewer; each user has one."""
    shuffled, counts = _shuffled_rows(listens, users, generator)
    drawn = torch.randint(1, most_known + 1, (len(users),), generator=generator)
    return _known(shuffled, torch.minimum(drawn, counts))


def user_subset(degree: Tensor, users: Tensor, share: float, generator: Generator) -> Tensor:
    """Draw some of the users (B,), ascending, who have at most a share of all train songs; at least one user.

    Args:
        degree: (U,) number of train songs of each user of the graph.
    """
    order = users[torch.randperm(len(users), generator=generator)]
    fitting = int((degree[order].cumsum(0) <= share * degree.sum()).sum())
    return order[: max(1, fitting)].sort().values


def _known(shuffled: Tensor, counts: Tensor) -> KnownSongs:
    """Return the first ``counts`` (B,) of each row (B, L)."""
    songs = shuffled[:, : int(counts.max())]
    given = torch.arange(songs.shape[1]) < counts[:, None]
    return KnownSongs(songs.masked_fill(~given, 0), given)


def _shuffled_rows(listens: Neighbors, users: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return the songs of each user in random order, padded (B, L), and their number (B,)."""
    rows = listens.rows(users.numpy())
    counts = torch.from_numpy(rows.degree)
    given = torch.arange(int(counts.max())) < counts[:, None]  # (B, L)
    songs = torch.zeros(given.shape, dtype=torch.int64)
    songs[given] = torch.from_numpy(rows.node).long()
    order = torch.rand(given.shape, generator=generator).masked_fill(~given, 2.0).argsort(1)
    return songs.gather(1, order), counts

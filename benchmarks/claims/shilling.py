"""Add shilling profiles to a graph: fake users who push one unpopular song, by the attacks of the literature.

The attacks are those of Mobasher et al., "Toward trustworthy recommender systems: an analysis of attack models and
algorithm robustness", ACM TOIT 2007. A listen has no rating, so an attack only chooses the songs of a profile.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, MASKS, set_listens
from data.training_graph import EDGE_ATTRIBUTES

SHARE = 0.01
"""Fake users for each honest one."""
FEWEST_SONGS = 5
"""Minimum number of songs in a fake profile: a profile with one song has no effect."""
HITS = 10
"""Popular songs in every profile of a bandwagon attack."""
UNPOPULAR = (3, 8)
"""Train listeners of a pushed song before the attack."""


@dataclass(frozen=True)
class AttackedLog:
    """The train pairs of a graph, which the attacker knows, and the pushed song."""

    user: np.ndarray
    song: np.ndarray
    num_songs: int
    artists: np.ndarray
    pushed: int

    @classmethod
    def of(cls, graph: HeteroData, generator: np.random.Generator) -> AttackedLog:
        """Read the train pairs and draw the pushed song."""
        store, num_songs = graph[LISTENS], int(graph["song"].num_nodes)
        user, song = store.edge_index[:, store.train_mask].numpy()
        listeners = np.bincount(song, minlength=num_songs)
        unpopular = np.flatnonzero((listeners >= UNPOPULAR[0]) & (listeners <= UNPOPULAR[1]))
        return cls(user, song, num_songs, graph[BY].edge_index.numpy(), int(generator.choice(unpopular)))

    @property
    def popularity(self) -> np.ndarray:
        """(S,) listens of each song; 0 for the pushed song, which is not a filler."""
        counts = np.bincount(self.song, minlength=self.num_songs).astype(np.float64)
        counts[self.pushed] = 0
        return counts

    def sizes(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Draw lengths of profiles (count,) from those of honest users."""
        lengths = np.bincount(self.user)
        return generator.choice(lengths[lengths >= FEWEST_SONGS], count)


def average(log: AttackedLog, size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw fillers by popularity."""
    return _draw(log.popularity, size, generator)


def bandwagon(log: AttackedLog, size: int, generator: np.random.Generator) -> np.ndarray:
    """Take the most popular songs, and fill up with random songs."""
    hits = np.argsort(-log.popularity, kind="stable")[:HITS]
    others = np.ones(log.num_songs)
    others[[*hits, log.pushed]] = 0
    return np.concatenate([generator.permutation(hits)[:size], _draw(others, max(0, size - HITS), generator)])


def popular(log: AttackedLog, size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw from the most popular 2 x size songs only."""
    hits = np.argsort(-log.popularity, kind="stable")[: 2 * size]
    return generator.choice(hits, size, replace=False)


def segment(log: AttackedLog, size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw songs of the pushed song's artist, and songs that the artist's listeners hear more often than others do."""
    song, artist = log.artists
    same_artist = np.isin(np.arange(log.num_songs), song[np.isin(artist, artist[song == log.pushed])])
    fans = np.unique(log.user[same_artist[log.song]])
    heard = np.bincount(log.song[np.isin(log.user, fans)], minlength=log.num_songs)
    liked = heard / np.sqrt(np.maximum(log.popularity, 1))
    weight = liked / max(liked.sum(), 1) + same_artist / same_artist.sum()
    weight[log.pushed] = 0
    return _draw(weight, size, generator)


Fillers = Callable[[AttackedLog, int, np.random.Generator], np.ndarray]
ATTACKS: dict[str, Fillers] = {f.__name__: f for f in (average, bandwagon, popular, segment)}


def attack_graph(graph: HeteroData, attack: str, seed: int) -> tuple[HeteroData, int]:
    """Add fake users after the honest users of a training graph; return the graph and the pushed song.

    The pushed song depends on the seed only. All listens of fake users are train listens, with the attributes of random
    train listens, so the held-out listens and the measured users stay the same.
    """
    log = AttackedLog.of(graph, np.random.default_rng([seed, 0]))
    generator = np.random.default_rng([seed, 1])
    count = round(SHARE * int(graph["user"].num_nodes))
    fillers = [ATTACKS[attack](log, int(size) - 1, generator) for size in log.sizes(count, generator)]
    return add_users(graph, [np.append(songs, log.pushed) for songs in fillers], generator), log.pushed


def add_users(graph: HeteroData, profiles: list[np.ndarray], generator: np.random.Generator) -> HeteroData:
    """Add a user for each profile, an array of songs."""
    store, grown, users = graph[LISTENS], copy.copy(graph), int(graph["user"].num_nodes)
    fake = users + np.repeat(np.arange(len(profiles)), [len(songs) for songs in profiles])
    pairs = torch.from_numpy(np.stack([fake, np.concatenate(profiles)]))
    train = store.train_mask.nonzero().squeeze(1)
    like = train[torch.from_numpy(generator.integers(len(train), size=len(fake)))]
    grown["user"].num_nodes = users + len(profiles)
    grown["user"].id_hash = torch.cat([graph["user"].id_hash, -1 - torch.arange(len(profiles))])
    attributes = {name: torch.cat([store[name], store[name][like]]) for name in EDGE_ATTRIBUTES if name in store}
    masks = {name: torch.cat([store[name], store[name][like]]) for name in MASKS}
    set_listens(grown, torch.cat([store.edge_index, pairs], 1), attributes, store.half_life_days)
    for name, mask in masks.items():
        grown[LISTENS][name] = mask
    return grown


def _draw(weight: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    count = min(size, np.count_nonzero(weight))
    return generator.choice(len(weight), count, replace=False, p=weight / weight.sum()) if count else np.empty(0, int)

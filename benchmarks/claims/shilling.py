"""Planted shilling profiles: fake users who push one unpopular song, after the attacks that the literature names.

For the attacks: Mobasher et al., "Toward trustworthy recommender systems: an analysis of attack models and algorithm
robustness", ACM TOIT 2007. A listen has no rating to choose: what is left of an attack is which songs fill a profile.
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
"""Of a fake profile: one song alone leads nowhere."""
HITS = 10
"""Songs that every profile of a bandwagon has."""
UNPOPULAR = (3, 8)
"""Train listeners of a pushed song before the attack."""


@dataclass(frozen=True)
class Log:
    """The train pairs of a graph, as an attacker may know them, and the pushed song."""

    user: np.ndarray
    song: np.ndarray
    num_songs: int
    artists: np.ndarray
    pushed: int

    @classmethod
    def of(cls, graph: HeteroData, generator: np.random.Generator) -> Log:
        """Draws the pushed song."""
        store, num_songs = graph[LISTENS], int(graph["song"].num_nodes)
        user, song = store.edge_index[:, store.train_mask].numpy()
        listeners = np.bincount(song, minlength=num_songs)
        unpopular = np.flatnonzero((listeners >= UNPOPULAR[0]) & (listeners <= UNPOPULAR[1]))
        return cls(user, song, num_songs, graph[BY].edge_index.numpy(), int(generator.choice(unpopular)))

    @property
    def popularity(self) -> np.ndarray:
        """(S,) listens of each song; none of the pushed one, which is no filler."""
        counts = np.bincount(self.song, minlength=self.num_songs).astype(np.float64)
        counts[self.pushed] = 0
        return counts

    def sizes(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(count,) lengths of profiles like those of honest users."""
        lengths = np.bincount(self.user)
        return generator.choice(lengths[lengths >= FEWEST_SONGS], count)


def average(log: Log, size: int, generator: np.random.Generator) -> np.ndarray:
    """Fillers by popularity."""
    return _drawn(log.popularity, size, generator)


def bandwagon(log: Log, size: int, generator: np.random.Generator) -> np.ndarray:
    """The greatest hits, and any songs beside them."""
    hits = np.argsort(-log.popularity, kind="stable")[:HITS]
    others = np.ones(log.num_songs)
    others[[*hits, log.pushed]] = 0
    return np.concatenate([generator.permutation(hits)[:size], _drawn(others, max(0, size - HITS), generator)])


def popular(log: Log, size: int, generator: np.random.Generator) -> np.ndarray:
    """Nothing but hits: half of the greatest 2 x size."""
    hits = np.argsort(-log.popularity, kind="stable")[: 2 * size]
    return generator.choice(hits, size, replace=False)


def segment(log: Log, size: int, generator: np.random.Generator) -> np.ndarray:
    """Songs of the pushed song's artist, and those that the artist's listeners hear more than others do."""
    song, artist = log.artists
    same_artist = np.isin(np.arange(log.num_songs), song[np.isin(artist, artist[song == log.pushed])])
    fans = np.unique(log.user[same_artist[log.song]])
    heard = np.bincount(log.song[np.isin(log.user, fans)], minlength=log.num_songs)
    liked = heard / np.sqrt(np.maximum(log.popularity, 1))
    weight = liked / max(liked.sum(), 1) + same_artist / same_artist.sum()
    weight[log.pushed] = 0
    return _drawn(weight, size, generator)


Fillers = Callable[[Log, int, np.random.Generator], np.ndarray]
ATTACKS: dict[str, Fillers] = {f.__name__: f for f in (average, bandwagon, popular, segment)}


def attacked(graph: HeteroData, attack: str, seed: int) -> tuple[HeteroData, int]:
    """A training graph with fake users behind the honest ones, and the song that they push; the same song a seed.

    All their listens are train listens, with the attributes of train listens drawn from the log: what is held out, and
    who is measured, stays as it is.
    """
    log = Log.of(graph, np.random.default_rng([seed, 0]))
    generator = np.random.default_rng([seed, 1])
    count = round(SHARE * int(graph["user"].num_nodes))
    fillers = [ATTACKS[attack](log, int(size) - 1, generator) for size in log.sizes(count, generator)]
    return planted(graph, [np.append(songs, log.pushed) for songs in fillers], generator), log.pushed


def planted(graph: HeteroData, profiles: list[np.ndarray], generator: np.random.Generator) -> HeteroData:
    """The graph with a further user for each profile."""
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


def _drawn(weight: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    count = min(size, np.count_nonzero(weight))
    return generator.choice(len(weight), count, replace=False, p=weight / weight.sum()) if count else np.empty(0, int)

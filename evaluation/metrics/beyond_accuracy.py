"""What lists are like, whoever is right: coverage, concentration, novelty, diversity and popularity.

Each function takes lists ``items`` (N, k) int64, best first, -1 for an empty place, and says nothing about relevance.
What is known about songs comes from train listens and the catalogue alone (``Catalogue``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import normalize
from torch_geometric.data import HeteroData

from data.graph import BY
from evaluation.parts import part_edges
from evaluation.statistics.intervals import Interval, centred_interval, user_resamples

AGGREGATE_SAMPLES = 200
"""Resamples behind the intervals of metrics of all lists together."""
CELLS_AT_ONCE = 2**22
"""Entries of the largest table that is held at once, whatever the numbers of users and songs."""
UNHEARD = 0.5
"""Listeners that a song without any is taken to have, so that its self-information is finite."""


@dataclass(frozen=True)
class Catalogue:
    """What is known about the S songs before the held-out listens.

    ``listeners`` (S,) int64 distinct train listeners; ``num_users`` users with a train listen; ``by`` (2, B) song and
    artist, or None; ``vectors`` (S, D), in which a cosine says how alike two songs are, or None.
    """

    listeners: Tensor
    num_users: int
    by: Tensor | None = None
    vectors: Tensor | None = None

    @classmethod
    def of(cls, graph: HeteroData, vectors: Tensor | None = None) -> Catalogue:
        """From a training graph; without masks every listen is a train listen."""
        num_songs = int(graph["song"].num_nodes)
        train = part_edges(graph, "train")
        heard = torch.unique(train[0] * num_songs + train[1]) % num_songs
        by = graph[BY].edge_index.cpu() if BY in graph.edge_types and graph[BY].edge_index.numel() else None
        known = None if vectors is None else vectors.detach().cpu()
        return cls(torch.bincount(heard, minlength=num_songs), len(torch.unique(train[0])), by, known)


def list_metrics(items: Tensor, catalogue: Catalogue) -> dict[str, Tensor]:
    """Each user's metrics (N,) float64; those by artist or embedding only where the catalogue has them."""
    found = {
        "novelty": novelty(items, catalogue.listeners, catalogue.num_users),
        "average_popularity": average_popularity(items, catalogue.listeners),
    }
    if catalogue.by is not None:
        found["artist_diversity"] = artist_diversity(items, catalogue.by)
        found["artist_share"] = artist_share(items, catalogue.by)
    if catalogue.vectors is not None:
        found["embedding_diversity"] = embedding_diversity(items, catalogue.vectors)
    return found


def novelty(items: Tensor, listeners: Tensor, num_users: int) -> Tensor:
    """Mean self-information of the songs in the list: -log2(train listeners / train users), in bits.

    Denominator: the filled places (0 for an empty list). A song without listeners counts as one with ``UNHEARD``.
    Vargas and Castells, "Rank and relevance in novelty and diversity metrics" (2011); Zhou et al. (2010).
    """
    return _mean_over_places(items, -torch.log2(listeners.double().clamp(min=UNHEARD) / num_users))


def average_popularity(items: Tensor, listeners: Tensor) -> Tensor:
    """Mean number of train listeners of the songs in the list. Denominator: the filled places (0 for an empty list).

    Yin et al., "Challenging the long tail recommendation" (2012), 5.2.
    """
    return _mean_over_places(items, listeners.double())


def artist_diversity(items: Tensor, by: Tensor) -> Tensor:
    """Share of the pairs of songs in the list that have no artist in common; a song without artists shares none.

    Denominator: the pairs of filled places (0 where there is none). Ziegler et al., "Improving recommendation lists
    through topic diversification" (2005), with 1 for a common artist and 0 otherwise as the similarity; with one artist
    a song it is PyG's ``LinkPredDiversity``.
    """
    artists = _Artists.of(by)
    shared = [_sharing_pairs(part, artists) for part in _parts(items, items.shape[1] ** 2)]
    return _share_of_pairs(_pairs(items) - torch.cat(shared), items)


def artist_share(items: Tensor, by: Tensor) -> Tensor:
    """The largest share of the list that one artist holds.

    Denominator: k, also where fewer songs could be listed. A song of several artists counts for each; a song without
    artists for none.
    """
    artists = _Artists.of(by)
    held = [_most_of_one(part, artists) for part in _parts(items, items.shape[1])]
    return torch.cat(held).double() / items.shape[1]


def embedding_diversity(items: Tensor, vectors: Tensor) -> Tensor:
    """1 - the mean cosine of the pairs of songs in the list. A vector of zeros is at right angles to all others.

    Denominator: the pairs of filled places (0 where there is none). Smyth and McClave, "Similarity vs. diversity"
    (2001); Ziegler et al. (2005).
    """
    parts = _parts(items, items.shape[1] * vectors.shape[1])
    cosines = torch.cat([_sum_of_cosines(part, vectors) for part in parts])
    return _share_of_pairs(_pairs(items) - cosines, items)


def coverage(exposure: np.ndarray, num_songs: int) -> np.ndarray:
    """Share of all songs that are in any list. Denominator: all songs, also those that nobody could be shown.

    ``exposure`` (..., S') how often each song is listed; songs that are left out are never listed. Herlocker et al.,
    "Evaluating collaborative filtering recommender systems" (2004), 4.2; PyG's ``LinkPredCoverage``.
    """
    return (exposure > 0).sum(axis=-1) / num_songs


def gini(exposure: np.ndarray, num_songs: int) -> np.ndarray:
    """Gini coefficient of how often each song is listed: 0 where all are as often, near 1 where few hold the places.

    Denominator: all songs, also those that are never listed; 0 without any list. With exposures x in rising order:
    sum over i of (2 i - S - 1) x_i / (S sum x). Fleder and Hosanagar, "Blockbuster culture's next rise or fall" (2009).
    """
    rising = np.sort(exposure, axis=-1)
    place = num_songs - exposure.shape[-1] + np.arange(1, exposure.shape[-1] + 1)  # songs that are left out come first
    total = rising.sum(axis=-1)
    return rising @ (2 * place - num_songs - 1) / (num_songs * np.where(total > 0, total, 1))


@dataclass(frozen=True)
class Aggregate:
    """A metric of all lists, and the same of each resample of the users, drawn as for the means."""

    estimate: float
    resampled: np.ndarray

    def interval(self) -> Interval:
        """Centred at the estimate, see ``evaluation.statistics.intervals.centred_interval``."""
        return centred_interval(self.estimate, self.resampled)

    def __sub__(self, other: Aggregate) -> Aggregate:
        """The paired difference: both sides draw the same users."""
        return Aggregate(self.estimate - other.estimate, self.resampled - other.resampled)


def aggregates(items: Tensor, num_songs: int, seed: int, samples: int = AGGREGATE_SAMPLES) -> dict[str, Aggregate]:
    """Coverage and Gini of lists with what their intervals need; the same seed and N draw the same users.

    Coverage is counted anew in each resample. Gini moves by the influence of the users who are drawn (the delta
    method): counted anew, its spread comes out a sixth too small, since a resample has exposures that no sample has.
    """
    incidence = _incidence(items)
    exposure = np.asarray(incidence.sum(axis=0)).ravel()
    unequal, influence = float(gini(exposure, num_songs)), _gini_influence(incidence, exposure, num_songs)
    drawn = _shares_at_once(incidence, seed, samples)
    found = [(coverage((incidence.T @ shares.T).T, num_songs), unequal + shares @ influence) for shares in drawn]
    covered, moved = (np.concatenate(column) for column in zip(*found, strict=True))
    return {
        "coverage": Aggregate(float(coverage(exposure, num_songs)), covered),
        "gini": Aggregate(unequal, moved),
    }


def _gini_influence(incidence: sparse.csr_array, exposure: np.ndarray, num_songs: int) -> np.ndarray:
    """(N,) how far Gini moves with a user's weight: its derivative by the exposure of each song in the list, summed.

    The derivative is that of taking one place away, below which a song is first among those with as many.
    """
    total = max(1.0, exposure.sum())
    place = num_songs - len(exposure) + rankdata(exposure, method="min") if len(exposure) else exposure
    slope = (2 * place - num_songs - 1) / (num_songs * total) - gini(exposure, num_songs) / total
    influence = incidence.shape[0] * (incidence @ slope)
    return influence - influence.mean()


def _shares_at_once(incidence: sparse.csr_array, seed: int, samples: int) -> Iterator[np.ndarray]:
    """``user_resamples`` in parts (rows, N) whose exposures (rows, S') fit in ``CELLS_AT_ONCE``."""
    rows = max(1, CELLS_AT_ONCE // max(1, incidence.shape[1]))
    for shares in user_resamples(incidence.shape[0], seed, samples):
        yield from (shares[start : start + rows] for start in range(0, len(shares), rows))


def _incidence(items: Tensor) -> sparse.csr_array:
    """(N, S') ones where a user's list holds one of the S' songs that are in any list."""
    row, place = torch.nonzero(items >= 0, as_tuple=True)
    songs, column = torch.unique(items[row, place], return_inverse=True)
    cells = (np.ones(len(row)), (row.numpy(), column.numpy()))
    return sparse.csr_array(cells, shape=(len(items), len(songs)))


class _Artists(NamedTuple):
    """The artists of song s are ``artists[starts[s] : starts[s + 1]]``; there are ``total`` artists."""

    starts: Tensor
    artists: Tensor
    total: int

    @classmethod
    def of(cls, by: Tensor) -> _Artists:
        total = int(by[1].max()) + 1
        pairs = torch.unique(by[0] * total + by[1])  # sorted by song
        held = torch.bincount(pairs // total)
        return cls(torch.cat([held.new_zeros(1), held.cumsum(0)]), pairs % total, total)

    def of_places(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """For each artist of each filled place, the number of the place (row x k + column) and the artist."""
        place = torch.nonzero((items >= 0).flatten()).flatten()
        song = items.flatten()[place]
        place, song = place[song < len(self.starts) - 1], song[song < len(self.starts) - 1]
        first, held = self.starts[song], self.starts[song + 1] - self.starts[song]
        within = torch.arange(int(held.sum())) - (held.cumsum(0) - held).repeat_interleave(held)
        return place.repeat_interleave(held), self.artists[first.repeat_interleave(held) + within]


def _sharing_pairs(items: Tensor, artists: _Artists) -> Tensor:
    """(N,) pairs of places with a common artist: what is off the diagonal of B B', B places by artists of a user."""
    place, artist = artists.of_places(items)
    own, column = torch.unique(place // items.shape[1] * artists.total + artist, return_inverse=True)
    cells = (np.ones(len(place), dtype=np.float32), (place.numpy(), column.numpy()))
    held = sparse.csr_array(cells, shape=(items.numel(), len(own)))
    partners = torch.from_numpy(np.diff((held @ held.T).indptr).astype(np.int64))
    return (partners - partners.clamp(max=1)).reshape(items.shape).sum(dim=1) / 2


def _most_of_one(items: Tensor, artists: _Artists) -> Tensor:
    """(N,) places of the artist who has most of them."""
    place, artist = artists.of_places(items)
    cell, counts = torch.unique(place // items.shape[1] * artists.total + artist, return_counts=True)
    return counts.new_zeros(len(items)).scatter_reduce(0, cell // artists.total, counts, "amax")


def _sum_of_cosines(items: Tensor, vectors: Tensor) -> Tensor:
    """(N,) cosines of the pairs of k songs: of unit vectors |sum|^2 has each pair twice, and each vector itself."""
    unit = normalize(vectors[items.clamp(min=0)].double(), dim=2) * (items >= 0)[:, :, None]  # (N, k, D)
    return (unit.sum(dim=1).square().sum(dim=1) - unit.square().sum(dim=(1, 2))) / 2


def _parts(items: Tensor, cells: int) -> tuple[Tensor, ...]:
    """The lists in parts whose tables, of ``cells`` entries a user, stay small."""
    return items.split(max(1, CELLS_AT_ONCE // cells))


def _pairs(items: Tensor) -> Tensor:
    """(N,) float64 pairs of filled places."""
    filled = (items >= 0).sum(dim=1).double()
    return filled * (filled - 1) / 2


def _share_of_pairs(number: Tensor, items: Tensor) -> Tensor:
    return number / _pairs(items).clamp(min=1)


def _mean_over_places(items: Tensor, values: Tensor) -> Tensor:
    filled = items >= 0
    found = torch.where(filled, values[items.clamp(min=0)], 0.0)  # (N, k)
    return found.sum(dim=1) / filled.sum(dim=1).clamp(min=1)

"""Beyond-accuracy metrics of ranked lists: coverage, concentration, novelty, diversity and popularity.

Each function takes lists ``items`` (N, k) int64, best first, -1 for an empty place; relevance plays no part. Facts
about songs come from train listens and the catalogue only (``SongFeatures``).
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
"""Resamples for the intervals of metrics of all lists together."""
CELLS_AT_ONCE = 2**22
"""Entries of the largest temporary table, for any number of users and songs."""
LISTENERS_OF_UNHEARD = 0.5
"""A song without listeners counts as one with this many, so that its self-information is finite."""


@dataclass(frozen=True)
class SongFeatures:
    """Facts about the S songs that are known without the held-out listens.

    ``listeners`` (S,) int64 distinct train listeners; ``num_users`` users with a train listen; ``by`` (2, B) song and
    artist, or None; ``vectors`` (S, D), whose cosine is the similarity of two songs, or None.
    """

    listeners: Tensor
    num_users: int
    by: Tensor | None = None
    vectors: Tensor | None = None

    @classmethod
    def of(cls, graph: HeteroData, vectors: Tensor | None = None) -> SongFeatures:
        """Read them from a training graph; without masks every listen is a train listen."""
        num_songs = int(graph["song"].num_nodes)
        train = part_edges(graph, "train")
        song_of_pair = torch.unique(train[0] * num_songs + train[1]) % num_songs
        listeners = torch.bincount(song_of_pair, minlength=num_songs)
        by = graph[BY].edge_index.cpu() if BY in graph.edge_types and graph[BY].edge_index.numel() else None
        return cls(listeners, len(torch.unique(train[0])), by, None if vectors is None else vectors.detach().cpu())


def list_metrics(items: Tensor, features: SongFeatures) -> dict[str, Tensor]:
    """Compute each user's metrics (N,) float64; those by artist or embedding only if ``features`` has them."""
    found = {
        "novelty": novelty(items, features.listeners, features.num_users),
        "average_popularity": average_popularity(items, features.listeners),
    }
    if features.by is not None:
        found["artist_diversity"] = artist_diversity(items, features.by)
        found["artist_share"] = artist_share(items, features.by)
    if features.vectors is not None:
        found["embedding_diversity"] = embedding_diversity(items, features.vectors)
    return found


def novelty(items: Tensor, listeners: Tensor, num_users: int) -> Tensor:
    """Mean self-information of the songs in the list: -log2(train listeners / train users), in bits.

    Denominator: the filled places (0 for an empty list). A song without listeners counts as one with
    ``LISTENERS_OF_UNHEARD``. Vargas and Castells, "Rank and relevance in novelty and diversity metrics" (2011); Zhou et
    al. (2010).
    """
    return _mean_over_places(items, -torch.log2(listeners.double().clamp(min=LISTENERS_OF_UNHEARD) / num_users))


def average_popularity(items: Tensor, listeners: Tensor) -> Tensor:
    """Mean number of train listeners of the songs in the list. Denominator: the filled places (0 for an empty list).

    Yin et al., "Challenging the long tail recommendation" (2012), 5.2.
    """
    return _mean_over_places(items, listeners.double())


def artist_diversity(items: Tensor, by: Tensor) -> Tensor:
    """Share of the pairs of songs in the list without a common artist; a song without artists shares none.

    Denominator: the pairs of filled places (0 if there is no pair). Ziegler et al., "Improving recommendation lists
    through topic diversification" (2005), with similarity 1 for a common artist and 0 otherwise. If each song has one
    artist, this is PyG's ``LinkPredDiversity``.
    """
    artists = _Artists.of(by)
    shared = [_pairs_with_common_artist(chunk, artists) for chunk in _chunks(items, items.shape[1] ** 2)]
    return _mean_over_pairs(_filled_pairs(items) - torch.cat(shared), items)


def artist_share(items: Tensor, by: Tensor) -> Tensor:
    """The largest share of the list that one artist has.

    Denominator: k, even if fewer songs could be listed. A song of several artists counts for each of them; a song
    without artists counts for none.
    """
    artists = _Artists.of(by)
    most = [_places_of_top_artist(chunk, artists) for chunk in _chunks(items, items.shape[1])]
    return torch.cat(most).double() / items.shape[1]


def embedding_diversity(items: Tensor, vectors: Tensor) -> Tensor:
    """1 - the mean cosine of the pairs of songs in the list. The cosine with a zero vector is 0.

    Denominator: the pairs of filled places (0 if there is no pair). Smyth and McClave, "Similarity vs. diversity"
    (2001); Ziegler et al. (2005).
    """
    chunks = _chunks(items, items.shape[1] * vectors.shape[1])
    cosines = torch.cat([_sum_of_cosines(chunk, vectors) for chunk in chunks])
    return _mean_over_pairs(_filled_pairs(items) - cosines, items)


def coverage(exposure: np.ndarray, num_songs: int) -> np.ndarray:
    """Share of all songs that are in any list. Denominator: all songs, even those that nobody could be shown.

    ``exposure`` (..., S') how often each song is listed; songs that it leaves out are never listed. Herlocker et al.,
    "Evaluating collaborative filtering recommender systems" (2004), 4.2; PyG's ``LinkPredCoverage``.
    """
    return (exposure > 0).sum(axis=-1) / num_songs


def gini(exposure: np.ndarray, num_songs: int) -> np.ndarray:
    """Gini coefficient of how often each song is listed: 0 if all are listed equally often, near 1 if few songs fill
    the lists.

    Denominator: all songs, even those that are never listed; 0 without any list. With exposures x in rising order:
    sum over i of (2 i - S - 1) x_i / (S sum x). Fleder and Hosanagar, "Blockbuster culture's next rise or fall" (2009).
    """
    rising = np.sort(exposure, axis=-1)
    rank = num_songs - exposure.shape[-1] + np.arange(1, exposure.shape[-1] + 1)  # songs that are left out come first
    total = rising.sum(axis=-1)
    return rising @ (2 * rank - num_songs - 1) / (num_songs * np.where(total > 0, total, 1))


@dataclass(frozen=True)
class Aggregate:
    """A metric of all lists together, and its value in each resample of the users."""

    estimate: float
    resampled: np.ndarray

    def interval(self) -> Interval:
        """Return the interval around the estimate; see ``evaluation.statistics.intervals.centred_interval``."""
        return centred_interval(self.estimate, self.resampled)

    def __sub__(self, other: Aggregate) -> Aggregate:
        """Return the paired difference: both draw the same users."""
        return Aggregate(self.estimate - other.estimate, self.resampled - other.resampled)


def aggregates(items: Tensor, num_songs: int, seed: int, samples: int = AGGREGATE_SAMPLES) -> dict[str, Aggregate]:
    """Compute coverage and Gini with the resamples for their intervals; the same seed and N draw the same users.

    Coverage is counted again in each resample. Gini uses the influence of each user (the delta method) instead: a
    recount would underestimate its standard deviation by a sixth, since a resample has exposures that no sample has.
    """
    incidence = _incidence(items)
    exposure = np.asarray(incidence.sum(axis=0)).ravel()
    estimate, influence = float(gini(exposure, num_songs)), _gini_influence(incidence, exposure, num_songs)
    resamples = _resamples_in_chunks(incidence, seed, samples)
    found = [(coverage((incidence.T @ shares.T).T, num_songs), estimate + shares @ influence) for shares in resamples]
    coverages, ginis = (np.concatenate(column) for column in zip(*found, strict=True))
    return {
        "coverage": Aggregate(float(coverage(exposure, num_songs)), coverages),
        "gini": Aggregate(estimate, ginis),
    }


def _gini_influence(incidence: sparse.csr_array, exposure: np.ndarray, num_songs: int) -> np.ndarray:
    """Return the derivative of Gini by each user's weight (N,), minus its mean.

    It is the sum of the derivatives by the exposure of each song in the user's list. The derivative is taken from
    below (one place less), where a song is the first of those with equal exposure.
    """
    total = max(1.0, exposure.sum())
    rank = num_songs - len(exposure) + rankdata(exposure, method="min") if len(exposure) else exposure
    slope = (2 * rank - num_songs - 1) / (num_songs * total) - gini(exposure, num_songs) / total
    influence = incidence.shape[0] * (incidence @ slope)
    return influence - influence.mean()


def _resamples_in_chunks(incidence: sparse.csr_array, seed: int, samples: int) -> Iterator[np.ndarray]:
    """Yield ``user_resamples`` in chunks (rows, N) whose exposures (rows, S') fit into ``CELLS_AT_ONCE``."""
    rows = max(1, CELLS_AT_ONCE // max(1, incidence.shape[1]))
    for shares in user_resamples(incidence.shape[0], seed, samples):
        yield from (shares[start : start + rows] for start in range(0, len(shares), rows))


def _incidence(items: Tensor) -> sparse.csr_array:
    """Return (N, S') with 1 where a user's list holds a song; the S' songs are those in any list."""
    row, place = torch.nonzero(items >= 0, as_tuple=True)
    songs, column = torch.unique(items[row, place], return_inverse=True)
    cells = (np.ones(len(row)), (row.numpy(), column.numpy()))
    return sparse.csr_array(cells, shape=(len(items), len(songs)))


class _Artists(NamedTuple):
    """Artists by song: those of song s are ``artists[starts[s] : starts[s + 1]]``; ``total`` artists in all."""

    starts: Tensor
    artists: Tensor
    total: int

    @classmethod
    def of(cls, by: Tensor) -> _Artists:
        total = int(by[1].max()) + 1
        pairs = torch.unique(by[0] * total + by[1])  # sorted by song
        counts = torch.bincount(pairs // total)
        return cls(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), pairs % total, total)

    def of_places(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the place (row x k + column) and the artist, for each artist of each filled place."""
        place = torch.nonzero((items >= 0).flatten()).flatten()
        song = items.flatten()[place]
        place, song = place[song < len(self.starts) - 1], song[song < len(self.starts) - 1]
        first, counts = self.starts[song], self.starts[song + 1] - self.starts[song]
        within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        return place.repeat_interleave(counts), self.artists[first.repeat_interleave(counts) + within]


def _pairs_with_common_artist(items: Tensor, artists: _Artists) -> Tensor:
    """Count each user's pairs of places with a common artist (N,).

    With B (N k, columns), a row per place and a column per user and artist, B B' is not zero where two places of a user
    have a common artist. Its diagonal is left out.
    """
    place, artist = artists.of_places(items)
    user_artists, column = torch.unique(place // items.shape[1] * artists.total + artist, return_inverse=True)
    cells = (np.ones(len(place), dtype=np.float32), (place.numpy(), column.numpy()))
    artists_of_place = sparse.csr_array(cells, shape=(items.numel(), len(user_artists)))
    partners = torch.from_numpy(np.diff((artists_of_place @ artists_of_place.T).indptr).astype(np.int64))
    return (partners - partners.clamp(max=1)).reshape(items.shape).sum(dim=1) / 2


def _places_of_top_artist(items: Tensor, artists: _Artists) -> Tensor:
    """Count the places of the artist who has most of them in each list (N,)."""
    place, artist = artists.of_places(items)
    user_artist, counts = torch.unique(place // items.shape[1] * artists.total + artist, return_counts=True)
    return counts.new_zeros(len(items)).scatter_reduce(0, user_artist // artists.total, counts, "amax")


def _sum_of_cosines(items: Tensor, vectors: Tensor) -> Tensor:
    """Sum the cosines of all pairs of songs in each list (N,).

    For unit vectors, |sum|^2 contains each pair twice and the square of each vector once.
    """
    unit = normalize(vectors[items.clamp(min=0)].double(), dim=2) * (items >= 0)[:, :, None]  # (N, k, D)
    return (unit.sum(dim=1).square().sum(dim=1) - unit.square().sum(dim=(1, 2))) / 2


def _chunks(items: Tensor, cells: int) -> tuple[Tensor, ...]:
    """Split the lists into chunks whose temporary tables, with ``cells`` entries per user, stay small."""
    return items.split(max(1, CELLS_AT_ONCE // cells))


def _filled_pairs(items: Tensor) -> Tensor:
    """Count the pairs of filled places of each list (N,) float64."""
    filled = (items >= 0).sum(dim=1).double()
    return filled * (filled - 1) / 2


def _mean_over_pairs(total: Tensor, items: Tensor) -> Tensor:
    return total / _filled_pairs(items).clamp(min=1)


def _mean_over_places(items: Tensor, values: Tensor) -> Tensor:
    filled = items >= 0
    of_places = torch.where(filled, values[items.clamp(min=0)], 0.0)  # (N, k)
    return of_places.sum(dim=1) / filled.sum(dim=1).clamp(min=1)

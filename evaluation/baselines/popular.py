"""Popularity: rank the songs by their listeners, the same for every user."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch_geometric.data import HeteroData

from evaluation.baselines.baseline import Baseline
from evaluation.baselines.matrix import train_values
from evaluation.parts import part_edges
from evaluation.ranking import Score

SECONDS_A_DAY = 86_400


class Popularity(Baseline):
    """A song's score is its number of distinct train listeners."""

    def fit(self, graph: HeteroData) -> Score:
        return popularity(graph)


class RecentPopularity(Baseline):
    """A song's score is its number of train listeners, where older listens count less.

    A listener whose last listen to the song was ``t`` days before the last train listen of the log counts
    ``2^(-t / half_life_days)``. Ji, Sun, Zhang and Ye, "A re-visit of the popularity baseline in recommender systems"
    (SIGIR 2020), show that popularity with time is a much stronger baseline.
    """

    half_life_days: float = Field(30.0, gt=0)
    """Days after which a listener counts half."""

    def why_not(self, graph: HeteroData) -> str:
        has_times = train_values(graph, "last_played") is not None
        return "" if has_times else "The log has no times, so nothing can be called recent."

    def fit(self, graph: HeteroData) -> Score:
        last = train_values(graph, "last_played")  # (E,) seconds
        if last is None:
            raise ValueError(self.why_not(graph))
        songs = part_edges(graph, "train")[1].numpy()
        fading = np.exp2((last - last.max(initial=0)) / SECONDS_A_DAY / self.half_life_days)
        counts = np.bincount(songs, weights=fading, minlength=int(graph["song"].num_nodes))  # (S,)
        return _same_for_every_user(torch.from_numpy(counts))


def popularity(graph: HeteroData) -> Score:
    """Return a score function that gives every user the same scores: each song's number of distinct train listeners.

    Args:
        graph: a training graph; without masks every listen is a train listen.
    """
    edges = part_edges(graph, "train")
    num_songs = int(graph["song"].num_nodes)
    listeners = torch.unique(edges[0] * num_songs + edges[1]) % num_songs
    return _same_for_every_user(torch.bincount(listeners, minlength=num_songs).double())  # (S,)


def _same_for_every_user(scores: Tensor) -> Score:
    return lambda users: scores.expand(len(users), -1)  # (B, S)

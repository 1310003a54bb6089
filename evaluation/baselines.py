"""Baselines that stand beside every result."""

from __future__ import annotations

import torch
from torch_geometric.data import HeteroData

from evaluation.parts import part_edges
from evaluation.ranking import Score


def popularity(graph: HeteroData) -> Score:
    """Every user gets the same scores: a song's number of distinct train listeners.

    Args:
        graph: a training graph; without masks every listen is a train listen.
    """
    edges = part_edges(graph, "train")
    num_songs = int(graph["song"].num_nodes)
    listeners = torch.unique(edges[0] * num_songs + edges[1]) % num_songs
    counts = torch.bincount(listeners, minlength=num_songs).double()  # (S,)
    return lambda users: counts.expand(len(users), -1)  # (B, S)

"""What the train listens of a graph say about songs: who heard which, and the paths between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, NODE_TYPES, has_masks, message_graph
from models.graph.per_graph import PerGraph
from models.item_paths.paths import Neighbors, Paths

USER_POWERS, ARTIST_POWERS = (0.3, 1.0), (0.5,)
"""How much less a listener of many songs, or an artist of many, says about two songs that share it."""


@dataclass(frozen=True, eq=False)
class History:
    """Each user's train songs, and the song-to-song edges through users and through artists."""

    listens: Neighbors
    users: Paths
    artists: Paths

    @property
    def relations(self) -> tuple[Paths, Paths]:
        """The two kinds of song-to-song edges."""
        return self.users, self.artists

    @cached_property
    def log_listens(self) -> Tensor:
        """(U,) logarithm of each user's number of songs; 0 where there is none."""
        return torch.from_numpy(self.listens.log_degree)

    @cached_property
    def usual(self) -> tuple[float, float]:
        """Means of ``log_listens`` over users and of ``log_listeners`` over songs."""
        return float(self.log_listens.mean()), float(self.log_listeners.mean())

    @cached_property
    def log_listeners(self) -> Tensor:
        """(S,) logarithm of each song's number of users; 0 where there is none."""
        return torch.from_numpy(self.users.middles.log_degree)


_prepared: PerGraph[History] = PerGraph()


def history(graph: HeteroData) -> History:
    """The history of a graph's train edges, built once a graph; treat a graph as immutable after that."""
    return _prepared.get(graph) or _prepared.set(graph, _build(message_graph(graph) if has_masks(graph) else graph))


def _build(graph: HeteroData) -> History:
    users, songs, artists = (int(graph[kind].num_nodes or 0) if kind in graph.node_types else 0 for kind in NODE_TYPES)
    user, song = graph[LISTENS].edge_index.cpu().numpy()
    made, artist = graph[BY].edge_index.cpu().numpy() if BY in graph.edge_types else np.empty((2, 0), dtype=np.int64)
    return History(
        Neighbors.of(user, song, users),
        Paths.of(song, user, songs, users, USER_POWERS),
        Paths.of(made, artist, songs, artists, ARTIST_POWERS),
    )

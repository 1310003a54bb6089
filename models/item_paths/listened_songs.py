"""The songs that each user listened to in the train edges of a graph, and the paths between songs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, NODE_TYPES, has_masks, message_graph
from models.graph.graph_cache import GraphCache
from models.item_paths.paths import Neighbors, Paths

USER_POWERS, ARTIST_POWERS = (0.3, 1.0), (0.5,)
"""Powers of ``Paths``: a user or an artist with many songs says less about two songs that share it."""


@dataclass(frozen=True, eq=False)
class ListenedSongs:
    """Each user's train songs, and the paths from song to song through users and through artists."""

    listens: Neighbors
    users: Paths
    artists: Paths

    @property
    def paths(self) -> tuple[Paths, Paths]:
        """The paths through users, and those through artists."""
        return self.users, self.artists

    @cached_property
    def log_listens(self) -> Tensor:
        """(U,) logarithm of each user's number of songs; 0 if there is none."""
        return torch.from_numpy(self.listens.log_degree)

    @cached_property
    def mean_logs(self) -> tuple[float, float]:
        """The mean of ``log_listens`` over users, and that of ``log_listeners`` over songs."""
        return float(self.log_listens.mean()), float(self.log_listeners.mean())

    @cached_property
    def log_listeners(self) -> Tensor:
        """(S,) logarithm of each song's number of listeners; 0 if there is none."""
        return torch.from_numpy(self.users.middles.log_degree)


_cache: GraphCache[ListenedSongs] = GraphCache()


def listened_songs(graph: HeteroData) -> ListenedSongs:
    """Return the listened songs of a graph's train edges.

    They are built once for each graph; treat a graph as immutable after that.
    """
    return _cache.get(graph) or _cache.set(graph, _build(message_graph(graph) if has_masks(graph) else graph))


def _build(graph: HeteroData) -> ListenedSongs:
    users, songs, artists = (int(graph[kind].num_nodes or 0) if kind in graph.node_types else 0 for kind in NODE_TYPES)
    user, song = graph[LISTENS].edge_index.cpu().numpy()
    made, artist = graph[BY].edge_index.cpu().numpy() if BY in graph.edge_types else np.empty((2, 0), dtype=np.int64)
    return ListenedSongs(
        Neighbors.of(user, song, users),
        Paths.of(song, user, songs, users, USER_POWERS),
        Paths.of(made, artist, songs, artists, ARTIST_POWERS),
    )

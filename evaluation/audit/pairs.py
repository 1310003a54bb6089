"""The user-song pairs of a training graph as sorted numbers: which are train, which are held out."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import LISTENS, MASKS

NEW_USERS = ("new_user_val_index", "new_user_test_index")
RELISTENS = ("relisten_val_index", "relisten_test_index")
KNOWN_LISTS = (*NEW_USERS, *RELISTENS)
"""Lists of pairs, (2, K), that the split itself keeps beside the masks for the evaluation."""


class GraphPairs:
    """What is train and what is held out in a graph with masks.

    A pair is the number user * songs + song. Held out is every pair that is not for training: validation, test, the
    pairs of new users, and those that a gap leaves out; a pair that stands in train too is held out nevertheless.

    Args:
        graph: a training graph with the three masks on its listens.
    """

    def __init__(self, graph: HeteroData) -> None:
        self.num_users, self.num_songs = (int(graph[kind].num_nodes) for kind in ("user", "song"))
        self.store = graph[LISTENS]
        self.edges: Tensor = self.store.edge_index.cpu()
        """(2, E)."""
        self.parts = torch.stack([self.store[mask].cpu() for mask in MASKS])
        """(3, E) the masks."""
        self.keys = self.keys_of(self.edges)
        self.in_train = self.parts[0]
        self.in_held_out = self.parts[1] | self.parts[2] | ~self.parts[0]

    def keys_of(self, pairs: Tensor) -> Tensor:
        """(K,) the number of each pair (2, K)."""
        return pairs[0].cpu() * self.num_songs + pairs[1].cpu()

    def keys_of_known(self, nodes: npt.NDArray[np.int64]) -> Tensor:
        """Sorted numbers of pairs of nodes (2, K), without those of which an end is -1, which the graph lacks."""
        return self.keys_of(torch.from_numpy(nodes[:, (nodes >= 0).all(axis=0)])).unique()

    @cached_property
    def train(self) -> Tensor:
        """Sorted numbers of the train pairs."""
        return self.keys[self.in_train].unique()

    @cached_property
    def new_users(self) -> Tensor:
        """Sorted numbers of the pairs that are kept apart because their user has no train pair."""
        lists = [self.keys_of(self.store[name]) for name in NEW_USERS if name in self.store]
        return torch.cat([self.keys[:0], *lists]).unique()

    @cached_property
    def validation(self) -> Tensor:
        """Sorted numbers of the pairs that choose among epochs and models, and of the new users beside them."""
        apart = [self.keys_of(self.store[NEW_USERS[0]])] if NEW_USERS[0] in self.store else []
        return torch.cat([self.keys[self.parts[1]], *apart]).unique()

    @cached_property
    def held_out(self) -> Tensor:
        """Sorted numbers of the pairs that must not be reached."""
        return torch.cat([self.keys[self.in_held_out], self.new_users]).unique()

    def num_held_out(self, pairs: Tensor) -> int:
        """How many of the pairs (2, K) are held out."""
        return int(contains(self.held_out, self.keys_of(pairs)).sum())


def contains(known: Tensor, wanted: Tensor) -> Tensor:
    """Whether each wanted number is among the sorted ``known`` ones: (K,) bool."""
    if not len(known):
        return torch.zeros_like(wanted, dtype=torch.bool)
    place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    return known[place] == wanted

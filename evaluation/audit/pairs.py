"""The user-song pairs of a training graph as sorted numbers, divided into train and held out."""

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
"""Lists of pairs (2, K) that the split itself writes for the evaluation, in addition to the masks."""


class GraphPairs:
    """The train pairs and the held-out pairs of a graph with masks.

    A pair is the number user * songs + song. Held out are all pairs that are not for training: validation, test, the
    pairs of new users, and those that a gap leaves out. A pair that is both in train and in one of these is held out.

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
        """Return the number (K,) of each pair (2, K)."""
        return pairs[0].cpu() * self.num_songs + pairs[1].cpu()

    def keys_of_known(self, nodes: npt.NDArray[np.int64]) -> Tensor:
        """Return the sorted numbers of the pairs (2, K), without pairs with a -1: the graph lacks that node."""
        return self.keys_of(torch.from_numpy(nodes[:, (nodes >= 0).all(axis=0)])).unique()

    @cached_property
    def train(self) -> Tensor:
        """Sorted numbers of the train pairs."""
        return self.keys[self.in_train].unique()

    @cached_property
    def new_users(self) -> Tensor:
        """Sorted numbers of the pairs of users without a train pair."""
        lists = [self.keys_of(self.store[name]) for name in NEW_USERS if name in self.store]
        return torch.cat([self.keys[:0], *lists]).unique()

    @cached_property
    def validation(self) -> Tensor:
        """Sorted numbers of the validation pairs, which choose among epochs and models, with those of new users."""
        of_new_users = [self.keys_of(self.store[NEW_USERS[0]])] if NEW_USERS[0] in self.store else []
        return torch.cat([self.keys[self.parts[1]], *of_new_users]).unique()

    @cached_property
    def held_out(self) -> Tensor:
        """Sorted numbers of the pairs that training must not reach."""
        return torch.cat([self.keys[self.in_held_out], self.new_users]).unique()

    def num_held_out(self, pairs: Tensor) -> int:
        """Count how many of the pairs (2, K) are held out."""
        return int(contains(self.held_out, self.keys_of(pairs)).sum())


def contains(known: Tensor, wanted: Tensor) -> Tensor:
    """Return (K,) True if a wanted number (K,) is among the sorted numbers ``known``."""
    if not len(known):
        return torch.zeros_like(wanted, dtype=torch.bool)
    place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    return known[place] == wanted

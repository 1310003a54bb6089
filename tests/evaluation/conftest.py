"""A small split graph, written by hand."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import HeteroData

TRAIN, VAL, TEST = 0, 1, 2


def split_graph(pairs: list[tuple[int, int, int]], num_users: int, num_songs: int, masks: bool = True) -> HeteroData:
    """A training graph of (user, song, part) triples."""
    table = torch.tensor(sorted(pairs), dtype=torch.int64).reshape(-1, 3)
    graph = HeteroData()
    for kind, count in (("user", num_users), ("song", num_songs)):
        graph[kind].num_nodes = count
        graph[kind].id_hash = torch.arange(count) * 7919 + 13
    store = graph["user", "listens", "song"]
    store.edge_index = table[:, :2].T.contiguous()
    if masks:
        for name, label in (("train_mask", TRAIN), ("val_mask", VAL), ("test_mask", TEST)):
            store[name] = table[:, 2] == label
    return graph


@pytest.fixture
def graph() -> HeteroData:
    """Five users, six songs; user 3 has no test song, user 4 listens to nothing."""
    pairs = [
        (0, 0, TRAIN), (0, 1, TRAIN), (0, 2, TEST), (0, 3, VAL),
        (1, 0, TRAIN), (1, 3, TEST), (1, 4, TEST),
        (2, 0, TRAIN), (2, 1, TRAIN), (2, 5, TEST),
        (3, 2, TRAIN), (3, 4, VAL),
    ]  # fmt: skip
    return split_graph(pairs, num_users=5, num_songs=6)

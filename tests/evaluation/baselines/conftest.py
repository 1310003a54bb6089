"""Graphs on which the right answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData


def graph_of(heard: np.ndarray, weights: np.ndarray | None = None) -> HeteroData:
    """A graph without masks of who heard what (U, S), with the weights (U, S) where given."""
    graph = HeteroData()
    for kind, count in zip(("user", "song"), heard.shape, strict=True):
        graph[kind].num_nodes = count
    store = graph["user", "listens", "song"]
    store.edge_index = torch.from_numpy(np.stack(np.nonzero(heard)))
    if weights is not None:
        store.weight = torch.from_numpy(weights[np.nonzero(heard)].astype(np.float32))
    return graph


@pytest.fixture(scope="session")
def make_graph_of() -> Callable[..., HeteroData]:
    return graph_of


@pytest.fixture(scope="session")
def checkerboard() -> HeteroData:
    """User u hears each song s with u + s even, but not song u: the only one that is missing from the pattern."""
    row, column = np.indices((40, 40))
    return graph_of(((row + column) % 2 == 0) & (row != column))

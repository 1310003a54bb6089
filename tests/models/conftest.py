"""A listening world with one right answer, in the spirit of implicit's checkerboard."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, REV_BY, REV_LISTENS

USERS, SONGS, ARTISTS = 24, 20, 4


def checkerboard(num_artists: int = ARTISTS, withheld: bool = True) -> HeteroData:
    """Even users hear even songs, odd users odd songs; of each user one song is held out for the test.

    Songs of an artist are all even or all odd. The graph has masks when something is withheld.
    """
    user, song = torch.meshgrid(torch.arange(USERS), torch.arange(SONGS), indexing="ij")
    heard = (user % 2) == (song % 2)
    pairs = torch.stack([user[heard], song[heard]])
    by = torch.stack([torch.arange(SONGS), torch.arange(SONGS) % num_artists]) if num_artists else torch.empty(2, 0)
    graph = HeteroData()
    for kind, count in (("user", USERS), ("song", SONGS), ("artist", num_artists)):
        graph[kind].num_nodes, graph[kind].id_hash = count, torch.arange(count) * 7919
    graph[LISTENS].edge_index, graph[LISTENS].weight = pairs, torch.ones(pairs.shape[1])
    graph[REV_LISTENS].edge_index, graph[REV_LISTENS].weight = pairs.flip(0), torch.ones(pairs.shape[1])
    graph[BY].edge_index, graph[REV_BY].edge_index = by.long(), by.long().flip(0)
    if withheld:
        _withhold(graph, pairs)
    return graph


def _withhold(graph: HeteroData, pairs: torch.Tensor) -> None:
    """User u keeps back the song number u of those heard: the test edge."""
    user, song = pairs
    test = song // 2 == user % (SONGS // 2)
    graph[LISTENS].test_mask, graph[LISTENS].val_mask = test, torch.zeros_like(test)
    graph[LISTENS].train_mask = ~test


@pytest.fixture
def make_checkerboard():
    return checkerboard


@pytest.fixture
def board() -> HeteroData:
    return checkerboard()


@pytest.fixture
def sizes():
    """The three counts of a graph, as ``model_config`` has them."""
    return lambda graph: {f"num_{kind}s": graph[kind].num_nodes for kind in ("user", "song", "artist")}

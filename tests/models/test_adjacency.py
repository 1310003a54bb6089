"""The one matrix of a graph against a naive one."""

from __future__ import annotations

import gc
import weakref

import torch

from data.graph import BY, LISTENS, message_graph
from models.adjacency import RELATIONS, adjacency
from models.neighbors import neighbor_sum

CPU = torch.device("cpu")


def test_matrix_has_each_train_edge_twice_and_offsets_in_place(board):
    users, songs = board["user"].num_nodes, board["song"].num_nodes
    edges = adjacency(message_graph(board), CPU)
    expected = {}
    for user, song in message_graph(board)[LISTENS].edge_index.T.tolist():
        expected[user, users + song] = "listens"
        expected[users + song, user] = "rev_listens"
    for song, artist in board[BY].edge_index.T.tolist():
        expected[users + song, users + songs + artist] = "by"
        expected[users + songs + artist, users + song] = "rev_by"
    ends = zip(edges.source.tolist(), edges.target.tolist(), strict=True)
    assert dict(zip(ends, (RELATIONS[r] for r in edges.relation.tolist()), strict=True)) == expected


def test_reverse_points_at_the_reverse_edge(board):
    edges = adjacency(message_graph(board), CPU)
    assert torch.equal(edges.source[edges.reverse], edges.target)
    assert torch.equal(edges.target[edges.reverse], edges.source)


def test_neighbor_sum_passes_a_numerical_gradient_check(board):
    edges = adjacency(message_graph(board), CPU)
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(len(edges.source), 2, generator=generator, dtype=torch.float64, requires_grad=True)
    x = torch.randn(edges.num_nodes, 2, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, v: neighbor_sum(edges, w, v), (weight, x), fast_mode=True)


def test_a_graph_is_prepared_once_and_let_go(board):
    seen = message_graph(board)
    edges = adjacency(seen, CPU)
    assert adjacency(seen, CPU) is edges
    gone = weakref.ref(edges)
    del edges, seen
    gc.collect()
    assert gone() is None

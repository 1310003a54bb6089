"""The one matrix of a graph against a naive one."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from data.graph import BY, LISTENS, message_graph
from models.graph.adjacency import RELATIONS, adjacency
from models.graph.aggregation import neighbor_sum

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


def ends_of(edges, users, kept):
    """User-song pairs behind the edges at which ``kept`` is true, one for each direction."""
    ends = torch.stack([edges.source, edges.target])[:, kept & (edges.relation < 2)].sort(0).values
    return sorted((user, node - users) for user, node in ends.T.tolist())


def test_without_leaves_out_both_directions_of_the_pairs_and_nothing_else(board):
    seen, users = message_graph(board), board["user"].num_nodes
    edges, pairs = adjacency(seen, CPU), seen[LISTENS].edge_index
    chosen = pairs[:, [7, 0, -1, 7, 30]]  # in any order, and one of them twice
    keep = edges.mask_without(chosen, users)
    assert set(keep.tolist()) == {0.0, 1.0}
    assert ends_of(edges, users, keep == 0) == sorted(2 * [tuple(pair) for pair in pairs[:, [0, -1, 7, 30]].T.tolist()])
    assert (keep[edges.relation >= 2] == 1).all()


def test_without_no_pairs_keeps_all(board):
    edges = adjacency(message_graph(board), CPU)
    assert (edges.mask_without(torch.empty(2, 0, dtype=torch.long), board["user"].num_nodes) == 1).all()


# an even user hears no odd song, song 0 of user 0 is held out; user 44 is artist 0, whose song 0 is
NO_EDGES = [(0, 1), (0, 0), (23, 0), (23, 18), (0, 20), (0, 10**6), (24, 0), (44, 0), (-1, 1), (0, -1), (10**6, 2)]


@pytest.mark.parametrize("pair", NO_EDGES)
def test_without_a_pair_that_is_no_edge_changes_nothing_more(board, pair):
    seen, users = message_graph(board), board["user"].num_nodes
    edges, pairs = adjacency(seen, CPU), seen[LISTENS].edge_index[:, :3]
    assert torch.equal(
        edges.mask_without(torch.cat([pairs, torch.tensor([pair]).T], 1), users), edges.mask_without(pairs, users)
    )


def test_without_a_pair_of_a_graph_that_has_no_edges(make_checkerboard):
    empty = message_graph(make_checkerboard(num_artists=0, withheld=False))
    empty[LISTENS].edge_index, empty[LISTENS].weight = torch.empty(2, 0, dtype=torch.long), torch.empty(0)
    assert len(adjacency(empty, CPU).mask_without(torch.zeros(2, 1, dtype=torch.long), 24)) == 0


def test_a_graph_is_prepared_once_and_let_go(board):
    seen = message_graph(board)
    edges = adjacency(seen, CPU)
    assert adjacency(seen, CPU) is edges
    gone = weakref.ref(edges)
    del edges, seen
    gc.collect()
    assert gone() is None

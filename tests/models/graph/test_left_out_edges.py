"""``encode_without``: the edges of a batch's own pairs carry no message."""

from __future__ import annotations

import pytest
import torch

from data.graph import BY, LISTENS, message_graph
from models.architectures import MODELS
from models.factory import create_model
from models.graph.adjacency import adjacency

CPU = torch.device("cpu")

MODELS_OF_MESSAGES = {
    "gat": {"architecture": "gat", "local": False, "heads": 2},
    "gat with a local channel": {"architecture": "gat", "local": True, "heads": 2},
    "lightgcn": {"architecture": "lightgcn"},
}


@pytest.fixture(params=MODELS_OF_MESSAGES)
def model(request, board, sizes):
    """In evaluation, so that nothing is dropped at random, and with other attention than it starts with."""
    model = create_model({**MODELS_OF_MESSAGES[request.param], **sizes(board), "embedding_dim": 8}).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "table":
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def seen(board):
    """Train edges of the checkerboard; each listen has a confidence of its own."""
    board[LISTENS].weight = torch.linspace(0.2, 3.0, len(board[LISTENS].weight))
    return message_graph(board)


def pairs_of_user(seen, user):
    pairs = seen[LISTENS].edge_index
    return pairs[:, pairs[0] == user]


def gradient_at(model, vectors):
    """Of some vectors at the table: (N, D); which nodes they were made from."""
    factors = torch.arange(vectors.numel(), dtype=vectors.dtype).add(1).cos().view_as(vectors)
    return torch.autograd.grad((vectors * factors).sum(), model.table)[0]


def dense_vectors(model, seen, left_out):
    """Average of the layers of dense products, the entries of left-out pairs being zero in both directions."""
    edges, x = adjacency(seen, CPU), model.table
    users, total = model.config.num_users, model.table
    gone = {(user, users + song) for user, song in left_out.T.tolist()}
    ends = list(zip(edges.target.tolist(), edges.source.tolist(), strict=True))
    kept = torch.tensor([end not in gone and end[::-1] not in gone for end in ends])
    layers = getattr(model, "layers", None) or [None] * model.num_layers
    for layer in layers:
        h = x.view(len(x), 1 if layer is None else layer.heads, -1)
        weight = edges.symmetric_norm()[:, None] if layer is None else layer.edge_weights(h, edges)
        matrix = torch.zeros(h.shape[1], len(x), len(x))
        matrix[:, edges.target.long(), edges.source.long()] = (weight * kept[:, None]).T
        x = torch.einsum("hij,jhc->ihc", matrix, h).reshape(x.shape)
        total = total + x
    return total / (len(layers) + 1)


def test_vectors_are_those_of_matrices_without_the_pairs(model, seen):
    pairs = seen[LISTENS].edge_index[:, ::5]
    ours, theirs = model.node_vectors(seen, pairs), dense_vectors(model, seen, pairs)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert torch.allclose(gradient_at(model, ours), gradient_at(model, theirs), atol=1e-5)
    assert not torch.allclose(ours, model.node_vectors(seen), atol=1e-3)


def test_a_user_whose_edges_are_all_left_out_is_made_from_the_own_row_alone(model, seen):
    made_from = gradient_at(model, model.encode_without(seen, pairs_of_user(seen, 4)).user[4])
    assert made_from[4].abs().sum() > 0
    assert made_from.abs().sum() == made_from[4].abs().sum()
    assert gradient_at(model, model.encode(seen).user[4]).count_nonzero() > 8


def test_nothing_is_made_from_a_user_whose_edges_are_all_left_out(model, seen):
    found = model.encode_without(seen, pairs_of_user(seen, 4))
    others = torch.cat([found.user[:4], found.user[5:], found.song])
    assert (gradient_at(model, others)[4] == 0).all()
    assert (gradient_at(model, model.encode(seen).song)[4] != 0).all()


def test_the_confidence_of_left_out_edges_does_not_count(model, seen):
    left_out = torch.arange(0, seen[LISTENS].edge_index.shape[1], 3)
    other, pairs = message_graph(seen), seen[LISTENS].edge_index[:, left_out]
    other[LISTENS].weight[left_out] = 7.0
    for ours, theirs in zip(model.encode_without(seen, pairs), model.encode_without(other, pairs), strict=True):
        assert torch.equal(ours, theirs)
    if hasattr(model, "layers"):
        assert not torch.allclose(model.encode(seen).user, model.encode(other).user)


def test_all_listens_left_out_leave_the_artists(model, seen):
    pairs = seen[LISTENS].edge_index
    made_from = gradient_at(model, model.encode_without(seen, pairs).song[6]).abs().sum(1).nonzero().flatten()
    users, songs = model.config.num_users, model.config.num_songs
    by = seen[BY].edge_index
    artist = by[1, by[0] == 6]
    assert set(made_from.tolist()) == {
        *(users + by[0, by[1] == artist]).tolist(),
        *(users + songs + artist).tolist(),
    }


def test_no_pairs_left_out_is_encode(model, seen):
    none = torch.empty(2, 0, dtype=torch.long)
    for ours, theirs in zip(model.encode_without(seen, none), model.encode(seen), strict=True):
        assert torch.equal(ours, theirs)


def test_the_graph_and_the_next_encoding_are_left_alone(model, seen):
    before = model.encode(seen)
    model.encode_without(seen, pairs_of_user(seen, 0))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.encode(seen), before, strict=True))


def test_a_held_out_pair_has_no_message_to_leave_out(model, board, seen):
    test_pairs = board[LISTENS].edge_index[:, board[LISTENS].test_mask]
    found, expected = model.encode_without(seen, test_pairs), model.encode(seen)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_dropout_and_left_out_edges_go_together(model, seen):
    model.train()
    found = gradient_at(model, model.encode_without(seen, pairs_of_user(seen, 4)).song)
    assert (found[4] == 0).all()
    assert found.count_nonzero() > 0


@pytest.mark.parametrize("architecture", sorted(MODELS))
def test_penalties_are_those_of_the_pairs_whatever_is_left_out(architecture, board, sizes, seen):
    model = create_model({"architecture": architecture, **sizes(board), "embedding_dim": 8}).eval()
    users, songs = pairs = seen[LISTENS].edge_index[:, :9]
    expected = sum(model.table[row].square().sum() for row in [*users, *(model.config.num_users + songs)])
    before = model.penalty(users, songs)
    model.encode_without(seen, pairs)
    assert torch.allclose(before, expected)
    assert torch.equal(model.penalty(users, songs), before)

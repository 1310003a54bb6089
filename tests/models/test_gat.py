"""The attention layer: its start, its fast path against PyG's own, and what it learns from."""

from __future__ import annotations

import pytest
import torch

from data.errors import InputError
from data.graph import LISTENS, message_graph
from models.factory import create_model
from models.gat import DegreeAttention
from models.graph.adjacency import RELATIONS, adjacency

CPU = torch.device("cpu")


def randomise(layer: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def outputs_and_gradients(layer, x, edges):
    x = x.clone().requires_grad_()
    layer.zero_grad()
    out = layer(x, edges)
    (out * torch.arange(out.numel(), dtype=out.dtype).view_as(out).cos()).sum().backward()
    return [out.detach(), x.grad, *(parameter.grad.clone() for parameter in layer.parameters())]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_fast_path_equals_message_passing(board, dtype, tolerance):
    board[LISTENS].weight = torch.linspace(0.1, 3.0, len(board[LISTENS].weight))
    edges, layer = adjacency(message_graph(board), CPU), DegreeAttention(8, heads=2).to(dtype)
    randomise(layer)
    x = torch.randn(edges.num_nodes, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    layer.fuse = True
    fast = outputs_and_gradients(layer, x, edges)
    layer.fuse = False
    reference = outputs_and_gradients(layer, x, edges)
    for ours, theirs in zip(fast, reference, strict=True):
        assert torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item())


def test_attention_starts_as_symmetric_degree_normalisation(board):
    edges, layer = adjacency(message_graph(board), CPU), DegreeAttention(8, heads=2)
    weights = layer.edge_weights(torch.randn(edges.num_nodes, 2, 4), edges)
    assert torch.allclose(weights, edges.symmetric_norm()[:, None].expand(-1, 2))


def test_before_training_gat_is_lightgcn(board, sizes):
    attention = create_model({**sizes(board), "architecture": "gat"}).eval()
    average = create_model({**sizes(board), "architecture": "lightgcn"}).eval()
    seen = message_graph(board)
    for ours, theirs in zip(attention.encode(seen), average.encode(seen), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_confidence_is_read(board, sizes):
    model, plain = create_model(sizes(board)).eval(), message_graph(board)
    with torch.no_grad():
        model.layers[0].confidence_power += 1.0
    sure = message_graph(board)
    sure[LISTENS].weight = sure[LISTENS].weight * torch.linspace(0.2, 3.0, len(sure[LISTENS].weight))
    assert not torch.allclose(model.encode(plain).user, model.encode(sure).user)


def test_zero_confidence_gives_finite_vectors(board, sizes):
    seen = message_graph(board)
    seen[LISTENS].weight = torch.zeros_like(seen[LISTENS].weight)
    assert torch.isfinite(create_model(sizes(board)).eval().encode(seen).song).all()


@pytest.mark.parametrize(
    ("dim", "heads", "fitting"), [(30, 4, "1, 2, 3, 5, 6"), (36, 8, "1, 2, 3, 4, 6"), (31, 2, "1"), (1, 4, "1")]
)
def test_heads_that_do_not_divide_the_channels_are_told_which_do(board, sizes, dim, heads, fitting):
    with pytest.raises(InputError, match=f"heads is {heads}: does not divide .* {dim}; choose .* example {fitting}\\."):
        create_model({**sizes(board), "embedding_dim": dim, "heads": heads})


def test_each_relation_has_its_own_attention(board):
    edges, layer = adjacency(message_graph(board), CPU), DegreeAttention(8, heads=2)
    h = torch.randn(edges.num_nodes, 2, 4)
    before = layer.edge_weights(h, edges)
    for number in range(len(RELATIONS)):
        with torch.no_grad():
            layer.bias[number] += 1.0
        changed = (layer.edge_weights(h, edges) != before).any(dim=1)
        assert torch.equal(changed, edges.relation == number)
        with torch.no_grad():
            layer.bias[number] -= 1.0

"""The compiled loops against the reference: values, gradients, threads, and what they need."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, message_graph
from models.factory import create_model
from models.gat import DegreeAttention
from models.graph.adjacency import Adjacency, adjacency
from models.graph.aggregation import EdgeFactors, has_kernels, neighbor_sum

CHECKOUT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}


def random_graph(users: int, songs: int, artists: int, listens: int, seed: int) -> HeteroData:
    """Any listens, the same one never twice, of any confidence; nodes without edges are likely."""
    draw = np.random.default_rng(seed)
    pairs = draw.permutation(users * songs)[: min(listens, users * songs)]
    made = draw.permutation(songs)[: draw.integers(songs + 1)] if artists else np.zeros(0, dtype=np.int64)
    by = np.stack([made, draw.integers(max(artists, 1), size=len(made))])
    graph = HeteroData()
    for kind, count in (("user", users), ("song", songs), ("artist", artists)):
        graph[kind].num_nodes = count
    graph[LISTENS].edge_index = torch.from_numpy(np.stack([pairs // songs, pairs % songs]))
    graph[LISTENS].weight = torch.from_numpy(draw.gamma(1.0, size=len(pairs))).float()
    graph[BY].edge_index = torch.from_numpy(by)
    return graph


def random_layer(channels: int, heads: int, dtype: torch.dtype, seed: int) -> DegreeAttention:
    generator, layer = torch.Generator().manual_seed(seed), DegreeAttention(channels, heads).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    return layer


def outputs_and_gradients(layer, x, edges, seed=0, **options):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # what draws the dropout
        out = layer(x, edges, **options)
    (out * torch.arange(out.numel(), dtype=out.dtype).view_as(out).cos()).sum().backward()
    return [out.detach(), x.grad, *(parameter.grad.clone() for parameter in layer.parameters())]


def vectors(edges: Adjacency, channels: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(edges.num_nodes, channels, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_same(ours, theirs, dtype):
    for one, other in zip(ours, theirs, strict=True):
        scale = other.abs().max().item() if other.numel() else 0.0
        assert torch.allclose(one, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * max(scale, 1e-3))


graphs = st.builds(
    random_graph,
    users=st.integers(1, 30),
    songs=st.integers(1, 40),
    artists=st.integers(0, 5),
    listens=st.integers(1, 700),
    seed=st.integers(0, 2**32 - 1),
)


@settings(max_examples=40, deadline=None)
@given(
    graph=graphs,
    shape=st.sampled_from([(4, 1), (6, 2), (12, 3), (32, 4), (40, 1), (64, 4)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    dropout=st.sampled_from([0.0, 0.0, 0.4]),
    kept=st.sampled_from([None, 0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_kernels_equal_message_passing(graph, shape, dtype, dropout, kept, seed):
    edges, layer = adjacency(graph, CPU), random_layer(*shape, dtype, seed)
    keep = None
    if kept is not None:
        drawn = torch.rand(len(edges.source), generator=torch.Generator().manual_seed(seed))
        keep = torch.where(drawn < kept, 2 * drawn, 0).to(dtype)
    x = vectors(edges, shape[0], dtype)
    layer.fuse = True
    fused = outputs_and_gradients(layer, x, edges, seed, dropout=dropout, keep=keep)
    layer.fuse = False
    assert_same(fused, outputs_and_gradients(layer, x, edges, seed, dropout=dropout, keep=keep), dtype)


@pytest.mark.parametrize("fuse", [True, False])
def test_attention_passes_a_numerical_gradient_check(fuse):
    edges = adjacency(random_graph(5, 7, 2, 18, seed=1), CPU)
    layer = random_layer(4, 2, torch.float64, seed=2).eval()
    layer.fuse = fuse
    keep = torch.linspace(0, 1.5, len(edges.source), dtype=torch.float64)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def function(x, *given):
        return torch.func.functional_call(layer, dict(zip(names, given, strict=True)), (x, edges, 0.0, keep))

    assert torch.autograd.gradcheck(function, (vectors(edges, 4, torch.float64).requires_grad_(), *parameters))


def test_scores_out_of_bounds_have_no_gradient():
    edges, layer = adjacency(random_graph(6, 8, 2, 30, seed=3), CPU), random_layer(4, 2, torch.float64, seed=0)
    with torch.no_grad():
        layer.bias[0] += 50.0
        layer.bias[1] -= 50.0
    x = vectors(edges, 4, torch.float64)
    fused = outputs_and_gradients(layer, x, edges)
    layer.fuse = False
    assert_same(fused, outputs_and_gradients(layer, x, edges), torch.float64)
    assert (layer.bias.grad[:2] == 0).all()


def test_an_edge_kept_at_zero_is_as_if_it_were_not_there():
    graph = random_graph(10, 12, 0, 50, seed=4)
    edges, layer = adjacency(graph, CPU), random_layer(8, 2, torch.float64, seed=4)
    with torch.no_grad():
        layer.source_power.zero_(), layer.target_power.zero_()  # so that the degrees, which stay, are not read
    without = HeteroData({kind: {"num_nodes": graph[kind].num_nodes} for kind in ("user", "song", "artist")})
    without[LISTENS].edge_index, without[LISTENS].weight = graph[LISTENS].edge_index[:, 1:], graph[LISTENS].weight[1:]
    user, song = graph[LISTENS].edge_index[:, 0]
    song = song + 10
    gone = (edges.source == user) & (edges.target == song) | (edges.source == song) & (edges.target == user)
    x = vectors(edges, 8, torch.float64)
    kept = layer(x, edges, keep=(~gone).double())
    assert gone.sum() == 2
    assert torch.allclose(kept, layer(x, adjacency(without, CPU)), atol=1e-12)


def test_dropout_leaves_out_its_share_and_keeps_the_mean():
    factors = EdgeFactors(dropout=0.3, seed=123456789)
    weight = factors.apply(torch.ones(50_000, 4))
    assert (weight == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert weight.mean().item() == pytest.approx(1.0, abs=0.01)
    other = EdgeFactors(dropout=0.3, seed=987654321).apply(torch.ones(50_000, 4))
    assert ((weight == 0) & (other == 0)).float().mean().item() == pytest.approx(0.09, abs=0.005)


def with_threads(number: int, call):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        return call()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_number_of_threads_changes_no_bit(dtype):
    edges, layer = adjacency(random_graph(300, 400, 20, 20_000, seed=5), CPU), random_layer(64, 4, dtype, seed=5)
    x = vectors(edges, 64, dtype)
    results = [with_threads(n, lambda: outputs_and_gradients(layer, x, edges, dropout=0.2)) for n in (1, 2, 7)]
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_python_threads_may_call_at_once():
    edges, layer = adjacency(random_graph(300, 400, 20, 20_000, seed=6), CPU), random_layer(64, 4, torch.float32, 6)
    x, found = vectors(edges, 64, torch.float32), {}

    def work(number):
        with torch.no_grad():
            found[number] = [layer(x, edges) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    with_threads(2, lambda: ([thread.start() for thread in threads], [thread.join() for thread in threads]))
    assert len(found) == 4
    assert all(torch.equal(found[0][0], out) for outs in found.values() for out in outs)


def test_no_tensor_of_edges_by_channels_is_made():
    edges, layer = adjacency(random_graph(200, 300, 10, 30_000, seed=7), CPU), random_layer(64, 4, torch.float32, 7)
    x = vectors(edges, 64, torch.float32).requires_grad_()
    layer(x, edges, dropout=0.1).sum().backward()  # compiled and prepared
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        layer(x, edges, dropout=0.1).sum().backward()
    largest = max(event.self_cpu_memory_usage for event in watched.events())
    assert 0 < largest < len(edges.source) * 64 * 4 / 4


@settings(max_examples=20, deadline=None)
@given(graph=graphs, shape=st.sampled_from([(1, 8), (2, 5), (4, 16)]), dtype=st.sampled_from(list(TOLERANCE)))
def test_neighbor_sum_equals_a_dense_product(graph, shape, dtype):
    edges, generator = adjacency(graph, CPU), torch.Generator().manual_seed(0)
    weight = torch.rand(len(edges.source), shape[0], generator=generator, dtype=dtype).requires_grad_()
    x = torch.randn(edges.num_nodes, *shape, generator=generator, dtype=dtype).requires_grad_()
    up = torch.randn(edges.num_nodes, *shape, generator=generator, dtype=dtype)
    dense = torch.zeros(edges.num_nodes, edges.num_nodes, shape[0], dtype=dtype)
    dense = dense.index_put((edges.target, edges.source), weight)
    expected = torch.einsum("ijh,jhc->ihc", dense, x)
    out = neighbor_sum(edges, weight, x)
    ours = [out, *torch.autograd.grad(out, (weight, x), up)]
    assert_same(ours, [expected, *torch.autograd.grad(expected, (weight, x), up)], dtype)


def test_lightgcn_learns_through_the_kernels(board, sizes):
    model = create_model({**sizes(board), "architecture": "lightgcn", "dropout": 0.0}).double()
    edges = adjacency(message_graph(board), CPU)
    assert has_kernels(model.table)
    weight = torch.zeros(edges.num_nodes, edges.num_nodes, dtype=torch.float64)
    weight[edges.target, edges.source] = edges.symmetric_norm().double()
    table = model.table.detach().clone().requires_grad_()
    expected = (table + weight @ table + weight @ (weight @ table)) / 3
    out = model.node_vectors(message_graph(board))
    assert_same([out, *torch.autograd.grad(out.square().sum(), model.table)],
                [expected, *torch.autograd.grad(expected.square().sum(), table)], torch.float64)  # fmt: skip


@pytest.mark.parametrize(("name", "rows"), [("x", 3), ("keep", 5)])
def test_what_is_not_of_the_graphs_size_is_refused(board, name, rows):
    edges, layer = adjacency(message_graph(board), CPU), DegreeAttention(8, heads=2)
    x, keep = vectors(edges, 8, torch.float32), torch.ones(len(edges.source))
    needed = edges.num_nodes if name == "x" else len(edges.source)
    with pytest.raises(ValueError, match=f"{name} has {rows} rows; this graph needs {needed}"):
        layer(x[:rows] if name == "x" else x, edges, keep=keep[:rows] if name == "keep" else keep)


def run(code: str, **environment: str) -> str:
    variables = {**os.environ, **environment}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=CHECKOUT, env=variables, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("locators", ["", "IPythonCacheLocator"])
def test_kernels_run_whether_or_not_there_is_a_folder_for_their_cache(tmp_path, locators):
    """The one locator is for notebooks: as if no other had found a folder that can be written to."""
    code = """
import numpy as np
from models.kernels.attention import Edges, sum_neighbors
index = np.array([1, 0], dtype=np.uint32)
edges = Edges(np.array([0, 2]), np.array([0, 1, 2], dtype=np.int32), index, index[::-1].copy(), index)
out = np.zeros((2, 1, 4))
sum_neighbors(0, 1, edges, np.full((2, 1), 3.0), np.ones((2, 1, 4)), out)
print(out.sum())
"""
    assert run(code, NUMBA_CACHE_LOCATOR_CLASSES=locators, NUMBA_CACHE_DIR=str(tmp_path)) == "24.0"
    assert any(tmp_path.rglob("*.nbc")) == (not locators)

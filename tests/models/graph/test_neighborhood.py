"""Sampled neighbourhoods: which edges are drawn, what their sums estimate, and what a step holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS
from models.factory import create_model
from models.graph.adjacency import adjacency
from models.graph.neighborhood import NeighborSampler, random_subsets, sample_edges
from trainers.config import TrainingConfig
from trainers.objective import PairObjective

CPU = torch.device("cpu")
ARCHITECTURES = ("gat", "lightgcn")


def random_graph(users: int, songs: int, artists: int, listens: int, seed: int) -> HeteroData:
    """Different listens of any confidence, an artist for each song; nodes without listens are likely."""
    draw = np.random.default_rng(seed)
    pairs = torch.from_numpy(draw.choice(users * songs, size=min(listens, users * songs), replace=False))
    graph = HeteroData()
    for kind, count in (("user", users), ("song", songs), ("artist", artists)):
        graph[kind].num_nodes = count
    graph[LISTENS].edge_index = torch.stack([pairs // songs, pairs % songs])
    graph[LISTENS].weight = torch.from_numpy(draw.gamma(1.0, size=len(pairs))).float()
    graph[BY].edge_index = torch.stack([torch.arange(songs), torch.from_numpy(draw.integers(artists, size=songs))])
    return graph


def build(graph: HeteroData, architecture: str, **keys: Any):
    """A model in double precision whose parameters are not those that training starts from."""
    counts = {f"num_{kind}s": graph[kind].num_nodes for kind in ("user", "song", "artist")}
    local = {"local": False} if architecture == "gat" else {}
    model = create_model({**counts, "architecture": architecture, "embedding_dim": 8, "dropout": 0.0, **local, **keys})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.double()


def left_out(graph: HeteroData, pairs: torch.Tensor):
    songs = graph["song"].num_nodes
    keys = pairs[0] * songs + pairs[1]
    return lambda user, song: torch.isin(user * songs + song, keys)


def nothing(users: torch.Tensor, songs: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(users), dtype=torch.bool)


def sampler(*fan_out: int, seed: int = 0, without=nothing) -> NeighborSampler:
    return NeighborSampler(fan_out, torch.Generator().manual_seed(seed), without)


graphs = st.builds(
    random_graph,
    users=st.integers(1, 12),
    songs=st.integers(1, 12),
    artists=st.integers(1, 3),
    listens=st.integers(1, 80),
    seed=st.integers(0, 99),
)


@given(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=8), count=st.integers(1, 20), seed=st.integers(0, 99))
def test_a_subset_has_different_numbers_below_its_size(sizes, count, seed):
    sizes = torch.tensor(sizes) + count
    chosen = random_subsets(sizes, count, torch.Generator().manual_seed(seed))
    assert chosen.shape == (len(sizes), count)
    assert (chosen >= 0).all()
    assert (chosen < sizes[:, None]).all()
    assert (chosen.diff(dim=1) > 0).all()


def test_every_subset_is_as_likely():
    draws = 60_000
    chosen = random_subsets(torch.full((draws,), 5), 3, torch.Generator().manual_seed(0))
    _, counts = chosen.unique(dim=0, return_counts=True)
    expected = draws / 10  # 5 choose 3
    assert len(counts) == 10
    assert (counts - expected).square().sum() / expected < 27.9  # chi-square, 9 degrees of freedom, p = 0.001


@settings(deadline=None)
@given(graph=graphs, most=st.integers(1, 12), seed=st.integers(0, 99))
def test_each_row_has_as_many_of_its_own_edges_as_it_may(graph, most, seed):
    edges = adjacency(graph, CPU)
    rows = torch.arange(edges.num_nodes)[seed % 2 :: 2]
    drawn = sample_edges(edges, rows, most, torch.Generator().manual_seed(seed))
    assert len(drawn.edge.unique()) == len(drawn.edge)
    found = torch.bincount(edges.target[drawn.edge].long(), minlength=edges.num_nodes)
    assert torch.equal(found[rows], edges.degree[rows].clamp(max=most))
    assert found.sum() == found[rows].sum()
    size = edges.degree[edges.target[drawn.edge].long()]
    assert torch.allclose(drawn.factor, size.double() / size.clamp(max=most))


@settings(deadline=None, max_examples=25)
@given(graph=graphs, architecture=st.sampled_from(ARCHITECTURES), data=st.data())
def test_a_fan_out_beyond_every_degree_gives_the_full_vectors_and_gradients(graph, architecture, data):
    model, pairs = build(graph, architecture), graph[LISTENS].edge_index
    silent = pairs[:, data.draw(st.integers(1, 4)) :: 2]
    users = torch.tensor(data.draw(st.lists(st.integers(0, graph["user"].num_nodes - 1), min_size=1, max_size=5)))
    songs = torch.tensor(data.draw(st.lists(st.integers(0, graph["song"].num_nodes - 1), min_size=1, max_size=5)))
    some = model.encode_some(graph, users, songs, sampler(99, 99, without=left_out(graph, silent)))
    full = model.encode_without(graph, silent)
    ours, theirs = (torch.cat([vectors.of_users(users), vectors.of_songs(songs)]) for vectors in (some, full))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    weight = torch.arange(ours.numel()).view_as(ours).cos()
    parameters = list(model.parameters())
    for mine, its in zip(
        torch.autograd.grad((ours * weight).sum(), parameters),
        torch.autograd.grad((theirs * weight).sum(), parameters),
        strict=True,
    ):
        assert torch.allclose(mine, its, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("silent", [False, True])
def test_sampled_sums_are_unbiased(silent):
    # lightgcn is linear, so its vectors before their length is scaled are estimates without bias too
    graph = random_graph(users=8, songs=9, artists=2, listens=40, seed=3)
    model, pairs = build(graph, "lightgcn"), graph[LISTENS].edge_index[:, ::3]
    edges, seeds = adjacency(graph, CPU), torch.tensor([0, 5, 8, 12])
    without = left_out(graph, pairs) if silent else nothing
    one = sampler(2, 3, without=without)
    with torch.no_grad():
        draws = torch.stack([model.sampled_vectors(one.neighborhood(edges, 8, seeds)) for _ in range(500)])
        exact = model.node_vectors(graph, pairs if silent else None)[seeds]
    error = draws.std(0) / len(draws) ** 0.5
    assert draws.std(0).max() > 0.05
    assert ((draws.mean(0) - exact).abs() <= 5 * error + 1e-12).all()


def test_an_edge_that_is_left_out_carries_no_message():
    graph = random_graph(users=6, songs=40, artists=2, listens=120, seed=0)
    model, pairs = build(graph, "lightgcn", similarity="dot"), graph[LISTENS].edge_index
    user = torch.tensor([2])
    own = pairs[:, pairs[0] == 2]
    some = model.encode_some(graph, user, own[1], sampler(3, 3, without=left_out(graph, own)))
    assert torch.allclose(some.of_users(user), model.table[user] / 3)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_compiled_sums_over_a_sample_equal_the_reference(dropout):
    graph = random_graph(users=30, songs=30, artists=4, listens=400, seed=1)
    model, found = build(graph, "gat", dropout=dropout), []
    near = sampler(3, 2).neighborhood(adjacency(graph, CPU), 30, torch.arange(0, 60, 7))
    for fuse in (True, False):
        for layer in model.layers:
            layer.fuse = fuse
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # what draws the dropout
            out = model.sampled_vectors(near)
        weight = torch.arange(out.numel()).view_as(out).cos()
        found.append([out, *torch.autograd.grad((out * weight).sum(), list(model.parameters()))])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-10)


def test_the_same_generator_draws_the_same():
    graph = random_graph(users=20, songs=20, artists=2, listens=200, seed=0)
    model, users, songs = build(graph, "gat"), torch.tensor([1, 2]), torch.tensor([3])
    first, again, other = (
        model.encode_some(graph, users, songs, sampler(2, 2, seed=seed)).of_users(users) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


class Allocations(TorchDispatchMode):
    """Counts the numbers in all tensors that are made."""

    def __init__(self, uncounted: torch.Size) -> None:
        super().__init__()
        self.uncounted, self.total, self.rows = uncounted, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.shape != self.uncounted:
                self.total += tensor.numel()
                self.rows = max(self.rows, *tensor.shape, 0)
        return out


def allocations_of_a_step(architecture: str, scale: int) -> Allocations:
    """Of a forward and backward pass from 20 users and 20 songs, the table's gradient not counted."""
    graph = random_graph(users=scale, songs=scale, artists=scale // 10, listens=8 * scale, seed=0)
    model = build(graph, architecture)
    adjacency(graph, CPU).log_degree  # noqa: B018 (kept with the graph)
    seeds = torch.randperm(scale, generator=torch.Generator().manual_seed(0))[:20]
    with Allocations(model.table.shape) as made:
        some = model.encode_some(graph, seeds, seeds, sampler(4, 3))
        (some.vectors.user * some.vectors.song).sum().backward()
    assert model.table.grad.abs().sum() > 0
    return made


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_a_step_holds_does_not_grow_with_the_graph(architecture):
    small, large = (allocations_of_a_step(architecture, scale) for scale in (2_000, 40_000))
    assert large.rows < 4_000
    assert large.total < 1.3 * small.total


def numbers_made_by_a_loss(architecture: str, scale: int) -> int:
    graph = random_graph(users=scale, songs=scale, artists=scale // 10, listens=8 * scale, seed=0)
    model, generator = build(graph, architecture), torch.Generator().manual_seed(0)
    objective = PairObjective(TrainingConfig(num_neighbors=[4, 3], num_negatives=64))
    pairs = graph[LISTENS].edge_index[:, :: 8 * scale // 50]
    objective.loss(model, graph, *pairs, generator)  # what is kept with the graph
    with Allocations(model.table.shape) as made:
        objective.loss(model, graph, *pairs, generator).backward()
    return made.total


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_a_loss_holds_hardly_grows_with_the_graph(architecture):
    # a permutation of the songs is drawn to choose the negatives
    assert numbers_made_by_a_loss(architecture, 40_000) - 40_000 < 1.3 * numbers_made_by_a_loss(architecture, 2_000)

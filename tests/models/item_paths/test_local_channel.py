"""The local channel while it learns: against a dense reference in double precision, and what a score may depend on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, REV_BY, REV_LISTENS
from models.item_paths.listened_songs import ARTIST_POWERS, USER_POWERS, ListenedSongs, listened_songs
from models.item_paths.local_channel import PARAMETER_SCALE, LocalChannel, _ListenedSums
from models.item_paths.paths import Neighbors, Paths
from models.kernels.path_counts import HIGH, LOW

Pairs = set[tuple[int, int]]

fast = settings(max_examples=40, deadline=None)


class World(NamedTuple):
    """A graph as sets, the vectors' similarity (U, S), and a channel whose parameters are not those it starts with."""

    users: int
    songs: int
    artists: int
    listens: Pairs
    by: Pairs
    similarity: Tensor
    channel: LocalChannel

    @property
    def known(self) -> ListenedSongs:
        return listened_songs(self.graph())

    def graph(self) -> HeteroData:
        graph = HeteroData()
        for kind, count in (("user", self.users), ("song", self.songs), ("artist", self.artists)):
            graph[kind].num_nodes = count
        for edges, reverse, pairs in ((LISTENS, REV_LISTENS, self.listens), (BY, REV_BY, self.by)):
            graph[edges].edge_index = columns(pairs)
            graph[reverse].edge_index = columns(pairs).flip(0)
        graph[LISTENS].weight = graph[REV_LISTENS].weight = torch.ones(len(self.listens))
        return graph


def columns(pairs: Any) -> Tensor:
    return torch.tensor(sorted(pairs), dtype=torch.long).view(-1, 2).T.contiguous()


def world(users: int, songs: int, artists: int, listens: Pairs, by: Pairs, seed: int = 0) -> World:
    generator = torch.Generator().manual_seed(seed)
    channel = LocalChannel()
    with torch.no_grad():
        for parameter in channel.parameters():
            parameter += 0.3 / PARAMETER_SCALE * torch.randn(parameter.shape, generator=generator)
    similarity = 2 * torch.rand(users, songs, generator=generator) - 1
    return World(users, songs, artists, listens, by, similarity, channel)


@st.composite
def worlds(draw: Callable[..., Any]) -> World:
    """Users without songs, songs without listeners, no artists at all and several of one song are among them."""
    users, songs, artists = draw(st.integers(1, 6)), draw(st.integers(1, 8)), draw(st.integers(0, 3))
    listens = draw(st.sets(st.tuples(st.integers(0, users - 1), st.integers(0, songs - 1))))
    made = st.tuples(st.integers(0, songs - 1), st.integers(0, artists - 1)) if artists else st.nothing()
    return world(users, songs, artists, listens, draw(st.sets(made)), draw(st.integers(0, 2**31)))


def larger_world(seed: int = 0, artists: int = 12) -> World:
    """30 users of 5 to 24 of 60 songs each; user 0 has none."""
    rng = np.random.default_rng(seed)
    listens = {(user, song) for user in range(1, 30) for song in rng.integers(0, 60, rng.integers(5, 25)).tolist()}
    by = {(song, int(artist)) for song in range(60) for artist in rng.integers(0, artists, 2)} if artists else set()
    return world(30, 60, artists, listens, by, seed)


def everyone(world: World) -> tuple[Tensor, Tensor]:
    return torch.arange(world.users), torch.arange(world.songs)


# The reference: dense matrices in double precision, gradients by autograd


class Parameters(NamedTuple):
    user_heads: Tensor
    artist_heads: Tensor
    user_power: Tensor
    gates: Tensor
    popularity: Tensor

    @classmethod
    def of(cls, channel: LocalChannel) -> Parameters:
        """Copies of the channel's parameters, in the same order."""
        return cls(*(getattr(channel, name).detach().double().requires_grad_() for name in cls._fields))


def incidence(pairs: Pairs, rows: int, columns: int) -> Tensor:
    matrix = torch.zeros(rows, columns, dtype=torch.float64)
    for row, column in pairs:
        matrix[row, column] = 1
    return matrix


def dense_weights(middles: Tensor, powers: tuple[float, ...], heads: Tensor, log_d: Tensor) -> Tensor:
    """a_ij of songs i and j with the middles (S, M): (H, S, S)."""
    size = middles.sum(0).clamp(min=1)
    strengths = [middles @ (size**-power)[:, None].mul(middles.T) for power in powers]
    joined = (middles @ middles.T > 0) & ~torch.eye(len(middles), dtype=torch.bool)
    bias, of_i, of_j, *of_strength = (heads * PARAMETER_SCALE).T[:, :, None, None]
    score = bias + of_i * log_d[:, None] + of_j * log_d
    for alpha, strength in zip(of_strength, strengths, strict=True):
        score = score + alpha * torch.where(joined, strength, 1).log()
    return joined * score.clamp(LOW, HIGH).exp()


def dense_scores(world: World, parameters: Parameters, heard: Tensor, log_n: Tensor, usual: tuple[Any, Any]) -> Tensor:
    """Scores of all songs for all users who heard (U, S): the formulas of ``LocalChannel``."""
    log_d = heard.sum(0).clamp(min=1).log()
    by = incidence(world.by, world.songs, world.artists)
    listened = dense_weights(heard.T, USER_POWERS, parameters.user_heads, log_d)
    made = dense_weights(by, ARTIST_POWERS, parameters.artist_heads, log_d)
    sums = torch.einsum("uj,hij->uih", heard, torch.cat([listened, made]))
    parts = (1 + (-parameters.user_power * PARAMETER_SCALE * log_n[:, None, None]).exp() * sums).log()
    parts = torch.cat([parts, world.similarity.double()[..., None]], 2)
    features = torch.stack(
        torch.broadcast_tensors(torch.ones(()), log_n[:, None] - usual[0], log_d - usual[1]), 2
    )  # (U, S, 3)
    gates = torch.einsum("gf,uif->uig", parameters.gates * PARAMETER_SCALE, features)
    return (gates * parts).sum(2) + parameters.popularity * PARAMETER_SCALE * log_d


def reference(world: World, parameters: Parameters, left_out: tuple[int, int] | None = None) -> Tensor:
    """Scores (U, S), of a world without one pair if there is one; numbers of songs and means are those of the whole."""
    heard = incidence(world.listens, world.users, world.songs)
    log_n = heard.sum(1).clamp(min=1).log()
    usual = log_n.mean(), heard.sum(0).clamp(min=1).log().mean()
    left = incidence(world.listens - {left_out}, world.users, world.songs) if left_out else heard
    return dense_scores(world, parameters, left, log_n, usual)


def signs(scores: Tensor) -> Tensor:
    """Different factors of any sign, so that no gradient hides behind another."""
    return torch.arange(scores.numel(), dtype=scores.dtype).add(1).cos().view_as(scores)


def assert_same_gradients(world: World, scores: Tensor, expected: Tensor, parameters: Parameters) -> None:
    ours = torch.autograd.grad((scores * signs(scores)).sum(), list(world.channel.parameters()))
    theirs = torch.autograd.grad((expected * signs(expected)).sum(), parameters)
    names = [name for name, _ in world.channel.named_parameters()]
    assert tuple(names) == Parameters._fields
    for name, own, their in zip(names, ours, theirs, strict=True):
        scale = max(1.0, their.abs().max().item())
        assert torch.allclose(own.double(), their, rtol=1e-4, atol=1e-4 * scale), name


def pair_scores(world: World) -> Tensor:
    users, songs = columns(world.listens)
    return world.channel.pair_scores(world.known, users, songs, world.similarity[users, songs])


@fast
@given(worlds())
def test_scores_and_their_gradients_are_those_of_the_formula(world: World) -> None:
    parameters = Parameters.of(world.channel)
    scores = world.channel.scores(world.known, *everyone(world), world.similarity)
    expected = reference(world, parameters)
    assert torch.allclose(scores.double(), expected, rtol=1e-4, atol=1e-4)
    assert_same_gradients(world, scores, expected, parameters)


@fast
@given(worlds().filter(lambda world: world.listens))
def test_pair_scores_and_their_gradients_are_those_of_the_formula_without_the_pair(world: World) -> None:
    parameters, scores = Parameters.of(world.channel), pair_scores(world)
    expected = torch.stack([reference(world, parameters, pair)[pair] for pair in sorted(world.listens)])
    assert torch.allclose(scores.double(), expected, rtol=1e-4, atol=1e-4)
    assert_same_gradients(world, scores, expected, parameters)


def held(known: ListenedSongs, whole: ListenedSongs) -> ListenedSongs:
    """``known`` with the users' numbers of songs, and the means, of another: what a pair's world keeps."""
    vars(known).update(log_listens=whole.log_listens, mean_logs=whole.mean_logs)
    return known


@torch.no_grad()
def assert_no_score_depends_on_its_own_edge(world: World) -> None:
    known = world.known
    for (user, song), score in zip(sorted(world.listens), pair_scores(world), strict=True):
        left = held(world._replace(listens=world.listens - {(user, song)}).known, known)
        alone = torch.tensor([user]), torch.tensor([song])
        expected = world.channel.scores(left, *alone, world.similarity[user : user + 1, song : song + 1])
        assert torch.allclose(score, expected, rtol=1e-5, atol=1e-5)


@fast
@given(worlds())
def test_the_score_of_a_positive_does_not_depend_on_its_own_edge(world: World) -> None:
    assert_no_score_depends_on_its_own_edge(world)


@pytest.mark.parametrize("artists", [0, 12])
def test_the_score_of_a_positive_does_not_depend_on_its_own_edge_in_a_larger_graph(artists: int) -> None:
    assert_no_score_depends_on_its_own_edge(larger_world(artists=artists))


@torch.no_grad()
def test_a_score_that_keeps_its_own_edge_is_another() -> None:
    """What the tests above would not see if ``scores`` left edges out by itself."""
    made = larger_world()
    users, songs = columns(made.listens)
    with_edge = made.channel.scores(made.known, *everyone(made), made.similarity)[users, songs]
    assert (with_edge - pair_scores(made)).abs().min() > 1e-4


@fast
@given(worlds())
def test_what_is_compiled_scores_unseen_songs_as_training_does(world: World) -> None:
    users, songs = everyone(world)
    served = torch.from_numpy(world.channel.scorer(world.known)(users.numpy(), world.similarity.clone().numpy()))
    with torch.no_grad():
        trained = world.channel.scores(world.known, users, songs, world.similarity)
    unseen = incidence(world.listens, world.users, world.songs) == 0
    assert torch.allclose(served[unseen], trained[unseen], rtol=1e-5, atol=5e-5)


@torch.no_grad()
def test_scores_do_not_depend_on_who_else_is_scored_nor_on_the_order() -> None:
    made = larger_world()
    known, all_scores = made.known, made.channel.scores(made.known, *everyone(made), made.similarity)
    users, songs = torch.tensor([7, 0, 7, 29]), torch.tensor([59, 3, 40, 3])
    some = made.channel.scores(known, users, songs, made.similarity[users][:, songs])
    assert torch.allclose(some, all_scores[users][:, songs], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("of_pairs", [True, False])
def test_gradients_reach_every_number_of_every_parameter(of_pairs: bool) -> None:
    made = larger_world()
    scores = pair_scores(made) if of_pairs else made.channel.scores(made.known, *everyone(made), made.similarity)
    (scores * signs(scores)).sum().backward()
    for name, parameter in made.channel.named_parameters():
        assert (parameter.grad != 0).all(), name


@torch.no_grad()
def test_a_user_without_songs_is_scored_by_similarity_and_popularity() -> None:
    made = larger_world()
    users, songs = torch.zeros(1, dtype=torch.long), torch.arange(60)
    known, (base, by_listens, by_listeners) = made.known, made.channel.gates[-1] * PARAMETER_SCALE
    log_d = known.log_listeners
    gate = base - by_listens * known.mean_logs[0] + by_listeners * (log_d - known.mean_logs[1])
    expected = gate * made.similarity[0] + made.channel.popularity * PARAMETER_SCALE * log_d
    scores = made.channel.scores(known, users, songs, made.similarity[:1])[0]
    assert torch.allclose(scores, expected, atol=1e-5)


def test_a_graph_without_artists_teaches_the_artist_head_nothing() -> None:
    made = larger_world(artists=0)
    bare = made.graph()
    del bare[BY], bare[REV_BY]
    known = listened_songs(bare)
    users, songs = columns(made.listens)
    scores = made.channel.scores(known, *everyone(made), made.similarity)
    (scores.sum() + made.channel.pair_scores(known, users, songs, made.similarity[users, songs]).sum()).backward()
    assert torch.isfinite(scores).all()
    assert (made.channel.artist_heads.grad == 0).all()
    assert made.channel.user_heads.grad.abs().min() > 0
    assert torch.equal(scores, made.channel.scores(made.known, *everyone(made), made.similarity))


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("seed", [0, 1])
def test_sums_over_histories_and_their_gradient_are_those_of_a_dense_product(
    monkeypatch: pytest.MonkeyPatch, threads: str, seed: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    heard = (torch.rand(20, 50, generator=generator) < 0.2).float()
    heard[3] = 0
    song, middle = np.unique(rng.integers(0, 50, (2, 120)), axis=1)
    edges = Paths.of(song, middle, 50, 50, (1.0,)).edges(np.array([9, 49, 0, 9, 20, 33]))
    weight = torch.rand(len(edges.other), 2, generator=generator, requires_grad=True)
    dense = torch.zeros(6, 50, 2).index_put(
        (torch.from_numpy(edges.owner), torch.from_numpy(edges.other).long()), weight
    )
    expected = torch.einsum("bj,cjh->bch", heard, dense)
    sums = _ListenedSums.apply(weight, edges, Neighbors.of(*heard.nonzero().T.numpy(), 20), 50)
    assert torch.allclose(sums, expected, atol=1e-5)
    found, wanted = (torch.autograd.grad((out * signs(expected)).sum(), weight)[0] for out in (sums, expected))
    assert torch.allclose(found, wanted, atol=1e-5)


def test_the_history_is_of_train_edges_alone(tiny_training_graph: HeteroData) -> None:
    known, listens = listened_songs(tiny_training_graph), tiny_training_graph[LISTENS]
    train = listens.edge_index[:, listens.train_mask]
    assert known.listens.degree.tolist() == torch.bincount(train[0], minlength=40).tolist()
    assert known.users.middles.degree.tolist() == torch.bincount(train[1], minlength=30).tolist()
    assert listened_songs(tiny_training_graph) is known

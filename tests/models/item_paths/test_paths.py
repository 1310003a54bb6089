"""Song-to-song edges against loops that read like their definitions; the same bits however the work is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.machine import threads
from models.item_paths.paths import Neighbors, Paths, SongEdges
from models.kernels.path_counts import HeadTerms
from models.kernels.top_songs import WeightedEdges

Pairs = set[tuple[int, int]]
POWERS = (0.0, 0.3, 1.0)

fast = settings(max_examples=50, deadline=None)


@st.composite
def pairs_of(draw: Callable[..., Any], most_rows: int = 7, most_nodes: int = 6) -> tuple[int, int, Pairs]:
    """Numbers of rows and of nodes, and pairs of them: empty rows, no pairs and nodes in no row are among them."""
    rows, nodes = draw(st.integers(1, most_rows)), draw(st.integers(1, most_nodes))
    return rows, nodes, draw(st.sets(st.tuples(st.integers(0, rows - 1), st.integers(0, nodes - 1))))


def columns(pairs: Any) -> np.ndarray:
    return np.array(list(pairs), dtype=np.int64).reshape(-1, 2).T


def paths(pairs: Pairs, songs: int, middles: int) -> Paths:
    """From pairs of a song and a middle."""
    return Paths.of(*columns(pairs), songs, middles, POWERS)


def larger_pairs(songs: int = 300, middles: int = 80, seed: int = 0) -> Pairs:
    rng = np.random.default_rng(seed)
    return set(zip(rng.integers(0, songs, 1500).tolist(), rng.integers(0, middles, 1500).tolist(), strict=True))


def naive_edges(pairs: Pairs, songs: int, i: int) -> dict[int, list[float]]:
    """Other song to strengths, of the edges that arrive at song i."""
    found = {}
    for j in range(songs):
        common = {m for song, m in pairs if song == i} & {m for song, m in pairs if song == j}
        if common and j != i:
            sizes = [sum(m == middle for _, middle in pairs) for m in common]
            found[j] = [sum(float(size) ** -power for size in sizes) for power in POWERS]
    return found


def row(edges: SongEdges, n: int) -> dict[int, np.ndarray]:
    own = slice(edges.start[n], edges.start[n + 1])
    found = dict(zip(edges.other[own].tolist(), edges.strength[own], strict=True))
    assert len(found) == own.stop - own.start  # no song twice
    return found


def assert_same_edges(found: dict[int, np.ndarray], expected: dict[int, Any]) -> None:
    assert found.keys() == expected.keys()
    for other, strength in expected.items():
        np.testing.assert_allclose(found[other], strength, rtol=1e-6)


def same_bits(ours: SongEdges, theirs: SongEdges) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@fast
@given(pairs_of(), st.randoms(use_true_random=False))
def test_neighbors_are_the_pairs_of_each_row_ascending(made: tuple[int, int, Pairs], random: Any) -> None:
    rows, _, pairs = made
    shuffled = sorted(pairs)
    random.shuffle(shuffled)
    found = Neighbors.of(*columns(shuffled), rows)
    expected = [sorted(node for r, node in pairs if r == number) for number in range(rows)]
    assert [part.tolist() for part in np.split(found.node, found.start[1:-1])] == expected
    assert found.degree.tolist() == [len(part) for part in expected]
    assert (found.start.dtype, found.node.dtype) == (np.int64, np.int32)


@fast
@given(pairs_of(), st.data())
def test_rows_are_those_asked_for_in_their_order(made: tuple[int, int, Pairs], data: st.DataObject) -> None:
    rows, _, pairs = made
    wanted = data.draw(st.lists(st.integers(0, rows - 1)))  # none, and the same one twice, are among them
    found = Neighbors.of(*columns(pairs), rows).rows(np.array(wanted, dtype=np.int64))
    expected = [sorted(node for r, node in pairs if r == number) for number in wanted]
    assert [found.node[a:b].tolist() for a, b in zip(found.start[:-1], found.start[1:], strict=True)] == expected


@fast
@given(pairs_of())
def test_edges_equal_a_loop_over_the_definition(made: tuple[int, int, Pairs]) -> None:
    songs, middles, pairs = made
    wanted = np.arange(songs)[::-1]
    edges = paths(pairs, songs, middles).edges(wanted)
    assert len(edges.start) == songs + 1
    assert edges.owner.tolist() == [n for n in range(songs) for _ in row(edges, n)]
    for n, song in enumerate(wanted.tolist()):
        assert_same_edges(row(edges, n), naive_edges(pairs, songs, song))


@fast
@given(pairs_of(most_rows=12))
def test_a_row_is_the_same_bits_alone_as_after_all_others(made: tuple[int, int, Pairs]) -> None:
    songs, middles, pairs = made
    made_paths = paths(pairs, songs, middles)
    together = made_paths.edges(np.arange(songs))
    for song in range(songs):
        alone, own = made_paths.edges(np.array([song])), slice(*together.start[song : song + 2])
        assert np.array_equal(alone.other, together.other[own])
        assert np.array_equal(alone.strength, together.strength[own])


def without_middle(edges: dict[int, Any], kept: set[int]) -> dict[int, Any]:
    return {other: strength for other, strength in edges.items() if other in kept}


@fast
@given(pairs_of())
def test_pair_edges_through_users_are_those_of_a_graph_without_the_pair(made: tuple[int, int, Pairs]) -> None:
    songs, users, pairs = made
    whole, listens = paths(pairs, songs, users), sorted(pairs)
    song, user = columns(listens)
    history = Neighbors.of(user, song, users)
    edges = whole.pair_edges(user, song, history, through_users=True)
    for n, (i, u) in enumerate(listens):
        left = paths(pairs - {(i, u)}, songs, users).edges(np.array([i]))
        others = {j for j, listener in pairs if listener == u} - {i}
        assert_same_edges(row(edges, n), without_middle(row(left, 0), others))


@fast
@given(pairs_of(), st.data())
def test_pair_edges_through_artists_are_those_to_the_users_other_songs(
    made: tuple[int, int, Pairs], data: st.DataObject
) -> None:
    songs, users, listens = made
    by = data.draw(st.sets(st.tuples(st.integers(0, songs - 1), st.integers(0, 2))))
    # a pair may be asked for twice, and in any order
    asked = data.draw(st.lists(st.sampled_from(sorted(listens)))) if listens else []
    song, user = columns(asked)
    history = Neighbors.of(*columns(listens)[::-1], users)
    edges = paths(by, songs, 3).pair_edges(user, song, history, through_users=False)
    for n, (i, u) in enumerate(asked):
        others = {j for j, listener in listens if listener == u} - {i}
        assert_same_edges(row(edges, n), without_middle(naive_edges(by, songs, i), others))


@pytest.mark.parametrize("through_users", [True, False])
@pytest.mark.parametrize("threads", ["2", "5"])
def test_the_bits_do_not_depend_on_the_threads(
    monkeypatch: pytest.MonkeyPatch, threads: str, through_users: bool
) -> None:
    song, user = columns(sorted(larger_pairs()))
    listens, through = Neighbors.of(user, song, 80), paths(larger_pairs(seed=int(not through_users)), 300, 80)

    def both() -> tuple[SongEdges, SongEdges]:
        return through.edges(np.arange(300)), through.pair_edges(user, song, listens, through_users)

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    expected = both()
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert all(same_bits(ours, theirs) for ours, theirs in zip(both(), expected, strict=True))


ATTENTION = ((0.7, 0.0, -0.4), (0.0, 1.3, 0.2), (-0.5, 0.1, 0.0))
"""Three heads of as many powers."""


def attention(songs: int, seed: int = 0) -> HeadTerms:
    listened, candidate = np.random.default_rng(seed).normal(size=(2, songs, len(ATTENTION))).astype(np.float32)
    return HeadTerms(np.array(ATTENTION, dtype=np.float32), listened, candidate)


def weighted_row(edges: WeightedEdges, n: int) -> dict[int, np.ndarray]:
    own = slice(edges.start[n], edges.stop[n])
    found = dict(zip(edges.candidate[own].tolist(), edges.weight[:, own].T, strict=True))
    assert len(found) == own.stop - own.start  # no song twice
    return found


@fast
@given(pairs_of(most_rows=12))
def test_weighed_edges_are_the_edges_with_the_exp_of_their_scores(made: tuple[int, int, Pairs]) -> None:
    songs, middles, pairs = made
    heads, wanted = attention(songs), np.arange(songs)[::-1].copy()
    edges = paths(pairs, songs, middles).weighted_edges(wanted, heads)
    for n, j in enumerate(wanted.tolist()):
        expected = {
            i: np.exp(heads.listened[j] + heads.candidate[i] + heads.of_strength @ np.log(strength))
            for i, strength in naive_edges(pairs, songs, j).items()
        }
        found = weighted_row(edges, n)
        assert found.keys() == expected.keys()
        for i, weight in expected.items():
            np.testing.assert_allclose(found[i], weight, rtol=1e-5)


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_weights_are_the_same_bits_alone_and_on_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    heads, through = attention(300), paths(larger_pairs(), 300, 80)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    expected = through.weighted_edges(np.arange(300), heads)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    together = through.weighted_edges(np.arange(300), heads)
    for song in range(300):
        alone = weighted_row(through.weighted_edges(np.array([song]), heads), 0)
        for found in (alone, weighted_row(together, song)):
            for i, weight in weighted_row(expected, song).items():
                assert np.array_equal(found[i], weight)


def test_no_bad_score_makes_a_weight_infinite() -> None:
    made, far = paths({(0, 0), (1, 0)}, 2, 1), np.full((2, 1), 1e30, dtype=np.float32)
    for listened, bound in ((far, 15), (-far, -20)):
        heads = HeadTerms(np.zeros((1, 3), dtype=np.float32), listened, np.zeros_like(far))
        edges = made.weighted_edges(np.array([0, 1]), heads)
        for row in (0, 1):
            np.testing.assert_allclose(weighted_row(edges, row)[1 - row], np.exp(bound), rtol=1e-6)


@pytest.mark.parametrize("songs", [2**16, 2**16 + 1])
def test_candidates_of_large_catalogues_keep_their_numbers(songs: int) -> None:
    made = paths({(1, 0), (songs - 1, 0)}, songs, 1)
    edges = made.weighted_edges(np.array([1, songs - 1]), attention(songs))
    assert [set(weighted_row(edges, row)) for row in (0, 1)] == [{songs - 1}, {1}]


def test_no_songs_make_no_edges() -> None:
    none, made = np.empty(0, dtype=np.int64), paths({(0, 0), (1, 0)}, 2, 1)
    assert [len(part) for part in made.edges(none)] == [1, 0, 0]
    assert len(made.weighted_edges(none, attention(2)).start) == 0


@pytest.mark.parametrize(("asked", "given"), [("3", 3), ("", None), ("0", None), ("4,2", None)])
def test_threads_are_those_that_torch_is_told_or_the_cores(
    monkeypatch: pytest.MonkeyPatch, asked: str, given: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3, 4})
    assert threads() == (given or 5)

"""Each baseline against the formula that its class states, computed densely and slowly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData

from data.graph import LISTENS
from evaluation.baselines import ease
from evaluation.baselines.choices import create_baseline

DAY = 86_400


@pytest.fixture(params=[0, 1, 2])
def graph(request: pytest.FixtureRequest, make_training_graph) -> HeteroData:
    return make_training_graph(num_users=25, num_songs=20, num_rows=250, seed=request.param)


def train(graph: HeteroData, name: str) -> np.ndarray:
    return graph[LISTENS][name][graph[LISTENS].train_mask].numpy()


def dense(graph: HeteroData, weighted: bool = False) -> np.ndarray:
    """(U, S) what each user heard in train, 1 or the weight."""
    user, song = graph[LISTENS].edge_index[:, graph[LISTENS].train_mask].numpy()
    found = np.zeros((graph["user"].num_nodes, graph["song"].num_nodes))
    found[user, song] = train(graph, "weight") if weighted else 1
    return found


def scores(name: str, graph: HeteroData, **given: object) -> np.ndarray:
    return create_baseline(name, given).fit(graph)(torch.arange(graph["user"].num_nodes)).double().numpy()


@pytest.mark.parametrize("weighted", [False, True])
def test_cosine(graph: HeteroData, weighted: bool) -> None:
    heard = dense(graph, weighted)
    columns = heard / np.maximum(np.linalg.norm(heard, axis=0), 1e-300)
    assert scores("item-knn-cosine", graph, weighted=weighted) == pytest.approx(heard @ others(columns))


@pytest.mark.parametrize("weighted", [False, True])
def test_bm25(graph: HeteroData, weighted: bool) -> None:
    heard = dense(graph, weighted)
    assert scores("item-knn-bm25", graph, weighted=weighted) == pytest.approx(heard @ others(bm25(heard, 1.2, 0.5)))


def test_bm25_with_other_parameters(graph: HeteroData) -> None:
    heard = dense(graph, weighted=True)
    found = scores("item-knn-bm25", graph, weighted=True, K1=0.4, B=0.9)
    assert found == pytest.approx(heard @ others(bm25(heard, 0.4, 0.9)))


def bm25(heard: np.ndarray, k1: float, b: float) -> np.ndarray:
    columns = np.zeros_like(heard)
    lengths = heard.sum(axis=0)
    for user, song in np.argwhere(heard):
        norm = 1 - b + b * lengths[song] / lengths.mean()
        rarity = np.log(heard.shape[1] / (1 + np.count_nonzero(heard[user])))
        columns[user, song] = heard[user, song] * (k1 + 1) / (heard[user, song] + k1 * norm) * rarity
    return columns


def others(columns: np.ndarray) -> np.ndarray:
    """Similarities (S, S) of songs to others, all neighbours kept."""
    similarity = columns.T @ columns
    np.fill_diagonal(similarity, 0)
    return similarity


def test_only_the_nearest_neighbours_of_each_song_count(graph: HeteroData) -> None:
    heard = dense(graph, weighted=True)  # weights differ, so that similarities do
    columns = heard / np.maximum(np.linalg.norm(heard, axis=0), 1e-300)
    similarity = others(columns)
    for row in similarity:  # four neighbours and the song itself, whose cosine is 1
        row[np.argsort(-row)[4:]] = 0
    found = scores("item-knn-cosine", graph, weighted=True, neighbours=5)
    assert found == pytest.approx(heard @ similarity)


@pytest.mark.parametrize("rows_at_once", [3, 7, 1024])
def test_ease(graph: HeteroData, rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "ROWS_AT_ONCE", rows_at_once)
    assert scores("ease", graph, regularization=5.0) == pytest.approx(naive_ease(dense(graph), 5.0, 3), abs=1e-5)


def naive_ease(heard: np.ndarray, regularization: float, min_listeners: int) -> np.ndarray:
    songs = np.flatnonzero(heard.sum(axis=0) >= min_listeners)
    taken = heard[:, songs]
    inverse = np.linalg.inv(taken.T @ taken + regularization * np.eye(len(songs)))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    found = np.zeros_like(heard)
    found[:, songs] = taken @ weights
    return found


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 40), block=st.integers(1, 50), seed=st.integers(0, 10**6))
def test_the_inverse_in_blocks_is_the_inverse(size: int, block: int, seed: int) -> None:
    factor = np.random.default_rng(seed).normal(size=(size, 2 * size))
    matrix = factor @ factor.T + np.eye(size)
    swept = torch.from_numpy(matrix).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ease, "ROWS_AT_ONCE", block)
        ease._invert_and_negate(swept)
    assert -swept.numpy() == pytest.approx(np.linalg.inv(matrix), abs=1e-4)


def test_popularity_counts_train_listeners(graph: HeteroData) -> None:
    assert np.array_equal(scores("popularity", graph), np.tile(dense(graph).sum(axis=0), (25, 1)))


@pytest.mark.parametrize("half_life", [0.5, 30.0])
def test_recent_popularity(graph: HeteroData, half_life: float) -> None:
    song = graph[LISTENS].edge_index[1, graph[LISTENS].train_mask].numpy()
    last = train(graph, "last_played")
    expected = np.zeros(20)
    for one, when in zip(song, last, strict=True):
        expected[one] += 0.5 ** ((last.max() - when) / DAY / half_life)
    assert scores("recent-popularity", graph, half_life_days=half_life)[3] == pytest.approx(expected)


def test_ials_fits_heard_songs_near_one_and_others_near_zero(graph: HeteroData) -> None:
    heard = dense(graph) > 0
    found = scores("ials", graph, factors=20, users_a_factor=1, regularization=0.01, alpha=40.0, iterations=30)
    assert found[heard].mean() > 0.8
    assert abs(found[~heard].mean()) < 0.2


@pytest.mark.parametrize(("given", "length"), [({}, 8), ({"users_a_factor": 2}, 12), ({"factors": 5}, 5)])
def test_ials_of_a_small_log_has_short_vectors(given: dict[str, int], length: int, graph: HeteroData) -> None:
    assert np.linalg.matrix_rank(scores("ials", graph, **given), tol=1e-3) == length

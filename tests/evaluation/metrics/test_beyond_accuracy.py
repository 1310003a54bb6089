from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData

from evaluation.metrics import beyond_accuracy
from evaluation.metrics.beyond_accuracy import SongFeatures, aggregates, coverage, gini, list_metrics

SONGS, ARTISTS, DIM = 9, 4, 3


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[int]], SongFeatures]:
    """Lists with empty places at their ends; songs with no, one or several artists, no listener or a zero vector."""
    k, count = draw(st.integers(1, SONGS)), draw(st.integers(1, 5))
    lists = [draw(st.permutations(range(SONGS)))[: draw(st.integers(0, k))] for _ in range(count)]
    padded = [[*songs, *[-1] * (k - len(songs))] for songs in lists]
    artists = [draw(st.sets(st.integers(0, ARTISTS - 1))) for _ in range(SONGS)]
    artists[draw(st.integers(0, SONGS - 1))].add(ARTISTS - 1)
    by = torch.tensor([(song, artist) for song, of in enumerate(artists) for artist in sorted(of)]).T
    listeners = torch.tensor(draw(st.lists(st.integers(0, 20), min_size=SONGS, max_size=SONGS)))
    number = st.floats(-1, 1, width=16)
    rows = st.lists(st.lists(number, min_size=DIM, max_size=DIM), min_size=SONGS, max_size=SONGS)
    vectors = torch.tensor(draw(rows))
    vectors[vectors.norm(dim=1) < 1e-3] = 0
    return padded, SongFeatures(listeners, 20, by, vectors)


def naive(items: list[int], features: SongFeatures) -> dict[str, float]:
    """The definitions, word by word, for one user."""
    assert features.by is not None
    assert features.vectors is not None
    songs = [song for song in items if song >= 0]
    pairs = list(combinations(songs, 2))
    artists = {song: {a for s, a in features.by.T.tolist() if s == song} for song in songs}
    listeners, vectors = features.listeners.tolist(), features.vectors.double().numpy()
    bits = [-math.log2((listeners[song] or 0.5) / features.num_users) for song in songs]

    def cosine(a: int, b: int) -> float:
        norms = np.linalg.norm(vectors[a]) * np.linalg.norm(vectors[b])
        return float(vectors[a] @ vectors[b] / norms) if norms else 0.0

    held = [sum(artist in artists[song] for song in songs) for artist in range(ARTISTS)]
    return {
        "novelty": sum(bits) / max(1, len(songs)),
        "average_popularity": sum(listeners[song] for song in songs) / max(1, len(songs)),
        "artist_diversity": sum(not artists[a] & artists[b] for a, b in pairs) / max(1, len(pairs)),
        "artist_share": max(held) / len(items),
        "embedding_diversity": sum(1 - cosine(a, b) for a, b in pairs) / max(1, len(pairs)),
    }


@settings(deadline=None, max_examples=40)
@given(cases(), st.sampled_from([1, 40, 2**22]))
def test_equals_the_naive_loop_whatever_is_held_at_once(case: tuple[list[list[int]], SongFeatures], cells: int) -> None:
    lists, features = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beyond_accuracy, "CELLS_AT_ONCE", cells)
        found = list_metrics(torch.tensor(lists), features)
    for row, items in enumerate(lists):
        ours = {name: values[row].item() for name, values in found.items()}
        assert ours == pytest.approx(naive(items, features), abs=1e-6)


def test_hand_written() -> None:
    # Songs 0 and 1 by artist 0, song 1 also by artist 1, song 2 by artist 1, song 3 by nobody; 8 train users.
    by = torch.tensor([[0, 1, 1, 2], [0, 0, 1, 1]])
    features = SongFeatures(torch.tensor([8, 4, 1, 0]), 8, by, torch.tensor([[1.0, 0], [2.0, 0], [0, 3.0], [0, 0]]))
    found = {name: values.tolist() for name, values in list_metrics(torch.tensor([[0, 1, 2, 3]]), features).items()}
    assert found["novelty"] == [(0 + 1 + 3 + 4) / 4]
    assert found["average_popularity"] == [13 / 4]
    assert found["artist_share"] == [2 / 4]
    assert found["artist_diversity"] == [pytest.approx(4 / 6)]  # 0-1 share artist 0, 1-2 share artist 1
    assert found["embedding_diversity"] == [pytest.approx(1 - 1 / 6)]  # only 0 and 1 point the same way


def test_metrics_whose_features_are_missing_are_left_out(graph: HeteroData) -> None:
    features = SongFeatures.of(graph)
    assert features.listeners.tolist() == [3, 2, 1, 0, 0, 0]  # train listeners only
    assert features.num_users == 4
    assert sorted(list_metrics(torch.tensor([[0, 5]]), features)) == ["average_popularity", "novelty"]


def naive_gini(exposure: list[int]) -> float:
    """Half the relative mean absolute difference."""
    total = sum(exposure)
    apart = sum(abs(a - b) for a in exposure for b in exposure)
    return apart / (2 * len(exposure) * total) if total else 0.0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_gini_is_half_the_mean_difference_and_songs_without_a_place_count(exposure: list[int]) -> None:
    listed = np.array([times for times in exposure if times])
    for counted in (np.array(exposure), listed):
        assert float(gini(counted, len(exposure))) == pytest.approx(naive_gini(exposure), abs=1e-12)
        assert float(coverage(counted, len(exposure))) == len(listed) / len(exposure)


def test_the_ends_of_gini() -> None:
    assert float(gini(np.full(5, 3), 5)) == pytest.approx(0)
    assert float(gini(np.array([7]), 100)) == pytest.approx(0.99)


def test_one_list_for_all_covers_as_much_in_every_resample() -> None:
    found = aggregates(torch.tensor([[0, 1]] * 50), 10, seed=0)
    assert [found["coverage"].interval().low, found["coverage"].interval().high] == pytest.approx([0.2, 0.2])
    assert found["gini"].interval().low == pytest.approx(found["gini"].interval().high) == pytest.approx(0.8)
    assert (found["gini"] - found["gini"]).interval().mean == 0


def test_lists_without_songs_cover_nothing() -> None:
    found = aggregates(torch.full((3, 2), -1), 10, seed=0)
    assert {name: one.estimate for name, one in found.items()} == {"coverage": 0, "gini": 0}


def test_resamples_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    items = torch.randint(40, (30, 5), generator=torch.Generator().manual_seed(0))
    whole = aggregates(items, 50, seed=3)
    monkeypatch.setattr(beyond_accuracy, "CELLS_AT_ONCE", 100)
    parts = aggregates(items, 50, seed=3)
    for name, one in whole.items():
        assert parts[name].resampled == pytest.approx(one.resampled, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("users", [60, 400])
def test_intervals_of_all_lists_hold_the_value_that_samples_of_users_have_on_average(users: int) -> None:
    """A plain percentile interval of coverage would hold it in no sample at all."""
    generator = np.random.default_rng(0)
    weight = np.log(1 / np.arange(1, 501))
    intervals, estimates = [], []
    for seed in range(120):
        order = np.argsort(-(weight + generator.gumbel(size=(users, 500))), axis=1)
        found = aggregates(torch.from_numpy(order[:, :10].copy()), 500, seed)
        estimates.append([one.estimate for one in found.values()])
        intervals.append([one.interval() for one in found.values()])
    for metric, truth in enumerate(np.mean(estimates, axis=0)):
        held = np.mean([row[metric].low <= truth <= row[metric].high for row in intervals])
        assert held >= 0.91

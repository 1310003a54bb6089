from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from evaluation.metrics.accuracy import ranking_metrics


def naive(items: list[int], relevant: set[int], k: int) -> dict[str, float]:
    """The definitions, word by word, for one user."""
    top = items[:k]
    hits = [song in relevant for song in top]
    gain = sum(1 / math.log2(place + 2) for place, hit in enumerate(hits) if hit)
    ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(relevant))))
    first = next((1 / (place + 1) for place, hit in enumerate(hits) if hit), 0.0)
    return {
        "recall": sum(hits) / len(relevant),
        "ndcg": gain / ideal,
        "precision": sum(hits) / k,
        "mrr": first,
        "map": sum(sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit)
        / min(k, len(relevant)),
        "hit_rate": float(any(hits)),
    }


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[int]], list[set[int]], int]:
    num_songs = draw(st.integers(1, 12))
    k = draw(st.integers(1, num_songs))
    length = draw(st.integers(k, num_songs))
    count = draw(st.integers(1, 6))
    songs = list(range(num_songs))
    lists = [draw(st.permutations(songs))[:length] for _ in range(count)]
    empty = [draw(st.integers(0, length)) for _ in range(count)]
    padded = [row[: length - gone] + [-1] * gone for row, gone in zip(lists, empty, strict=True)]
    return padded, [set(draw(st.sets(st.sampled_from(songs), min_size=1))) for _ in range(count)], k


@given(cases())
def test_equals_the_naive_loop(case: tuple[list[list[int]], list[set[int]], int]) -> None:
    lists, relevant, k = case
    pairs = torch.tensor([(row, song) for row, songs in enumerate(relevant) for song in songs]).T
    found = ranking_metrics(torch.tensor(lists), pairs, k)
    for row, (items, songs) in enumerate(zip(lists, relevant, strict=True)):
        for name, value in naive(items, songs, k).items():
            assert found[name].dtype == torch.float64
            assert found[name][row].item() == pytest.approx(value, abs=1e-9)


def test_hand_written() -> None:
    # Ranked 7, 3, 9, 1; relevant 3 and 1 and 5: found at places 2 and 4.
    found = ranking_metrics(torch.tensor([[7, 3, 9, 1]]), torch.tensor([[0, 0, 0], [3, 1, 5]]), k=4)
    assert found["recall"].item() == pytest.approx(2 / 3)
    assert found["precision"].item() == pytest.approx(2 / 4)
    assert found["mrr"].item() == pytest.approx(1 / 2)
    assert found["map"].item() == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert found["hit_rate"].item() == 1.0
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert found["ndcg"].item() == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)


def test_recall_is_divided_by_all_relevant_songs_not_by_k() -> None:
    pairs = torch.tensor([[0] * 4, [0, 1, 2, 3]])
    found = ranking_metrics(torch.tensor([[0, 1]]), pairs, k=2)
    assert found["recall"].item() == 0.5
    assert found["ndcg"].item() == 1.0


def test_a_relevant_pair_that_is_there_twice_counts_once() -> None:
    once = ranking_metrics(torch.tensor([[4, 2]]), torch.tensor([[0, 0], [2, 3]]), k=2)
    twice = ranking_metrics(torch.tensor([[4, 2]]), torch.tensor([[0, 0, 0], [2, 3, 2]]), k=2)
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_an_empty_place_is_never_a_hit() -> None:
    # A place of -1 in row 1 must not be taken for the last song of row 0.
    found = ranking_metrics(torch.tensor([[0, 1], [-1, -1]]), torch.tensor([[0, 1], [1, 0]]), k=2)
    assert found["hit_rate"].tolist() == [1.0, 0.0]


def test_a_user_without_relevant_songs_is_refused() -> None:
    with pytest.raises(InputError, match="Row 1 has no relevant song"):
        ranking_metrics(torch.tensor([[0], [0]]), torch.tensor([[0], [0]]), k=1)


def test_lists_shorter_than_k_are_refused() -> None:
    with pytest.raises(InputError, match="asked at k = 3, but the lists have 2 places"):
        ranking_metrics(torch.tensor([[0, 1]]), torch.tensor([[0], [0]]), k=3)

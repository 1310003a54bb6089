"""The whole way from a graph to every user's numbers, against a loop that reads like the metric contract."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData

from evaluation.evaluation import evaluate

TRAIN, VAL, TEST = 0, 1, 2


@st.composite
def cases(draw: st.DrawFn) -> tuple[HeteroData, list[list[float]], int]:
    num_users, num_songs = draw(st.integers(1, 6)), draw(st.integers(2, 12))
    cells = st.tuples(st.integers(0, num_users - 1), st.integers(0, num_songs - 1))
    parts = draw(st.dictionaries(cells, st.sampled_from([TRAIN, VAL, TEST]), max_size=40))
    parts[draw(cells)] = TEST
    graph = HeteroData()
    graph["user"].num_nodes, graph["song"].num_nodes = num_users, num_songs
    table = torch.tensor([(*pair, part) for pair, part in sorted(parts.items())])
    store = graph["user", "listens", "song"]
    store.edge_index = table[:, :2].T.contiguous()
    for name, part in (("train_mask", TRAIN), ("val_mask", VAL), ("test_mask", TEST)):
        store[name] = table[:, 2] == part
    level = st.sampled_from([-1.0, 0.0, 0.5, 2.0])
    scores = draw(st.lists(st.lists(level, min_size=num_songs, max_size=num_songs), min_size=6, max_size=6))
    return graph, scores, draw(st.integers(1, num_songs))


def naive(graph: HeteroData, scores: list[list[float]], k: int) -> dict[int, dict[str, float]]:
    store = graph["user", "listens", "song"]
    pairs = list(zip(*store.edge_index.tolist(), strict=True))
    train = {pair for pair, inside in zip(pairs, store.train_mask.tolist(), strict=True) if inside}
    test = {pair for pair, inside in zip(pairs, store.test_mask.tolist(), strict=True) if inside}
    found = {}
    for user in range(graph["user"].num_nodes):
        relevant = {song for listener, song in test if listener == user}
        if not relevant:
            continue
        songs = [song for song in range(graph["song"].num_nodes) if (user, song) not in train]
        top = sorted(songs, key=lambda song: (-scores[user][song], song))[:k]
        places = [place for place, song in enumerate(top, start=1) if song in relevant]
        ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(relevant)) + 1))
        found[user] = {
            f"recall@{k}": len(places) / len(relevant),
            f"precision@{k}": len(places) / k,
            f"hit_rate@{k}": 1.0 if places else 0.0,
            f"mrr@{k}": 1 / places[0] if places else 0.0,
            f"map@{k}": sum(hits / place for hits, place in enumerate(places, start=1)) / min(k, len(relevant)),
            f"ndcg@{k}": sum(1 / math.log2(place + 1) for place in places) / ideal,
        }
    return found


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from([1, 7, 1024, None]))
def test_equals_the_naive_loop(case: tuple[HeteroData, list[list[float]], int], batch_size: int | None) -> None:
    graph, scores, k = case
    found = evaluate(lambda users: torch.tensor(scores)[users], graph, "test", k, batch_size=batch_size)
    expected = naive(graph, scores, k)
    assert found.users.tolist() == list(expected)
    for name, values in found.per_user.items():
        assert values.tolist() == pytest.approx([metrics[name] for metrics in expected.values()], abs=1e-9)
        assert found.mean()[name] == pytest.approx(values.mean().item(), abs=1e-12)

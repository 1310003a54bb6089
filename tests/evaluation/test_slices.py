from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import LISTENS
from evaluation.baselines.popular import popularity
from evaluation.evaluation import Evaluation, evaluate
from evaluation.metrics.beyond_accuracy import SongFeatures
from evaluation.metrics.exposure import popularity_groups
from evaluation.ranking import Score
from evaluation.slices import Slice, read_slices, slices, write_slices
from evaluation.statistics.significance import holm

K = 5


def random_scores(seed: int, num_users: int = 40, num_songs: int = 30) -> Score:
    scores = torch.rand(num_users, num_songs, generator=torch.Generator().manual_seed(seed))
    return lambda users: scores[users]


def knows_the_test_songs(graph: HeteroData) -> Score:
    store = graph[LISTENS]
    scores = torch.zeros(int(graph["user"].num_nodes), int(graph["song"].num_nodes))
    scores[tuple(store.edge_index[:, store.test_mask])] = 1.0
    return lambda users: scores[users]


def sliced(graph: HeteroData, score: Score, rivals: dict[str, Score] | None = None) -> list[Slice]:
    model = evaluate(score, graph, "test", K)
    others = {name: evaluate(rival, graph, "test", K) for name, rival in (rivals or {}).items()}
    return slices(model, others, score, SongFeatures.of(graph))


def pairs_of(graph: HeteroData, mask: str) -> set[tuple[int, int]]:
    store = graph[LISTENS]
    return set(map(tuple, store.edge_index[:, store[mask]].T.tolist()))


def naive_recall(model: Evaluation, wanted: set[tuple[int, int]]) -> tuple[float, int]:
    """Mean recall over the users of ``wanted``, and how many they are."""
    tops = dict(zip(model.users.tolist(), model.ranked.items[:, :K].tolist(), strict=True))
    users = {user for user, _ in wanted}
    of = {user: [song for listener, song in wanted if listener == user] for user in users}
    return float(np.mean([sum(s in tops[user] for s in songs) / len(songs) for user, songs in of.items()])), len(of)


def bounds(name: str) -> tuple[int, int]:
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    return numbers[0], numbers[-1]


def selectors(graph: HeteroData) -> dict[str, Callable[[str, int, int], bool]]:
    """Whether a pair (user, song) is in the slice of a name, written as the names are read."""
    train = pairs_of(graph, "train_mask")
    listeners = [sum(s == song for _, s in train) for song in range(30)]
    heard = [sum(u == user for u, _ in train) for user in range(40)]
    by = list(map(tuple, graph["song", "by", "artist"].edge_index.T.tolist()))
    size = {artist: sum(a == artist for _, a in by) for _, artist in by}
    largest = [max((size[a] for s, a in by if s == song), default=0) for song in range(30)]
    thirds = popularity_groups(np.array(listeners), 3)

    def cold(name: str, count: int) -> bool:
        return {"no train listener": count == 0, "1 to 5 train listeners": 1 <= count <= 5}.get(name, count > 5)

    return {
        "activity": lambda name, user, song: bounds(name)[0] <= heard[user] <= bounds(name)[1],
        "popularity": lambda name, user, song: ("head", "middle", "tail")[thirds[song]] == name,
        "cold songs": lambda name, user, song: cold(name, listeners[song]),
        "artist size": lambda name, user, song: (
            largest[song] == 0 if name == "no artist" else bounds(name)[0] <= largest[song] <= bounds(name)[1]
        ),
        "kind of listen": lambda name, user, song: True,
    }


@pytest.mark.parametrize("seed", range(3))
def test_every_slice_is_what_its_name_says(make_training_graph: Callable[..., HeteroData], seed: int) -> None:
    graph = make_training_graph(seed=seed, num_rows=300)
    score, test = random_scores(seed), pairs_of(graph, "test_mask")
    model, baseline = (evaluate(one, graph, "test", K) for one in (score, popularity(graph)))
    found = slices(model, {"popularity": baseline}, score, SongFeatures.of(graph))
    assert len(found) == len({(one.dimension, one.name) for one in found})
    for one in found:
        wanted = {pair for pair in test if selectors(graph)[one.dimension](one.name, *pair)}
        recall, users = naive_recall(model, wanted)
        assert (one.interval.mean, one.users, one.pairs) == (pytest.approx(recall), users, len(wanted)), one.name
        assert one.difference is not None
        assert one.difference.mean == pytest.approx(recall - naive_recall(baseline, wanted)[0])
    for dimension in selectors(graph):
        assert sum(one.pairs for one in found if one.dimension == dimension) == len(test)


def test_a_slice_has_its_count_its_interval_and_its_metric(tiny_training_graph: HeteroData) -> None:
    found = sliced(tiny_training_graph, random_scores(0))
    assert {one.dimension for one in found} >= {"activity", "popularity", "artist size", "kind of listen"}
    assert all(one.metric == "recall@5" and one.users > 0 for one in found)
    assert all(one.interval.low <= one.interval.mean <= one.interval.high for one in found)
    assert all(one.difference is None and one.p is None and not one.differs for one in found)


def test_what_was_trained_on_is_no_discovery(tiny_training_graph: HeteroData) -> None:
    score = random_scores(0)
    model = evaluate(score, tiny_training_graph, "train", K)
    found = slices(model, {}, score, SongFeatures.of(tiny_training_graph))
    assert {one.dimension for one in found} == {"activity", "popularity", "cold songs", "artist size"}
    assert {one.metric for one in found} == {"in_sample_recall@5"}


def test_the_strongest_baseline_stands_beside_every_slice(tiny_training_graph: HeteroData) -> None:
    rivals = {"weak": random_scores(1), "strong": knows_the_test_songs(tiny_training_graph), "other": random_scores(2)}
    found = sliced(tiny_training_graph, random_scores(0), rivals)
    assert {one.baseline for one in found} == {"strong"}
    assert all(one.difference is not None and one.difference.mean <= 0 for one in found)


def test_a_difference_is_claimed_only_after_holm(tiny_training_graph: HeteroData) -> None:
    graph = tiny_training_graph
    better = sliced(graph, knows_the_test_songs(graph), {"popularity": popularity(graph)})
    assert [one.p_holm for one in better] == holm([one.p or 0.0 for one in better])
    assert [one.differs for one in better] == [(one.p_holm or 0.0) < 0.05 for one in better]
    assert next(one for one in better if one.name == "discovery").differs
    same = sliced(graph, popularity(graph), {"popularity": popularity(graph)})
    assert {(one.p, one.p_holm, one.differs) for one in same} == {(1.0, 1.0, False)}


@pytest.mark.slow
def test_two_models_of_chance_rarely_differ_anywhere(make_training_graph: Callable[..., HeteroData]) -> None:
    """Without the correction many more files would claim something."""
    graph = make_training_graph(num_users=150, num_rows=3000)
    scores = [random_scores(seed, num_users=150) for seed in range(200)]
    runs = [sliced(graph, one, {"other": other}) for one, other in zip(scores[::2], scores[1::2], strict=True)]
    claimed = np.mean([any(one.differs for one in found) for found in runs])
    uncorrected = np.mean([any((one.p or 0.0) < 0.05 for one in found) for found in runs])
    assert claimed <= 0.1
    assert uncorrected >= 0.2


def add_pairs(graph: HeteroData, **indexes: list[tuple[int, int]]) -> None:
    for name, pairs in indexes.items():
        graph[LISTENS][name] = torch.tensor(pairs).reshape(-1, 2).T.contiguous()


def test_re_listens_are_ranked_with_nothing_hidden(graph: HeteroData) -> None:
    # Users 0 and 3 play songs 0 and 2 again, which they have in train; everybody is offered 0, 1, 2 first.
    add_pairs(graph, relisten_test_index=[(0, 0), (3, 2)], relisten_val_index=[(1, 0)])
    falling = torch.arange(6.0).neg().repeat(5, 1)

    def score(users: Tensor) -> Tensor:
        return falling[users]

    model = evaluate(score, graph, "test", 2)
    found = slices(model, {"popularity": model}, score, SongFeatures.of(graph))
    again = next(one for one in found if one.name == "re-listen")
    assert (again.dimension, again.users, again.pairs, again.interval.mean) == ("kind of listen", 2, 2, 0.5)
    assert again.baseline == "popularity"
    assert again.difference is not None
    assert again.difference.mean == 0.0  # popularity ranks 0, 1, 2 too


def test_new_users_are_those_without_a_train_listen(graph: HeteroData) -> None:
    add_pairs(graph, new_user_test_index=[(4, 0), (4, 5)])
    score = popularity(graph)
    alone = slices(evaluate(score, graph, "test", 1), {}, score, SongFeatures.of(graph))
    new = next(one for one in alone if one.dimension == "new users")
    assert (new.users, new.pairs, new.interval.mean, new.baseline) == (1, 2, 0.5, None)
    assert "nothing is hidden" in new.description


def test_a_slice_without_users_is_left_out(graph: HeteroData) -> None:
    add_pairs(graph, new_user_test_index=[], relisten_test_index=[])
    found = sliced(graph, lambda users: torch.zeros(len(users), 6), {})
    assert {one.dimension for one in found} == {"activity", "popularity", "cold songs", "kind of listen"}
    assert all(one.users for one in found)


def test_slices_are_read_back_as_they_were_written(tiny_training_graph: HeteroData, tmp_path: Path) -> None:
    found = sliced(tiny_training_graph, random_scores(0), {"popularity": popularity(tiny_training_graph)})
    write_slices(tmp_path / "slices.json", found)
    assert read_slices(tmp_path / "slices.json") == found


@pytest.mark.parametrize("text", [None, "{", '[{"name": "head"}]'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "slices.json").write_text(text)
    with pytest.raises(InputError, match=r"slices\.json is not a readable list of slices; evaluate again"):
        read_slices(tmp_path / "slices.json")

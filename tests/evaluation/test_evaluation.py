from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from evaluation.baselines.popular import popularity
from evaluation.evaluation import evaluate
from evaluation.ranking import Score

# Song scores of every user: 0 is best, then 1, and so on.
FALLING = torch.arange(6.0).neg().repeat(5, 1)


def table(scores: Tensor) -> Score:
    return lambda users: scores[users]


def test_users_are_those_with_a_relevant_song_and_train_songs_are_hidden(graph: HeteroData) -> None:
    found = evaluate(table(FALLING), graph, "test", k=2)
    assert found.users.tolist() == [0, 1, 2]
    assert found.eligible_users == 3
    # User 0 sees 2, 3 (test 2; 3 is validation and shown), user 1 sees 1, 2 (test 3, 4), user 2 sees 2, 3 (test 5).
    assert found.per_user["recall@2"].tolist() == [1.0, 0.0, 0.0]
    assert found.mean()["recall@2"] == pytest.approx(1 / 3)


def test_validation_songs_are_not_hidden_from_the_test_lists(graph: HeteroData) -> None:
    prefers_validation = FALLING.clone()
    prefers_validation[0, 3] = 9.0
    assert evaluate(table(prefers_validation), graph, "test", k=1).per_user["recall@1"][0] == 0.0
    assert evaluate(table(prefers_validation), graph, "val", k=1).per_user["recall@1"].tolist() == [1.0, 0.0]


def test_in_sample_hides_nothing_and_says_so(graph: HeteroData) -> None:
    found = evaluate(table(FALLING), graph, "train", k=2)
    assert found.in_sample
    assert found.users.tolist() == [0, 1, 2, 3]
    assert found.per_user["in_sample_recall@2"].tolist() == [1.0, 1.0, 1.0, 0.0]
    assert all(name.startswith("in_sample_") for name in found.mean())
    assert found.record().seen == "none"


def test_without_masks_every_listen_is_in_sample(graph: HeteroData) -> None:
    store = graph["user", "listens", "song"]
    del store.train_mask, store.val_mask, store.test_mask
    assert evaluate(table(FALLING), graph, "train", k=6).per_user["in_sample_precision@6"][0] == pytest.approx(4 / 6)
    with pytest.raises(InputError, match="The graph has no test_mask, so nothing in it was held out"):
        evaluate(table(FALLING), graph, "test", k=2)


def test_several_lengths_come_from_one_ranking(graph: HeteroData) -> None:
    found = evaluate(table(FALLING), graph, "test", k=2, ks=[4, 1])
    assert found.ks == (1, 2, 4)
    alone = evaluate(table(FALLING), graph, "test", k=4)
    assert torch.equal(found.per_user["ndcg@4"], alone.per_user["ndcg@4"])


def test_the_sample_of_users_is_fixed_by_its_seed(graph: HeteroData) -> None:
    one, two = (evaluate(table(FALLING), graph, "test", k=2, num_users=2, seed=4) for _ in range(2))
    assert one.users.tolist() == two.users.tolist() == sorted(one.users.tolist())
    assert len(one.users) == 2
    assert one.eligible_users == 3
    samples = {tuple(evaluate(table(FALLING), graph, "test", 2, 2, seed).users.tolist()) for seed in range(20)}
    assert len(samples) == 3
    assert evaluate(table(FALLING), graph, "test", k=2, num_users=99).users.tolist() == [0, 1, 2]


def test_a_sampled_user_has_the_numbers_of_the_full_run(graph: HeteroData) -> None:
    every, some = evaluate(table(FALLING), graph, "test", 3), evaluate(table(FALLING), graph, "test", 3, num_users=2)
    rows = torch.searchsorted(every.users, some.users)
    assert all(torch.equal(every.per_user[name][rows], values) for name, values in some.per_user.items())


def test_an_empty_part_is_an_error(graph: HeteroData) -> None:
    graph["user", "listens", "song"].test_mask.zero_()
    with pytest.raises(InputError, match="No user has a listen in the part 'test'"):
        evaluate(table(FALLING), graph, "test", k=2)


@pytest.mark.parametrize("k", [0, 7])
def test_eval_k_must_fit_the_songs(graph: HeteroData, k: int) -> None:
    with pytest.raises(InputError, match=f"eval_k is {k}, but there are 6 songs to rank"):
        evaluate(table(FALLING), graph, "test", k=k)


def test_a_length_that_does_not_fit_the_songs_is_said_of_the_key_that_was_set(graph: HeteroData) -> None:
    with pytest.raises(InputError, match="a length in ks is 5000, but there are 6 songs to rank"):
        evaluate(table(FALLING), graph, "test", k=2, ks=[3, 5000])


def test_num_eval_users_must_be_positive(graph: HeteroData) -> None:
    with pytest.raises(InputError, match="num_eval_users is 0"):
        evaluate(table(FALLING), graph, "test", k=2, num_users=0)


def test_popularity_counts_distinct_train_listeners(graph: HeteroData) -> None:
    assert popularity(graph)(torch.tensor([0, 4])).tolist() == [[3, 2, 1, 0, 0, 0]] * 2


def test_the_record_carries_every_number_with_its_interval(graph: HeteroData) -> None:
    model, baseline = (evaluate(score, graph, "test", 2) for score in (table(-FALLING), popularity(graph)))
    record = model.record({"popularity": baseline}, samples=100)
    assert record.watched == "recall@2"
    assert record.metrics["recall@2"].mean == model.mean()["recall@2"]
    gain = record.metrics["recall@2"].mean - record.baselines["popularity"]["recall@2"].mean
    assert record.differences["popularity"]["recall@2"].mean == pytest.approx(gain)
    assert all(found.low <= found.mean <= found.high for found in record.metrics.values())
    assert (record.num_users, record.seen, record.metric_version) == (3, "train", 1)


def test_other_users_or_splits_are_not_compared(graph: HeteroData) -> None:
    model, sampled = (evaluate(popularity(graph), graph, "test", 2, num_users) for num_users in (None, 2))
    with pytest.raises(InputError, match="only on the same users, part and split"):
        model.minus(sampled)


def test_the_split_digest_follows_the_masks(graph: HeteroData) -> None:
    before = evaluate(popularity(graph), graph, "test", 2).split_digest
    store = graph["user", "listens", "song"]
    store.val_mask[0], store.train_mask[0] = True, False
    assert evaluate(popularity(graph), graph, "test", 2).split_digest != before

"""Batches hold every pair once; negatives are songs the user has no train edge to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.graph import LISTENS
from models.item_paths.paths import Neighbors
from trainers.sampling import KnownPairs, batches, known_columns, num_batches, sample_songs, train_pairs


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(count=st.integers(1, 50), size=st.integers(1, 60), seed=st.integers(0, 99))
def test_every_pair_is_in_one_batch(count, size, seed):
    pairs = torch.stack([torch.arange(count), torch.arange(count) * 3])
    parts = list(batches(pairs, size, generator(seed)))
    assert len(parts) == num_batches(pairs, size)
    assert all(part.shape[1] == size for part in parts[:-1])
    assert sorted(torch.cat(parts, dim=1)[0].tolist()) == list(range(count))


@given(num_songs=st.integers(1, 40), count=st.integers(0, 60))
def test_sampled_songs_are_different(num_songs, count):
    songs = sample_songs(num_songs, count, generator())
    assert len(songs.unique()) == len(songs) == (min(count, num_songs) or num_songs)


def test_known_columns_are_where_users_know_candidates():
    listens = Neighbors.of(np.array([0, 0, 2, 2]), np.array([4, 1, 3, 4]), num_rows=3)
    found = known_columns(listens, torch.tensor([0, 1, 2]), torch.tensor([4, 3]), num_songs=5)
    assert found.T.tolist() == [[0, 0], [2, 1], [2, 0]]


pair_sets = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1)


@given(pair_sets, st.integers(0, 99))
def test_negatives_are_not_train_songs_of_the_user(pairs, seed):
    known = KnownPairs(torch.tensor(sorted(pairs)).T, num_songs=9)
    users = torch.arange(8).repeat(20)  # the last ones have no train edge
    negatives = known.negatives(users, generator(seed))
    assert not pairs & set(zip(users.tolist(), negatives.tolist(), strict=True))


@given(pair_sets)
def test_each_unknown_song_is_as_likely_a_negative(pairs):
    known = KnownPairs(torch.tensor(sorted(pairs)).T, num_songs=9)
    negatives = known.negatives(torch.arange(7).repeat_interleave(4000), generator()).view(7, 4000)
    for user, drawn in enumerate(negatives):
        unknown = [song for song in range(9) if (user, song) not in pairs]
        share = drawn.bincount(minlength=9)[unknown] / 4000
        assert share.tolist() == pytest.approx([1 / len(unknown)] * len(unknown), abs=0.05)


def test_a_user_of_all_songs_gets_any_song_and_takes_none_from_others():
    pairs = torch.tensor([[0] * 4 + [1], [0, 1, 2, 3, 2]])
    everything, little = KnownPairs(pairs, 4).negatives(torch.tensor([0, 1]).repeat(100), generator()).view(100, 2).T
    assert set(everything.tolist()) == {0, 1, 2, 3}
    assert set(little.tolist()) == {0, 1, 3}


def test_held_out_songs_may_be_negatives(tiny_training_graph):
    known = KnownPairs(train_pairs(tiny_training_graph), tiny_training_graph["song"].num_nodes)
    listens = tiny_training_graph[LISTENS]
    assert known.contains(*listens.edge_index[:, listens.train_mask]).all()
    assert not known.contains(*listens.edge_index[:, listens.test_mask]).any()


@pytest.mark.parametrize("loss", ["softmax", "bpr"])
def test_each_loss_trains(make_trainer, tiny_graph, loss):
    history = make_trainer("simple", loss=loss).train(tiny_graph, 8)["history"]
    assert history[-1]["loss"] < history[0]["loss"]

"""Which pairs are easy, and when the harder ones come."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from data.errors import InputError
from models.base import Embeddings
from trainers.curriculum import easiest, margins

PAIRS = torch.tensor([[0, 0, 1, 2, 2, 3, 3, 3], [7, 5, 5, 5, 6, 6, 8, 9]])


def easy(trainer, graph, share):
    return easiest(PAIRS, trainer.hardness(graph, PAIRS), share).tolist()


def test_easy_pairs_are_those_of_popular_songs(make_trainer, tiny_graph):
    trainer = make_trainer("curriculum")
    assert easy(trainer, tiny_graph, 3 / 8) == [[0, 1, 2], [5, 5, 5]]
    assert easy(trainer, tiny_graph, 1.0) == PAIRS.tolist()


def test_or_those_of_users_with_many_songs(make_trainer, tiny_graph):
    assert easy(make_trainer("curriculum", difficulty_measure="support"), tiny_graph, 3 / 8) == [[3, 3, 3], [6, 8, 9]]


def test_or_those_that_the_model_finds_itself(make_trainer, tiny_graph):
    trainer = make_trainer("curriculum", difficulty_measure="margin", difficulty_schedule=[0.5], patience=20)
    trainer.train(tiny_graph, 3)
    pairs = tiny_graph["user", "listens", "song"].edge_index
    found = margins(trainer.embeddings(tiny_graph), pairs)
    chosen = easiest(pairs, trainer.hardness(tiny_graph, pairs), 0.5)
    assert margins(trainer.embeddings(tiny_graph), chosen).min() >= found.median()


def test_a_margin_is_against_the_mean_of_all_songs():
    vectors = Embeddings(torch.randn(3, 4), torch.randn(6, 4))
    scores = vectors.user @ vectors.song.T
    users, songs = torch.tensor([0, 2, 2]), torch.tensor([5, 0, 1])
    expected = scores[users, songs] - scores[users].mean(1)
    assert torch.allclose(margins(vectors, torch.stack([users, songs])), expected, atol=1e-6)


def test_by_the_root_the_share_grows_in_each_epoch_and_fast_at_first(make_trainer, tiny_graph):
    keys = {"difficulty_schedule": [0.2, 0.5, 1.0], "epochs_per_stage": 3, "pacing": "root", "patience": 20}
    shares = [record["difficulty"] for record in make_trainer("curriculum", **keys).train(tiny_graph, 9)["history"]]
    steps = [after - before for before, after in pairwise(shares[:7])]
    assert shares[0] == pytest.approx(0.2)
    assert shares[6:] == [1.0, 1.0, 1.0]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] > 0


def test_difficulty_follows_the_schedule(make_trainer, tiny_graph):
    trainer = make_trainer("curriculum", difficulty_schedule=[0.3, 0.6, 1.0], epochs_per_stage=2, patience=20)
    history = trainer.train(tiny_graph, 8)["history"]
    assert [record["difficulty"] for record in history] == [0.3, 0.3, 0.6, 0.6, 1.0, 1.0, 1.0, 1.0]


def test_default_schedule_is_the_guides(make_trainer):
    config = make_trainer("curriculum").config
    assert (config.difficulty_schedule, config.epochs_per_stage) == ((0.2, 0.4, 0.6, 0.8, 1.0), 10)


def test_an_easy_stage_is_no_reason_to_stop(make_trainer, tiny_graph):
    trainer = make_trainer("curriculum", difficulty_schedule=[0.1, 1.0], epochs_per_stage=5, patience=1)
    assert trainer.train(tiny_graph, 30)["epochs_run"] > 5


@pytest.mark.parametrize("schedule", [[], [0.0], [1.2]])
def test_a_schedule_of_no_shares_is_refused(make_trainer, schedule):
    with pytest.raises(InputError, match="difficulty_schedule"):
        make_trainer("curriculum", difficulty_schedule=schedule)

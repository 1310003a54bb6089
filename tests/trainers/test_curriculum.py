"""Which pairs are easy, and when the harder ones come."""

from __future__ import annotations

import pytest
import torch

from data.errors import InputError
from trainers.curriculum import easiest_pairs


def test_easy_pairs_are_those_of_popular_songs():
    pairs = torch.tensor([[0, 0, 1, 2, 2, 3], [7, 5, 5, 5, 6, 6]])
    assert easiest_pairs(pairs, 0.5).tolist() == [[0, 1, 2], [5, 5, 5]]
    assert torch.equal(easiest_pairs(pairs, 1.0), pairs)


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

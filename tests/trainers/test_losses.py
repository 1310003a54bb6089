"""Losses against their formulas, written out."""

from __future__ import annotations

import math

import pytest
import torch

from trainers import losses
from trainers.losses import Candidates, bpr, sampled_softmax


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(0)

    def draw(rows):
        return torch.randn(rows, 3, generator=generator, dtype=torch.float64, requires_grad=True)

    return draw


def naive_softmax(users, songs, rows, candidates, temperature):
    total = 0.0
    correction = candidates.population / len(candidates.vectors)
    known = set(map(tuple, candidates.known.T.tolist()))
    for row, song in zip(rows.tolist(), songs, strict=True):
        positive = users[row] @ song / temperature
        others = [users[row] @ v / temperature for c, v in enumerate(candidates.vectors) if (row, c) not in known]
        total = total - positive + torch.log(positive.exp() + correction * sum(score.exp() for score in others))
    return total / len(rows)


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
def test_softmax_and_its_gradients_equal_the_formula(vectors, monkeypatch, block):
    users, songs, others = vectors(4), vectors(7), vectors(5)
    rows = torch.tensor([0, 0, 0, 1, 2, 3, 3])
    candidates = Candidates(others, torch.tensor([[0, 0, 1, 3], [1, 4, 2, 0]]), population=10)
    monkeypatch.setattr(losses, "MAX_LOGITS", block * 5)
    ours, theirs = (f(users, songs, rows, candidates, 0.5) for f in (sampled_softmax, naive_softmax))
    assert ours.item() == pytest.approx(theirs.item())
    leaves = (users, songs, others)
    for ours_grad, theirs_grad in zip(
        torch.autograd.grad(3 * ours, leaves), torch.autograd.grad(3 * theirs, leaves), strict=True
    ):
        assert torch.allclose(ours_grad, theirs_grad)


def test_softmax_over_all_songs_is_the_cross_entropy(vectors):
    users, songs = vectors(3), vectors(6)
    chosen = torch.tensor([2, 0, 5])
    known = torch.stack([torch.arange(3), chosen])
    ours = sampled_softmax(users, songs[chosen], torch.arange(3), Candidates(songs, known, 6), 0.1)
    assert ours.item() == pytest.approx(torch.nn.functional.cross_entropy(users @ songs.T / 0.1, chosen).item())


def test_a_user_who_knows_every_candidate_costs_nothing(vectors):
    users, songs = vectors(1), vectors(2)
    known = torch.tensor([[0, 0], [0, 1]])
    loss = sampled_softmax(users, songs, torch.zeros(2, dtype=torch.long), Candidates(songs, known, 2), 0.1)
    assert loss.item() == pytest.approx(0.0)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, (users, songs)))


def test_bpr_of_equal_scores_is_log_two(vectors):
    users, songs = vectors(3), vectors(3)
    assert bpr(users, songs, songs, 0.1).item() == pytest.approx(math.log(2))


def test_bpr_equals_the_formula(vectors):
    users, songs, negatives = vectors(3), vectors(3), vectors(3)
    margins = [(u @ i - u @ j).item() / 0.2 for u, i, j in zip(users, songs, negatives, strict=True)]
    expected = sum(math.log(1 + math.exp(-margin)) for margin in margins) / 3
    assert bpr(users, songs, negatives, 0.2).item() == pytest.approx(expected)

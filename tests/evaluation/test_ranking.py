from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data.errors import InputError
from evaluation import ranking
from evaluation.ranking import Score, rank, rows_of
from evaluation.vector_scores import VectorScores


def table(scores: Tensor) -> Score:
    return lambda users: scores[users]


def naive(scores: list[float], hidden: set[int], k: int) -> list[int]:
    order = sorted((song for song in range(len(scores)) if song not in hidden), key=lambda song: (-scores[song], song))
    return (order + [-1] * k)[:k]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[float]], list[set[int]], int]:
    num_songs, num_users = draw(st.integers(1, 10)), draw(st.integers(1, 6))
    levels = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 2.0])  # few levels, so that most places are contested
    scores = [draw(st.lists(levels, min_size=num_songs, max_size=num_songs)) for _ in range(num_users)]
    hidden = [draw(st.sets(st.integers(0, num_songs - 1))) for _ in range(num_users)]
    return scores, hidden, draw(st.integers(1, num_songs))


@given(cases(), st.sampled_from([1, 2, 7, 1024, None]), st.randoms(use_true_random=False))
def test_equals_sorting_by_score_and_index(case, batch_size, random) -> None:
    scores, hidden, k = case
    users = list(range(len(scores)))
    random.shuffle(users)
    users = users[: random.randint(1, len(users))]
    pairs = torch.tensor([(user, song) for user, songs in enumerate(hidden) for song in songs], dtype=torch.int64)
    ranked = rank(table(torch.tensor(scores)), torch.tensor(users), pairs.reshape(-1, 2).T, k, batch_size)
    assert ranked.items.tolist() == [naive(scores[user], hidden[user], k) for user in users]
    for user, items, values in zip(users, ranked.items.tolist(), ranked.scores.tolist(), strict=True):
        assert values == [scores[user][song] if song >= 0 else -torch.inf for song in items]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 32, 129]))
def test_a_dot_product_ranks_the_same_at_any_batch_size(seed: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    user, song = torch.randn(50, dim, generator=generator), torch.randn(300, dim, generator=generator)
    song[100:200] = song[:100] + 1e-7 * torch.randn(100, dim, generator=generator)  # near ties
    song[200:] = song[:100]  # exact ties
    score = VectorScores(user, song)
    first, *others = [rank(score, torch.arange(50), None, 60, size) for size in (1, 7, 1024)]
    assert all(torch.equal(first.items, other.items) and torch.equal(first.scores, other.scores) for other in others)
    torch.testing.assert_close(score(torch.arange(50)), user @ song.T, rtol=0, atol=1e-4)


def test_equal_embeddings_are_ordered_by_index() -> None:
    ranked = rank(VectorScores(torch.ones(1, 4), torch.ones(1000, 4)), torch.tensor([0]), None, 20)
    assert ranked.items.tolist() == [list(range(20))]


def test_the_scores_of_the_caller_are_not_written_to() -> None:
    scores = torch.zeros(2, 3)
    rank(lambda users: scores, torch.tensor([0, 1]), torch.tensor([[0], [1]]), 3, batch_size=2)
    assert scores.eq(0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_is_named(bad: float) -> None:
    scores = torch.zeros(4, 5)
    scores[2, 3] = bad
    with pytest.raises(InputError, match=r"score of song 3 for user 2 is -?(nan|inf); scores must be finite"):
        rank(table(scores), torch.arange(4), None, 2)


def test_k_above_the_number_of_songs_is_refused() -> None:
    with pytest.raises(InputError, match="eval_k is 6, but there are 5 songs to rank"):
        rank(table(torch.zeros(1, 5)), torch.tensor([0]), None, 6)


SCORES: dict[str, Callable[[], Score]] = {
    "vectors": lambda: VectorScores(torch.ones(2, 4), torch.ones(3, 4)),
    "matrix": lambda: table(torch.zeros(2, 3)),
    "vectors on a GPU": lambda: VectorScores(torch.ones(2, 4).cuda(), torch.ones(3, 4).cuda()),
    "matrix on a GPU": lambda: table(torch.zeros(2, 3).cuda()),
}
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
EVERY_SCORE = pytest.mark.parametrize(
    "make", [pytest.param(make, id=name, marks=[NEEDS_GPU] if "GPU" in name else []) for name, make in SCORES.items()]
)


@EVERY_SCORE
@pytest.mark.parametrize("batch_size", [1, None])
@pytest.mark.parametrize("song", [3, 10_000_000, -1, -(2**63), 2**63 - 1])
def test_a_hidden_song_that_there_is_not_is_refused(
    make: Callable[[], Score], batch_size: int | None, song: int
) -> None:
    """A loop that marked it would write into memory that is not its own."""
    hidden = torch.tensor([[0, 1], [2, song]])
    with pytest.raises(InputError, match=f"A hidden pair has the song {song}, but there are 3 songs to rank"):
        rank(make(), torch.arange(2), hidden, 2, batch_size)


@EVERY_SCORE
@pytest.mark.parametrize(("users", "hider"), [([0, -1], 0), ([0, 1], -1)])
def test_a_negative_user_is_not_taken_for_the_last(make: Callable[[], Score], users: list[int], hider: int) -> None:
    with pytest.raises(InputError, match="There is a user -1 among those to rank or to hide songs from"):
        rank(make(), torch.tensor(users), torch.tensor([[hider], [2]]), 2)


def test_rows_of_renumbers_and_orders() -> None:
    edges = torch.tensor([[5, 2, 9, 2], [0, 1, 2, 3]])
    assert rows_of(edges, torch.tensor([9, 2])).tolist() == [[0, 1, 1], [2, 1, 3]]


def test_never_asks_for_more_scores_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", 40)
    asked: list[int] = []

    def score(users: Tensor) -> Tensor:
        asked.append(10 * len(users))
        return torch.zeros(len(users), 10)

    assert rank(score, torch.arange(33), None, 3).items.shape == (33, 3)
    assert max(asked) <= 40


def test_no_users_have_no_lists() -> None:
    assert rank(table(torch.zeros(1, 5)), torch.empty(0, dtype=torch.int64), None, 3).items.shape == (0, 3)


def test_scores_of_a_model_in_training_are_ranked_without_gradients() -> None:
    weights = torch.ones(2, 3, requires_grad=True)
    assert not rank(lambda users: weights[users] * 2, torch.arange(2), None, 2).scores.requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("size", [1, 7, 1024, None])
def test_a_gpu_ranks_as_a_cpu_does_at_any_batch_size(size: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    user, song = torch.randn(200, 64, generator=generator), torch.randn(3000, 64, generator=generator)
    song[1500:] = song[:1500] + 1e-7 * torch.randn(1500, 64, generator=generator)  # near ties, and exact ones
    hidden = torch.stack([torch.arange(200), torch.randint(3000, (200,), generator=generator)])
    here, there = VectorScores(user, song), VectorScores(user.cuda(), song.cuda())
    expected, found = (rank(score, torch.arange(200), hidden, 100, size) for score in (here, there))
    assert torch.equal(expected.items, found.items)
    assert torch.equal(expected.scores, found.scores)
    ties = torch.randint(4, (200, 3000), generator=generator).float()
    expected, found = (rank(table(scores), torch.arange(200), hidden, 100, size) for scores in (ties, ties.cuda()))
    assert torch.equal(expected.items, found.items)


@given(st.sampled_from([1, 3, 10]), st.integers(1, 40))
def test_a_batch_is_all_that_is_held_of_the_scores(batch_size: int, num_users: int) -> None:
    alive: list[weakref.ref[Tensor]] = []

    def score(users: Tensor) -> Tensor:
        assert sum(ref() is not None for ref in alive) <= 1  # the batch before may still be there, none before it
        scores = torch.rand(len(users), 50)
        alive.append(weakref.ref(scores))
        assert len(users) <= batch_size
        return scores

    rank(score, torch.arange(num_users), None, 5, batch_size)

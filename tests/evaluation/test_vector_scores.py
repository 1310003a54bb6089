"""The best songs without exact scores of all, against exact scores of all; and how far float32 products may be off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data.errors import InputError
from evaluation.ranking import Ranked, TopKFinder, rank
from evaluation.vector_scores import HiddenSongs, VectorScores
from models.item_paths.local_scorer import LocalScorer, PathHeads
from models.item_paths.paths import Neighbors, Paths

whenever_compiled = settings(deadline=None)  # the first example may have to wait for the compiler

USERS, SONGS = 40, 400


def near_ties(seed: int, dim: int = 16, songs: int = SONGS, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Vectors of users and songs, of which half have a twin: some a last place away, some the same."""
    generator = torch.Generator().manual_seed(seed)
    user, song = torch.randn(USERS, dim, generator=generator), torch.randn(songs, dim, generator=generator)
    half, quarter = songs // 2, songs // 4
    song[half : 2 * half] = song[:half]
    song[half : half + quarter] *= 1 + 1e-7 * torch.randint(-2, 3, (quarter, dim), generator=generator)
    return user * scale, song


def some_hidden(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.stack([torch.randint(high, (2000,), generator=generator) for high in (USERS, SONGS)])
    return torch.unique(pairs, dim=1)


def channel(seed: int, songs: int = SONGS, gates: float = 1.0) -> LocalScorer:
    """A local channel of random listens and parameters; user 0 has no songs."""
    rng = np.random.default_rng(seed)
    user, song = np.unique(rng.integers((1, 0), (USERS, songs), (600, 2)), axis=0).T
    by, artist = np.unique(rng.integers(0, (songs, 60), (300, 2)), axis=0).T

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return LocalScorer(
        Neighbors.of(user, song, USERS),
        (
            PathHeads(Paths.of(song, user, songs, USERS, (0.3, 1.0)), draw(2, 5)),
            PathHeads(Paths.of(by, artist, songs, 60, (0.5,)), draw(1, 4)),
        ),
        user_power=draw(3),
        gates=gates * draw(4, 3),
        popularity=float(draw()),
    )


def by_all_scores(score: VectorScores, users: Tensor, hidden: Tensor | None, k: int) -> Ranked:
    return rank(lambda rows: score(rows), users, hidden, k)


def assert_the_same(score: VectorScores, users: Tensor, hidden: Tensor | None, k: int, size: int | None = None) -> None:
    found, expected = rank(score, users, hidden, k, size), by_all_scores(score, users, hidden, k)
    assert torch.equal(found.items, expected.items)
    assert torch.equal(found.scores, expected.scores)


locals_ = st.sampled_from([lambda seed: None, channel])


@whenever_compiled
@given(
    st.integers(0, 2**31),
    locals_,
    st.sampled_from([1, 3, 20, SONGS]),
    st.sampled_from([1, 7, None]),
    st.sampled_from([1, 3, 16, 129]),
    st.sampled_from([1e-3, 1.0, 1e5]),
)
def test_lists_are_those_of_all_exact_scores(
    seed: int, local: Callable[[int], Any], k: int, size: int | None, dim: int, scale: float
) -> None:
    score = VectorScores(*near_ties(seed, dim, scale=scale), local(seed))
    users = torch.randperm(USERS, generator=torch.Generator().manual_seed(seed))[: 1 + seed % USERS]
    for hidden in (some_hidden(seed), None):
        assert_the_same(score, users, hidden, k, size)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_lists_depend_neither_on_the_batch_nor_on_the_threads(
    monkeypatch: pytest.MonkeyPatch, threads: str, local: bool
) -> None:
    score = VectorScores(*near_ties(0), channel(0) if local else None)
    expected = by_all_scores(score, torch.arange(USERS), some_hidden(0), 30)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    for size in (1, 3, 40, None):
        found = rank(score, torch.arange(USERS), some_hidden(0), 30, size)
        assert torch.equal(found.items, expected.items)
        assert torch.equal(found.scores, expected.scores)


def taken(score: VectorScores, k: int = 5) -> bool:
    """Whether it finds the lists without all scores."""
    hidden = HiddenSongs(np.zeros(USERS + 1, dtype=np.int64), np.empty(0, dtype=np.int64))
    return score.best(torch.arange(USERS), hidden, k, 7) is not None


@pytest.mark.parametrize("local", [None, channel(0)])
def test_usual_vectors_are_ranked_without_all_scores(local: LocalScorer | None) -> None:
    score = VectorScores(*near_ties(0), local)
    assert isinstance(score, TopKFinder)
    assert taken(score)


@pytest.mark.parametrize("with_local", [False, True])
def test_a_list_that_took_the_float32_product_at_its_word_would_be_another(
    monkeypatch: pytest.MonkeyPatch, with_local: bool
) -> None:
    """The 21st place is between twins, whom the local channel does not tell apart."""
    local = channel(0)
    local.gates[:], local.popularity = [[0.0] * 3] * 3 + [[0.7, 0.0, 0.0]], 0.0
    score = VectorScores(*near_ties(1, dim=200), local if with_local else None)
    expected = by_all_scores(score, torch.arange(USERS), None, 21)
    assert torch.equal(rank(score, torch.arange(USERS), None, 21).items, expected.items)
    monkeypatch.setattr(VectorScores, "_product_error", lambda self, user: np.zeros(len(user)))
    monkeypatch.setattr(VectorScores, "_local_error", lambda self, error, user, gates: error)
    assert not torch.equal(rank(score, torch.arange(USERS), None, 21).items, expected.items)


@whenever_compiled
@given(st.integers(0, 2**31), st.sampled_from([1, 16, 200]), st.sampled_from([1e-30, 1.0, 1e6]))
def test_a_float32_product_is_no_further_off_than_said(seed: int, dim: int, scale: float) -> None:
    user, song = near_ties(seed, dim, scale=scale)
    user[0], song[0] = 0.0, 1e-25  # products below the smallest full precision
    score = VectorScores(user, song)
    rows = score._users(torch.arange(USERS)).astype(np.float32)
    exact, songs = score(torch.arange(USERS)).double(), torch.from_numpy(score._songs)
    error = torch.from_numpy(score._product_error(rows))[:, None]
    for order in (torch.arange(dim), torch.randperm(dim, generator=torch.Generator().manual_seed(seed))):
        product = torch.from_numpy(rows)[:, order] @ songs[:, order].T
        assert ((product.double() - exact).abs() <= error).all()


@whenever_compiled
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1e-6, 1.0]), st.sampled_from([0.01, 1.0, 100.0]))
def test_a_score_moves_no_further_than_said_when_its_similarity_does(seed: int, error: float, gates: float) -> None:
    user, song = near_ties(seed)
    local = channel(seed, gates=gates)
    score, users = VectorScores(user, song, local), np.arange(USERS)
    _, prepared = local.kernel_inputs(users, SONGS)
    rng = np.random.default_rng(seed)
    exact = rng.uniform(-1, 1, (USERS, SONGS)).astype(np.float32) * score._largest_product(user.numpy())[:, None]
    exact = exact.astype(np.float32)
    moved = (exact + rng.choice([-error, error], exact.shape)).astype(np.float32)
    off = np.abs(exact - moved.astype(np.float64)).max(1)
    bound = score._local_error(off, user.numpy(), prepared)[:, None]
    assert (np.abs(local(users, exact.copy()).astype(np.float64) - local(users, moved.copy())) <= bound).all()


def test_all_songs_alike_are_listed_by_index() -> None:
    score = VectorScores(torch.ones(3, 8), torch.ones(5000, 8))
    hidden = torch.tensor([[1, 1], [0, 2]])
    found = rank(score, torch.arange(3), hidden, 4).items
    assert found.tolist() == [[0, 1, 2, 3], [1, 3, 4, 5], [0, 1, 2, 3]]
    assert taken_by(score)


def taken_by(score: VectorScores) -> bool:
    hidden = HiddenSongs(np.zeros(4, dtype=np.int64), np.empty(0, dtype=np.int64))
    return score.best(torch.arange(3), hidden, 4, 2) is not None


@pytest.mark.parametrize("local", [None, channel(0)])
def test_a_user_of_whom_all_is_hidden_has_an_empty_list(local: LocalScorer | None) -> None:
    hidden = torch.stack([torch.full((SONGS - 2,), 3), torch.arange(2, SONGS)])
    found = rank(VectorScores(*near_ties(0), local), torch.arange(USERS), hidden, 4)
    assert set(found.items[3, :2].tolist()) == {0, 1}
    assert found.items[3, 2:].tolist() == [-1, -1]
    assert found.scores[3, 2:].tolist() == [-torch.inf] * 2


@pytest.mark.parametrize("local", [None, channel(0)])
@pytest.mark.parametrize(("place", "value"), [("user", torch.nan), ("song", torch.nan), ("song", torch.inf)])
def test_scores_that_are_not_finite_are_refused_though_they_are_never_all_computed(
    local: LocalScorer | None, place: str, value: float
) -> None:
    user, song = near_ties(0)
    {"user": user, "song": song}[place][5, 0] = value
    with pytest.raises(InputError, match=r"The model's score of song \d+ for user \d+ is"):
        rank(VectorScores(user, song, local), torch.arange(USERS), None, 5)


@pytest.mark.parametrize("scale", [1e-42, 1e19, 1e30])
def test_products_that_float32_has_no_room_for_are_ranked_by_all_scores(scale: float) -> None:
    user, song = near_ties(0, scale=scale)
    score = VectorScores(user, song * (1e9 if scale > 1 else 1.0))
    try:
        expected = by_all_scores(score, torch.arange(USERS), None, 5)
    except InputError as refused:
        with pytest.raises(InputError, match=str(refused)):
            rank(score, torch.arange(USERS), None, 5)
    else:
        assert torch.equal(rank(score, torch.arange(USERS), None, 5).items, expected.items)


def test_vectors_of_other_users_than_the_channel_knows_are_refused() -> None:
    user, song = near_ties(0, songs=SONGS - 1)
    with pytest.raises(InputError, match="The local channel knows 40 users and 400 songs, and is asked for user"):
        rank(VectorScores(user, song, channel(0)), torch.arange(USERS), None, 5)


def test_k_above_the_number_of_songs_is_refused() -> None:
    with pytest.raises(InputError, match="eval_k is 401, but there are 400 songs to rank"):
        rank(VectorScores(*near_ties(0)), torch.arange(USERS), None, 401)

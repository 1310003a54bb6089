"""Rank all songs exactly and keep the top k, in batches of users."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from data.errors import InputError
from evaluation.vector_scores import HiddenSongs
from models.kernels.top_songs import TopSongs

Score = Callable[[Tensor], Tensor]
"""A score function: takes users (B,) int64, returns finite scores (B, S) of every song."""

SCORES_AT_ONCE = 2**22
"""Scores in a batch if no batch size is given: 16 MB of float32, for any number of songs."""

PRODUCTS_AT_ONCE = 2**23
"""The same for a ``TopKFinder``; a larger product takes less time per user."""


class Ranked(NamedTuple):
    """The best songs of N users, best first.

    ``items`` (N, k) int64 song indices, -1 in the last places if a user has fewer than k songs left; ``scores`` (N, k),
    -inf in these places.
    """

    items: Tensor
    scores: Tensor


@runtime_checkable
class TopKFinder(Protocol):
    """A score function that finds the best songs itself, without computing all scores."""

    @property
    def num_songs(self) -> int:
        """Number of songs that it scores."""

    def best(self, users: Tensor, hidden: HiddenSongs, k: int, at_once: int) -> TopSongs | None:
        """Return the lists of users (N,) exactly as ``rank`` would; None if ``rank`` has to look at all scores."""


@torch.no_grad()
def rank(score: Score, users: Tensor, hidden: Tensor | None, k: int, batch_size: int | None = None) -> Ranked:
    """Rank every song for each user and keep the best k; equal scores are ordered by song index.

    Args:
        score: the score function; the width of its result is the number of songs.
        users: (N,) distinct user indices.
        hidden: (2, H) user and song indices of the pairs that must not appear, or None.
        k: length of the lists, at most the number of songs.
        batch_size: users to rank at once; the result does not depend on it. None bounds the memory instead.

    Returns:
        lists on the CPU, in the order of ``users``.

    Raises:
        InputError: a score is NaN or infinite, k is above the number of songs, or no song or user has a given index.
    """
    if users.numel() == 0:
        return Ranked(torch.empty((0, k), dtype=torch.int64), torch.empty((0, k)))
    num_songs = score.num_songs if isinstance(score, TopKFinder) else score(users[:1]).shape[1]
    hidden = hidden.cpu() if hidden is not None else torch.empty((2, 0), dtype=torch.int64)
    check_k(k, num_songs)
    _check_indices(users.cpu(), hidden, num_songs)
    finds_top_k = isinstance(score, TopKFinder)
    size = batch_size or max(1, (PRODUCTS_AT_ONCE if finds_top_k else SCORES_AT_ONCE) // num_songs)
    pairs = rows_of(hidden, users.cpu())
    if isinstance(score, TopKFinder):
        start = torch.searchsorted(pairs[0].contiguous(), torch.arange(len(users) + 1))
        if found := score.best(users, HiddenSongs(start.numpy(), pairs[1].numpy()), k, size):
            return Ranked(torch.from_numpy(found.items), torch.from_numpy(found.scores))
    batches = [_rank_batch(score, rows, own, k) for rows, own in _batches(users, pairs, size)]
    return Ranked(torch.cat([batch.items for batch in batches]), torch.cat([batch.scores for batch in batches]))


def rows_of(edges: Tensor, users: Tensor) -> Tensor:
    """Select the pairs of the given users (N,) from ``edges`` (2, E), and order them by row.

    Returns:
        (2, R) row of the user in ``users``, and song.
    """
    top = int(max(edges[0].max() if edges.numel() else 0, users.max() if users.numel() else 0)) + 1
    row = torch.full((top,), -1, dtype=torch.int64)
    row[users] = torch.arange(users.numel())
    rows = row[edges[0]]
    order = torch.argsort(rows, stable=True)[int((rows < 0).sum()) :]
    return torch.stack([rows[order], edges[1][order]])  # (2, R)


def check_k(k: int, num_songs: int, key: str = "eval_k") -> None:
    """Refuse a list length above the number of songs; ``key`` is the name of the setting in the error."""
    if not 1 <= k <= num_songs:
        raise InputError(
            f"{key} is {k}, but there are {num_songs} songs to rank; choose a whole number from 1 to {num_songs}."
        )


def _check_indices(users: Tensor, hidden: Tensor, num_songs: int) -> None:
    """Refuse indices out of range: compiled loops do not check them, and -1 would mean the last user or song."""
    low, high = _bounds(hidden[1])
    if low < 0 or high >= num_songs:
        raise InputError(
            f"A hidden pair has the song {low if low < 0 else high}, but there are {num_songs} songs to rank, counted "
            "from 0; take the pairs and the scores from one graph."
        )
    lowest = min(_bounds(users)[0], _bounds(hidden[0])[0])
    if lowest < 0:
        raise InputError(
            f"There is a user {lowest} among those to rank or to hide songs from; users are counted from 0."
        )


def _bounds(indices: Tensor) -> tuple[int, int]:
    """Return the smallest and the largest index; 0 and -1 if there is none."""
    low, high = torch.aminmax(indices) if indices.numel() else (0, -1)
    return int(low), int(high)


def _batches(users: Tensor, pairs: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the users of each batch and their hidden pairs, with rows counted from the start of the batch."""
    starts = range(0, users.numel(), size)
    bounds = torch.searchsorted(pairs[0].contiguous(), torch.tensor([*starts, users.numel()]))
    for start, low, high in zip(starts, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield users[start : start + size], pairs[:, low:high] - torch.tensor([[start], [0]])


def _rank_batch(score: Score, users: Tensor, hidden: Tensor, k: int) -> Ranked:
    scores = score(users)
    _check_finite(scores, users)
    if hidden.numel():
        rows, songs = hidden.to(scores.device)
        scores = scores.clone().index_put_((rows, songs), scores.new_tensor(-torch.inf))
    items, values = _top_k(scores, k)
    return Ranked(items.masked_fill(values == -torch.inf, -1).cpu(), values.cpu())


def _check_finite(scores: Tensor, users: Tensor) -> None:
    low, high = torch.aminmax(scores)  # one pass; a NaN makes both NaN
    if torch.isfinite(low) and torch.isfinite(high):
        return
    row, song = (int(index) for index in torch.nonzero(~torch.isfinite(scores))[0])
    raise InputError(
        f"The model's score of song {song} for user {int(users[row])} is {float(scores[row, song])}; scores must be "
        "finite numbers. The training has probably diverged: lower the learning rate."
    )


def _top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the first k items and values, by falling score and then by rising index.

    ``topk`` alone may keep any of several songs whose scores equal the k-th.
    """
    values, items = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    is_tied = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    if values.shape[1] > k:
        is_tied = values[:, k] == values[:, k - 1]
    values, items = values[:, :k], items[:, :k]
    items, by_index = items.sort(dim=1)
    values, by_score = values.gather(1, by_index).sort(dim=1, descending=True, stable=True)
    items = items.gather(1, by_score)
    if is_tied.any():
        items[is_tied] = _break_ties(scores[is_tied], values[is_tied], items[is_tied])
    return items, values


def _break_ties(scores: Tensor, values: Tensor, items: Tensor) -> Tensor:
    """Give the places with the k-th score to the songs of lowest index that have this score."""
    num_songs, k = scores.shape[1], values.shape[1]
    kth = values[:, -1:]
    from_end = torch.arange(num_songs, 0, -1, dtype=torch.int32, device=scores.device)
    tied = torch.where(scores == kth, from_end, 0).topk(k, dim=1).indices  # lowest index first
    above = (values > kth).sum(dim=1, keepdim=True)
    place = torch.arange(k, device=scores.device) - above
    return torch.where(place < 0, items, tied.gather(1, place.clamp(min=0)))

"""Measures challenger and champion on the same users and pairs, each with the scores of its own bundle.

A user whom one of them does not know gets an empty list from it, and a song that it does not know cannot be in its
lists: both count as misses. The decision is made in ``registry.gate.decide``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evaluation.metrics.accuracy import hits_and_sizes, recall
from evaluation.metrics.beyond_accuracy import artist_diversity
from evaluation.metrics.exposure import THIRDS, popularity_groups
from evaluation.ranking import rows_of
from registry.bundle.manifest import ScoreFiles
from registry.gate.align import AlignedModel, align

COLD_SHARE = 0.25
"""Share of the users who count as cold: those with the fewest train songs."""

Floats = npt.NDArray[np.float64]
Lists = tuple[Tensor, Tensor]
"""(N, k) songs of the challenger and of the champion."""


@dataclass(frozen=True)
class Paired:
    """One quantity of both models, (N,) and (N,), on the same users in the same order."""

    challenger: Floats
    champion: Floats

    def __len__(self) -> int:
        return len(self.challenger)

    @property
    def difference(self) -> Floats:
        """Return challenger minus champion, (N,)."""
        return self.challenger - self.champion


@dataclass(frozen=True)
class Comparison:
    """All that was measured on both models."""

    watched: Paired = field(repr=False)
    """Recall at k on every user whom at least one of the two knows."""
    common: Paired = field(repr=False)
    """Recall at k on users, songs and pairs that both know; each model ranks only these songs."""
    guarded: Mapping[str, Paired] = field(default_factory=dict, repr=False)
    """Name of a guardrail to its quantity; without rows if the data has none."""


def compare(challenger: Path, champion: Path, k: int, files: tuple[ScoreFiles, ScoreFiles]) -> Comparison:
    """Rank with both models and measure both.

    The relevant pairs are the challenger's test pairs that the champion has seen neither in train nor in validation.
    Songs on which either model was trained are hidden from both.

    Args:
        challenger: folder of its bundle.
        champion: folder of its bundle, with ``registry.gate.decide.COMPARED_FILES`` at least.
        k: length of the lists.
        files: the files that each is scored by.
    """
    models = ours, theirs = align(challenger, champion, files)
    relevant, hidden = _relevant(ours, theirs), torch.cat([model.pairs["train"] for model in models], dim=1)
    users = torch.unique(relevant[0])
    known = users[ours.knows(users) & theirs.knows(users)]
    lists = _rank_both(models, users, hidden, k)
    by = torch.unique(torch.cat([ours.by, theirs.by], dim=1), dim=1)
    guarded = {
        "coverage": _paired(lists, lambda items: _coverage_by_user(items, ours.songs.size)),
        "tail recall": _recall(lists, users, relevant[:, _in_tail(ours, relevant[1])]),
        "cold users' recall": _recall(lists, users, relevant[:, _is_cold(ours, users, relevant[0])]),
        "artist diversity": _diversity(lists, torch.isin(users, known), by),
    }
    common = _on_common(models, lists, users, relevant[:, torch.isin(relevant[0], known)], hidden)
    return Comparison(_recall(lists, users, relevant), common, guarded)


def _relevant(ours: AlignedModel, theirs: AlignedModel) -> Tensor:
    """Return the pairs (2, R) that neither has seen, of users whom at least one of the two knows."""
    tested = ours.pairs["test"]
    tested = tested[:, ours.knows(tested[0]) | theirs.knows(tested[0])]
    seen = torch.cat([theirs.pairs["train"], theirs.pairs["val"]], dim=1)
    width = ours.songs.size
    return tested[:, ~torch.isin(tested[0] * width + tested[1], seen[0] * width + seen[1])]


def _rank_both(models: tuple[AlignedModel, AlignedModel], users: Tensor, hidden: Tensor, k: int) -> Lists:
    challenger, champion = (model.lists(users, hidden, k) for model in models)
    return challenger, champion


def _paired(lists: Lists, quantity: Callable[[Tensor], Floats]) -> Paired:
    challenger, champion = (quantity(items) for items in lists)
    return Paired(challenger, champion)


def _on_common(
    models: tuple[AlignedModel, AlignedModel], lists: Lists, users: Tensor, relevant: Tensor, hidden: Tensor
) -> Paired:
    """Measure recall on the songs that both can list; the models rank again only if their songs differ."""
    ours, theirs = models
    songs = ours.songs.nodes[torch.isin(ours.songs.nodes, theirs.songs.nodes)]
    if len(songs) == ours.songs.size:
        return _recall(lists, users, relevant)
    relevant = relevant[:, torch.isin(relevant[1], songs)]
    users = torch.unique(relevant[0])
    again = _rank_both((ours.only(songs), theirs.only(songs)), users, hidden, lists[0].shape[1])
    return _recall(again, users, relevant)


def _recall(lists: Lists, users: Tensor, relevant: Tensor) -> Paired:
    """Measure recall of the users (N,) who have a relevant pair (2, R); see ``evaluation.metrics.accuracy``."""
    counted = torch.isin(users, relevant[0])
    rows = rows_of(relevant, users[counted])

    def of_model(items: Tensor) -> Floats:
        k = items.shape[1]
        found: Floats = recall(*hits_and_sizes(items[counted], rows, k), k).numpy() if counted.any() else np.zeros(0)
        return found

    return _paired(lists, of_model)


def _coverage_by_user(items: Tensor, num_songs: int) -> Floats:
    """Return numbers (N,) whose mean is the share of songs in any list, and whose spread is that share's.

    Coverage is no mean over users. Taking a user away takes away the songs that only this user is shown, so the
    jackknife's variance of it is that of these counts; it is never too small on average (Efron and Stein, "The
    jackknife estimate of variance", 1981).
    """
    row, place = torch.nonzero(items >= 0, as_tuple=True)
    songs = items[row, place]
    listings = torch.bincount(songs, minlength=num_songs)
    alone = torch.bincount(row[listings[songs] == 1], minlength=len(items)).double().numpy()
    covered = int((listings > 0).sum())
    by_user: Floats = (covered + (alone - alone.mean()) * (len(items) - 1)) / num_songs if len(items) else alone
    return by_user


def _in_tail(ours: AlignedModel, songs: Tensor) -> Tensor:
    """Return for each song (R,) if it is in the tail: the least heard, with a third of the challenger's train plays."""
    listeners = torch.bincount(ours.pairs["train"][1], minlength=ours.songs.size)
    group = popularity_groups(listeners.numpy(), len(THIRDS))
    return torch.from_numpy(group == THIRDS.index("tail"))[songs]


def _is_cold(ours: AlignedModel, users: Tensor, of_pairs: Tensor) -> Tensor:
    """Return for each pair (R,) if its user is cold, by the challenger's train songs."""
    songs = torch.bincount(ours.pairs["train"][0], minlength=ours.users.size)
    if not len(users):
        return torch.zeros(0, dtype=torch.bool)
    return songs[of_pairs] <= torch.quantile(songs[users].double(), COLD_SHARE)


def _diversity(lists: Lists, known: Tensor, by: Tensor) -> Paired:
    """Measure pairs of songs without a common artist, on users with a list from both; no rows without artists."""
    chosen = known if by.numel() else torch.zeros_like(known)
    return _paired(lists, lambda items: artist_diversity(items[chosen], by).numpy() if chosen.any() else np.zeros(0))

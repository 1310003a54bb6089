"""Challenger and champion on the same users and pairs, each scored with what its own graph taught it.

A user whom one of them does not know gets an empty list from it, and a song that it does not know cannot be in its
lists: both count as misses. Nothing here decides; see ``registry.gate.decide``.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from registry.gate.align import Side, read_sides

COLD_SHARE = 0.25
"""Cold users are those with the fewest train songs; about this share of them."""

Floats = npt.NDArray[np.float64]
Lists = tuple[Tensor, Tensor]
"""(N, k) songs of the challenger and of the champion."""


@dataclass(frozen=True)
class Paired:
    """One quantity of both models, (N,) and (N,), row by row on the same users."""

    challenger: Floats
    champion: Floats

    def __len__(self) -> int:
        return len(self.challenger)

    @property
    def difference(self) -> Floats:
        """(N,) challenger minus champion."""
        return self.challenger - self.champion


@dataclass(frozen=True)
class Comparison:
    """What the gate judges."""

    watched: Paired = field(repr=False)
    """Recall at k on every user whom at least one of the two knows."""
    common: Paired = field(repr=False)
    """The same on users, songs and pairs that both know, where each ranks only these songs."""
    guarded: Mapping[str, Paired] = field(default_factory=dict, repr=False)
    """Name of a guardrail to its quantity; without rows where the data has none."""


def compare(challenger: Path, champion: Path, k: int, files: tuple[ScoreFiles, ScoreFiles]) -> Comparison:
    """Rank for both and measure both.

    The relevant pairs are the challenger's test pairs that the champion has seen neither in train nor in validation;
    songs on which either was trained are hidden from both.

    Args:
        challenger: folder of its bundle.
        champion: folder of its bundle, with ``registry.gate.decide.COMPARED_FILES`` at least.
        k: length of the lists.
        files: what each is scored by.
    """
    sides = ours, theirs = read_sides(challenger, champion, files)
    relevant, hidden = _relevant(ours, theirs), torch.cat([side.pairs["train"] for side in sides], dim=1)
    users = torch.unique(relevant[0])
    known = users[ours.knows(users) & theirs.knows(users)]
    lists = _lists(sides, users, hidden, k)
    by = torch.unique(torch.cat([ours.by, theirs.by], dim=1), dim=1)
    guarded = {
        "coverage": _coverage(lists, ours.songs.size),
        "tail recall": _recall(lists, users, relevant[:, _in_tail(ours, relevant[1])]),
        "cold users' recall": _recall(lists, users, relevant[:, _is_cold(ours, users, relevant[0])]),
        "artist diversity": _diversity(lists, torch.isin(users, known), by),
    }
    common = _on_common(sides, lists, users, relevant[:, torch.isin(relevant[0], known)], hidden)
    return Comparison(_recall(lists, users, relevant), common, guarded)


def _relevant(ours: Side, theirs: Side) -> Tensor:
    """The pairs (2, R) that neither has seen, of users whom at least one of the two knows."""
    tested = ours.pairs["test"]
    tested = tested[:, ours.knows(tested[0]) | theirs.knows(tested[0])]
    shown = torch.cat([theirs.pairs["train"], theirs.pairs["val"]], dim=1)
    width = ours.songs.size
    return tested[:, ~torch.isin(tested[0] * width + tested[1], shown[0] * width + shown[1])]


def _lists(sides: tuple[Side, Side], users: Tensor, hidden: Tensor, k: int) -> Lists:
    challenger, champion = (side.lists(users, hidden, k) for side in sides)
    return challenger, champion


def _on_common(sides: tuple[Side, Side], lists: Lists, users: Tensor, relevant: Tensor, hidden: Tensor) -> Paired:
    """Recall where both could find every song; only where their songs differ, they have to be ranked again."""
    ours, theirs = sides
    songs = ours.songs.nodes[torch.isin(ours.songs.nodes, theirs.songs.nodes)]
    if len(songs) == ours.songs.size:
        return _recall(lists, users, relevant)
    relevant = relevant[:, torch.isin(relevant[1], songs)]
    users = torch.unique(relevant[0])
    again = _lists((ours.only(songs), theirs.only(songs)), users, hidden, lists[0].shape[1])
    return _recall(again, users, relevant)


def _recall(lists: Lists, users: Tensor, relevant: Tensor) -> Paired:
    """Recall of the users (N,) who have a relevant pair (2, R); see ``evaluation.metrics.accuracy``."""
    counted = torch.isin(users, relevant[0])
    rows = rows_of(relevant, users[counted])
    challenger, champion = (_recall_of(items[counted], rows) for items in lists)
    return Paired(challenger, champion)


def _recall_of(items: Tensor, rows: Tensor) -> Floats:
    if not len(items):
        return np.zeros(0)
    k = items.shape[1]
    found: Floats = recall(*hits_and_sizes(items, rows, k), k).numpy()
    return found


def _coverage(lists: Lists, num_songs: int) -> Paired:
    challenger, champion = (_coverage_by_user(items, num_songs) for items in lists)
    return Paired(challenger, champion)


def _coverage_by_user(items: Tensor, num_songs: int) -> Floats:
    """Numbers (N,) whose mean is the share of songs that are in any list, and whose spread is that share's.

    Coverage is no mean over users. Taking a user away takes away the songs that only this user is shown, so the
    jackknife's variance of it is that of these counts; it is never too small on average (Efron and Stein, "The
    jackknife estimate of variance", 1981).
    """
    songs, row = _listed(items)
    listings = torch.bincount(songs, minlength=num_songs)
    alone = torch.bincount(row[listings[songs] == 1], minlength=len(items)).double().numpy()
    covered = int((listings > 0).sum())
    by_user: Floats = (covered + (alone - alone.mean()) * (len(items) - 1)) / num_songs if len(items) else alone
    return by_user


def _listed(items: Tensor) -> tuple[Tensor, Tensor]:
    row, place = torch.nonzero(items >= 0, as_tuple=True)
    return items[row, place], row


def _in_tail(ours: Side, songs: Tensor) -> Tensor:
    """(R,) whether each song is among the least heard, which hold a third of the challenger's train listens."""
    listeners = torch.bincount(ours.pairs["train"][1], minlength=ours.songs.size)
    group = popularity_groups(listeners.numpy(), len(THIRDS))
    return torch.from_numpy(group == THIRDS.index("tail"))[songs]


def _is_cold(ours: Side, users: Tensor, of_pairs: Tensor) -> Tensor:
    """(R,) whether each pair's user is cold, by the challenger's train songs."""
    songs = torch.bincount(ours.pairs["train"][0], minlength=ours.users.size)
    if not len(users):
        return torch.zeros(0, dtype=torch.bool)
    return songs[of_pairs] <= torch.quantile(songs[users].double(), COLD_SHARE)


def _diversity(lists: Lists, known: Tensor, by: Tensor) -> Paired:
    """Pairs of songs without a common artist, on users who get a list from both; nothing without artists."""
    chosen = [items[known] if by.numel() else items[:0] for items in lists]
    challenger, champion = (artist_diversity(items, by).numpy() if len(items) else np.zeros(0) for items in chosen)
    return Paired(challenger, champion)

"""Recall for subsets of the users and songs: it shows where a model is good, and for whom.

Slices are descriptive. ``differs`` is True only if the difference to the baseline stays significant after Holm's
correction over all slices of the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from data.config import Config
from data.errors import InputError
from data.graph import LISTENS
from evaluation.baselines.popular import popularity
from evaluation.evaluation import Evaluation
from evaluation.metrics.beyond_accuracy import SongFeatures
from evaluation.metrics.exposure import THIRDS, popularity_groups
from evaluation.parts import part_edges, sample_users
from evaluation.ranking import Score, rank, rows_of
from evaluation.statistics.intervals import Interval, bootstrap_means
from evaluation.statistics.significance import LEVEL, holm, sign_flip_p_value

FEW_LISTENERS = 5
"""A song with at most this many train listeners is nearly cold."""


class Slice(Config):
    """The recall of some users on some songs."""

    dimension: str
    """What the slices divide by: activity, popularity, cold songs, artist size, kind of listen, or new users."""
    name: str
    """Name of this slice within the dimension."""
    description: str
    """Which users and songs are counted, in a sentence."""
    users: int
    """Users with a relevant song in the slice; only they are counted."""
    pairs: int
    """Relevant pairs in the slice."""
    metric: str
    """Name of the metric: recall over the relevant songs of the slice only."""
    interval: Interval
    """Its mean over these users, with a 95 % bootstrap interval."""
    baseline: str | None = None
    """Name of the baseline that the model is compared with."""
    difference: Interval | None = None
    """Model minus baseline, paired by user."""
    p: float | None = None
    """Two-sided p-value of the difference, from the test by random signs."""
    p_holm: float | None = None
    """The p-value after Holm's correction over all slices of the file."""
    differs: bool = False
    """True if the corrected p-value is below 0.05; only then is there a difference."""


def slices(model: Evaluation, baselines: Mapping[str, Evaluation], score: Score, features: SongFeatures) -> list[Slice]:
    """Compute every slice that has a user, compared with the baseline that is best on the watched metric.

    Re-listens and new users need lists of their own, in which nothing is hidden. ``score`` ranks them for the model.
    They are compared with popularity, the one baseline that can always be ranked again.

    Args:
        model: the evaluation to divide into slices.
        baselines: evaluations of the same users by name; without any, the slices have no differences.
        score: the model's scores.
        features: train listeners and artists of the songs.
    """
    best = max(baselines, key=lambda name: baselines[name].mean()[model.watched]) if baselines else None
    other = baselines[best].ranked.items if best else None
    hits = PairHits.of(model.relevant, model.ranked.items, other, model.k, best)
    keys = SliceKeys.of(model, features)
    groups = [(name, group) for name, divide in DIMENSIONS.items() for group in divide(hits, keys)]
    found = [_slice(dimension, group, hits, model) for dimension, group in groups if group.inside.any()]
    return _corrected([*found, *_slices_with_nothing_hidden(model, score, compared=bool(baselines))])


def write_slices(path: Path, found: Sequence[Slice]) -> None:
    """Write a list of JSON objects; the same slices give the same bytes."""
    path.write_text(json.dumps([one.model_dump(mode="json") for one in found], indent=2) + "\n", encoding="utf-8")


def read_slices(path: Path) -> list[Slice]:
    """Read what ``write_slices`` wrote.

    Raises:
        InputError: the file is missing, or is not such a list.
    """
    try:
        return TypeAdapter(list[Slice]).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{path} is not a readable list of slices; evaluate again.") from error


@dataclass(frozen=True)
class PairHits:
    """R relevant pairs, and whether each is in the list of the model and of the baseline. All arrays are (R,)."""

    row: np.ndarray
    """Row of the user."""
    song: np.ndarray
    hit: np.ndarray
    """True if the model's list has the song."""
    baseline_hit: np.ndarray | None = None
    baseline: str | None = None
    """Name of the baseline."""

    @classmethod
    def of(cls, relevant: Tensor, items: Tensor, baseline_items: Tensor | None, k: int, baseline: str | None) -> Self:
        row, song = relevant.numpy()
        baseline_hit = None if baseline_items is None else in_lists(relevant, baseline_items, k)
        return cls(row, song, in_lists(relevant, items, k), baseline_hit, baseline)

    def recall(self, inside: np.ndarray, hit: np.ndarray) -> np.ndarray:
        """Return the recall (N,) over the pairs ``inside`` (R,), for each user who has such a pair."""
        row = np.unique(self.row[inside], return_inverse=True)[1]
        return np.bincount(row, weights=hit[inside]) / np.bincount(row)


@dataclass(frozen=True)
class SliceKeys:
    """The values by which pairs are divided into slices."""

    train_songs: np.ndarray
    """(N,) train songs of each measured user."""
    listeners: np.ndarray
    """(S,) train listeners of each song."""
    artist_songs: np.ndarray | None
    """(S,) songs of the song's artist, of the one with most if it has several; 0 without artists. None: no artists."""
    in_sample: bool
    """True if the relevant pairs are train listens."""

    @classmethod
    def of(cls, model: Evaluation, features: SongFeatures) -> Self:
        edges = part_edges(model.graph, "train")
        activity = torch.bincount(edges[0], minlength=int(model.graph["user"].num_nodes))[model.users]
        artist_songs = None
        if features.by is not None:
            song, artist = features.by.numpy()
            artist_songs = np.zeros(model.num_songs, dtype=np.int64)
            np.maximum.at(artist_songs, song, np.bincount(artist)[artist])
        return cls(activity.numpy(), features.listeners.numpy(), artist_songs, model.in_sample)


class Group(NamedTuple):
    """A subset of the pairs: ``inside`` (R,) bool."""

    name: str
    description: str
    inside: np.ndarray


def in_lists(relevant: Tensor, items: Tensor, k: int) -> np.ndarray:
    """Return (R,) True if a relevant (row, song) is among the first k of its row's list (N, m)."""
    width = int(max(items.max() if items.numel() else 0, relevant[1].max() if relevant.numel() else 0)) + 1
    row, place = torch.nonzero(items[:, :k] >= 0, as_tuple=True)
    return torch.isin(relevant[0] * width + relevant[1], row * width + items[row, place]).numpy()


def _by_activity(hits: PairHits, keys: SliceKeys) -> Iterator[Group]:
    for name, users in _equal_groups(keys.train_songs, 4, "train song"):
        yield Group(name, f"Users with {name}: a quarter of the users, as far as ties allow.", users[hits.row])


def _by_popularity(hits: PairHits, keys: SliceKeys) -> Iterator[Group]:
    group = popularity_groups(keys.listeners, len(THIRDS))
    for number, name in enumerate(THIRDS):
        if (group == number).any():
            bounds = _format_range(keys.listeners[group == number], "train listener")
            description = f"Songs with {bounds}: about a third of the train listens."
            yield Group(name, description, group[hits.song] == number)


def _by_coldness(hits: PairHits, keys: SliceKeys) -> Iterator[Group]:
    listeners = keys.listeners[hits.song]
    few = f"1 to {FEW_LISTENERS} train listeners"
    yield Group("no train listener", "Songs that nobody has heard in train.", listeners == 0)
    yield Group(few, f"Songs with {few}.", (listeners > 0) & (listeners <= FEW_LISTENERS))
    yield Group(f"more than {FEW_LISTENERS}", "Songs with more train listeners.", listeners > FEW_LISTENERS)


def _by_artist_size(hits: PairHits, keys: SliceKeys) -> Iterator[Group]:
    if keys.artist_songs is None:
        return
    sizes = keys.artist_songs
    for name, songs in _equal_groups(sizes, 3, "song", sizes > 0):
        description = (
            f"Songs whose artist has {name} (of several, the one with most): a third of the songs, but for ties."
        )
        yield Group(f"artists with {name}", description, songs[hits.song])
    yield Group("no artist", "Songs without an artist in the catalogue.", sizes[hits.song] == 0)


def _all_first_listens(hits: PairHits, keys: SliceKeys) -> Iterator[Group]:
    if keys.in_sample:
        return
    description = "Songs that the user had not heard before; train songs are hidden, as in every other number."
    yield Group("discovery", description, np.ones(len(hits.row), dtype=bool))


DIMENSIONS: Mapping[str, Callable[[PairHits, SliceKeys], Iterable[Group]]] = {
    "activity": _by_activity,
    "popularity": _by_popularity,
    "cold songs": _by_coldness,
    "artist size": _by_artist_size,
    "kind of listen": _all_first_listens,
}


def _slices_with_nothing_hidden(model: Evaluation, score: Score, compared: bool) -> Iterator[Slice]:
    """Yield the slices of re-listens and of new users, if the split kept their pairs."""
    indexes = {
        ("kind of listen", "re-listen"): (f"relisten_{model.part}_index", "Songs that the user had heard in train"),
        ("new users", "new users"): (f"new_user_{model.part}_index", "Users without any train listen"),
    }
    for (dimension, name), (index, counted) in indexes.items():
        pairs = model.graph[LISTENS].get(index)
        if pairs is not None and pairs.numel():
            hits = _rank_with_nothing_hidden(model, pairs.cpu(), score, compared)
            group = Group(name, f"{counted}; nothing is hidden from the lists.", np.ones(len(hits.row), dtype=bool))
            yield _slice(dimension, group, hits, model)


def _rank_with_nothing_hidden(model: Evaluation, pairs: Tensor, score: Score, compared: bool) -> PairHits:
    limit = None if len(model.users) == model.eligible_users else len(model.users)
    users = sample_users(torch.unique(pairs[0]), limit, model.seed)
    items = rank(score, users, None, model.k).items
    other = rank(popularity(model.graph), users, None, model.k).items if compared else None
    return PairHits.of(rows_of(pairs, users), items, other, model.k, "popularity" if compared else None)


def _slice(dimension: str, group: Group, hits: PairHits, model: Evaluation) -> Slice:
    recall = hits.recall(group.inside, hits.hit)
    columns = {"recall": recall}
    if hits.baseline_hit is not None:
        columns["difference"] = recall - hits.recall(group.inside, hits.baseline_hit)
    intervals = bootstrap_means(columns, model.seed)
    return Slice(
        dimension=dimension,
        name=group.name,
        description=group.description,
        users=len(recall),
        pairs=int(group.inside.sum()),
        metric=model.watched,
        interval=intervals["recall"],
        baseline=hits.baseline,
        difference=intervals.get("difference"),
        p=sign_flip_p_value(columns["difference"], model.seed) if "difference" in columns else None,
    )


def _corrected(found: list[Slice]) -> list[Slice]:
    compared = [index for index, one in enumerate(found) if one.p is not None]
    corrected = dict(zip(compared, holm([found[index].p or 0.0 for index in compared]), strict=True))
    return [
        one.model_copy(update={"p_holm": corrected[index], "differs": corrected[index] < LEVEL})
        if index in corrected
        else one
        for index, one in enumerate(found)
    ]


def _equal_groups(
    values: np.ndarray, count: int, unit: str, among: np.ndarray | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and members of groups of about equal size, by rising value; equal values stay together."""
    member = np.ones(len(values), dtype=bool) if among is None else among
    if not member.any():
        return
    cuts = np.unique(np.quantile(values[member], np.arange(1, count) / count, method="lower"))
    group = np.searchsorted(cuts, values)  # a value equal to a cut belongs below it
    for number in range(len(cuts) + 1):
        inside = member & (group == number)
        if inside.any():
            yield _format_range(values[inside], unit), inside


def _format_range(values: np.ndarray, unit: str) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low} {unit}{'' if low == 1 else 's'}" if low == high else f"{low} to {high} {unit}s"

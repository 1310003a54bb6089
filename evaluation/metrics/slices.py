"""Recall for parts of the users and of the songs: where a model is good, and for whom.

Slices describe. Only a difference to the baseline that survives Holm's correction over all slices of the file is
called one (``differs``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from data.config import Config
from data.errors import InputError
from data.graph import LISTENS
from evaluation.baselines.popular import popularity
from evaluation.evaluation import Evaluation
from evaluation.metrics.beyond_accuracy import Catalogue
from evaluation.metrics.exposure import THIRDS, popularity_groups
from evaluation.parts import part_edges, sample_users
from evaluation.ranking import Score, rank, rows_of
from evaluation.statistics.intervals import Interval, bootstrap_means
from evaluation.statistics.significance import LEVEL, holm, sign_flip_p_value

FEW_LISTENERS = 5
"""Train listeners up to which a song is nearly cold."""


class Slice(Config):
    """The recall of some users on some songs."""

    dimension: str
    """What divides: activity, popularity, cold songs, artist size, kind of listen, new users."""
    name: str
    """Which part."""
    description: str
    """Who and what is counted, in a sentence."""
    users: int
    """Users with a relevant song in the slice; only they are counted."""
    pairs: int
    """Relevant pairs in the slice."""
    metric: str
    """Recall over the relevant songs of the slice alone."""
    interval: Interval
    """Its mean over these users, with a 95 % bootstrap interval."""
    baseline: str | None = None
    """What the model is compared with."""
    difference: Interval | None = None
    """Model minus baseline, paired by user."""
    p: float | None = None
    """Two-sided p-value of the difference by random signs."""
    p_holm: float | None = None
    """The same after Holm's correction over all slices of the file."""
    differs: bool = False
    """Whether the corrected p-value is below 0.05; only then is there a difference to speak of."""


def slices(model: Evaluation, baselines: Mapping[str, Evaluation], score: Score, catalogue: Catalogue) -> list[Slice]:
    """Every slice that has a user, beside the baseline that is strongest on the watched metric.

    Re-listens and new users need lists of their own, which ``score`` makes with nothing hidden; they stand beside
    popularity, the one baseline that can always be ranked again.

    Args:
        model: the evaluation that is divided.
        baselines: evaluations of the same users by name; none gives slices without differences.
        score: the model's scores.
        catalogue: train listeners and artists of the songs.
    """
    rival = max(baselines, key=lambda name: baselines[name].mean()[model.watched]) if baselines else None
    judged = Judged.of(model, rival, baselines[rival] if rival else None)
    facts = Facts.of(model, catalogue)
    groups = [(name, group) for name, divide in DIMENSIONS.items() for group in divide(judged, facts)]
    found = [_slice(dimension, group, judged, model) for dimension, group in groups if group.inside.any()]
    return _corrected([*found, *_with_nothing_hidden(model, score, compared=bool(baselines))])


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
class Judged:
    """R relevant pairs: their user's row, their song, and whether the model's and the baseline's list has it."""

    row: np.ndarray
    song: np.ndarray
    found: np.ndarray
    found_by_baseline: np.ndarray | None = None
    baseline: str | None = None

    @classmethod
    def of(cls, model: Evaluation, name: str | None, baseline: Evaluation | None) -> Judged:
        other = None if baseline is None else baseline.ranked.items
        return cls.of_lists(model.relevant, model.ranked.items, other, model.k, name)

    @classmethod
    def of_lists(
        cls, relevant: Tensor, items: Tensor, other: Tensor | None, k: int, baseline: str | None = None
    ) -> Judged:
        row, song = relevant.numpy()
        by_baseline = None if other is None else in_lists(relevant, other, k)
        return cls(row, song, in_lists(relevant, items, k), by_baseline, baseline)

    def recall(self, inside: np.ndarray, found: np.ndarray) -> np.ndarray:
        """(N,) recall over the pairs ``inside`` (R,), of each user who has one."""
        row = np.unique(self.row[inside], return_inverse=True)[1]
        return np.bincount(row, weights=found[inside]) / np.bincount(row)


@dataclass(frozen=True)
class Facts:
    """What pairs are divided by: train songs of each measured user (N,); train listeners (S,) of each song; songs (S,)
    of its artist who has most, 0 without artists, or None; and whether the pairs are train listens themselves."""

    train_songs: np.ndarray
    listeners: np.ndarray
    artist_songs: np.ndarray | None
    in_sample: bool

    @classmethod
    def of(cls, model: Evaluation, catalogue: Catalogue) -> Facts:
        edges = part_edges(model.graph, "train")
        activity = torch.bincount(edges[0], minlength=int(model.graph["user"].num_nodes))[model.users]
        sizes = None if catalogue.by is None else _songs_of_artist(catalogue.by.numpy(), model.num_songs)
        return cls(activity.numpy(), catalogue.listeners.numpy(), sizes, model.in_sample)


class Group(NamedTuple):
    """A part of the pairs: ``inside`` (R,) bool."""

    name: str
    description: str
    inside: np.ndarray


def in_lists(relevant: Tensor, items: Tensor, k: int) -> np.ndarray:
    """(R,) whether each relevant (row, song) is among the first k of its row's list (N, m)."""
    width = int(max(items.max() if items.numel() else 0, relevant[1].max() if relevant.numel() else 0)) + 1
    row, place = torch.nonzero(items[:, :k] >= 0, as_tuple=True)
    return torch.isin(relevant[0] * width + relevant[1], row * width + items[row, place]).numpy()


def _by_activity(judged: Judged, facts: Facts) -> Iterator[Group]:
    for name, users in _equal_groups(facts.train_songs, 4, "train song"):
        yield Group(name, f"Users with {name}: a quarter of the users, as far as ties allow.", users[judged.row])


def _by_popularity(judged: Judged, facts: Facts) -> Iterator[Group]:
    group = popularity_groups(facts.listeners, len(THIRDS))
    for number, name in enumerate(THIRDS):
        if (group == number).any():
            bounds = _span(facts.listeners[group == number], "train listener")
            says = f"Songs with {bounds}: about a third of the train listens."
            yield Group(name, says, group[judged.song] == number)


def _by_coldness(judged: Judged, facts: Facts) -> Iterator[Group]:
    listeners = facts.listeners[judged.song]
    few = f"1 to {FEW_LISTENERS} train listeners"
    yield Group("no train listener", "Songs that nobody has heard in train.", listeners == 0)
    yield Group(few, f"Songs with {few}.", (listeners > 0) & (listeners <= FEW_LISTENERS))
    yield Group(f"more than {FEW_LISTENERS}", "Songs with more train listeners.", listeners > FEW_LISTENERS)


def _by_artist_size(judged: Judged, facts: Facts) -> Iterator[Group]:
    if facts.artist_songs is None:
        return
    sizes = np.where(facts.artist_songs > 0, facts.artist_songs, 0)
    for name, songs in _equal_groups(sizes, 3, "song", sizes > 0):
        says = f"Songs whose artist has {name} (of several, the one with most): a third of the songs, but for ties."
        yield Group(f"artists with {name}", says, songs[judged.song])
    yield Group("no artist", "Songs without an artist in the catalogue.", sizes[judged.song] == 0)


def _all_first_listens(judged: Judged, facts: Facts) -> Iterator[Group]:
    if facts.in_sample:
        return
    says = "Songs that the user had not heard before; train songs are hidden, as in every other number."
    yield Group("discovery", says, np.ones(len(judged.row), dtype=bool))


DIMENSIONS: Mapping[str, Callable[[Judged, Facts], Iterable[Group]]] = {
    "activity": _by_activity,
    "popularity": _by_popularity,
    "cold songs": _by_coldness,
    "artist size": _by_artist_size,
    "kind of listen": _all_first_listens,
}


def _with_nothing_hidden(model: Evaluation, score: Score, compared: bool) -> Iterator[Slice]:
    """Re-listens and new users, where the split kept them apart."""
    kept = {
        ("kind of listen", "re-listen"): (f"relisten_{model.part}_index", "Songs that the user had heard in train"),
        ("new users", "new users"): (f"new_user_{model.part}_index", "Users without any train listen"),
    }
    for (dimension, name), (index, who) in kept.items():
        pairs = model.graph[LISTENS].get(index)
        if pairs is not None and pairs.numel():
            judged = _judged_anew(model, pairs.cpu(), score, compared)
            group = Group(name, f"{who}; nothing is hidden from the lists.", np.ones(len(judged.row), dtype=bool))
            yield _slice(dimension, group, judged, model)


def _judged_anew(model: Evaluation, pairs: Tensor, score: Score, compared: bool) -> Judged:
    limit = None if len(model.users) == model.eligible_users else len(model.users)
    users = sample_users(torch.unique(pairs[0]), limit, model.seed)
    items = rank(score, users, None, model.k).items
    other = rank(popularity(model.graph), users, None, model.k).items if compared else None
    return Judged.of_lists(rows_of(pairs, users), items, other, model.k, "popularity" if compared else None)


def _slice(dimension: str, group: Group, judged: Judged, model: Evaluation) -> Slice:
    recall = judged.recall(group.inside, judged.found)
    columns = {"recall": recall}
    if judged.found_by_baseline is not None:
        columns["difference"] = recall - judged.recall(group.inside, judged.found_by_baseline)
    intervals = bootstrap_means(columns, model.seed)
    return Slice(
        dimension=dimension,
        name=group.name,
        description=group.description,
        users=len(recall),
        pairs=int(group.inside.sum()),
        metric=model.watched,
        interval=intervals["recall"],
        baseline=judged.baseline,
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
    """Groups of about as many members by rising value, named by their bounds; equal values are never parted."""
    member = np.ones(len(values), dtype=bool) if among is None else among
    if not member.any():
        return
    cuts = np.unique(np.quantile(values[member], np.arange(1, count) / count, method="lower"))
    group = np.searchsorted(cuts, values)  # a value equal to a cut belongs below it
    for number in range(len(cuts) + 1):
        inside = member & (group == number)
        if inside.any():
            yield _span(values[inside], unit), inside


def _span(values: np.ndarray, unit: str) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low} {unit}{'' if low == 1 else 's'}" if low == high else f"{low} to {high} {unit}s"


def _songs_of_artist(by: np.ndarray, num_songs: int) -> np.ndarray:
    sizes = np.zeros(num_songs, dtype=np.int64)
    np.maximum.at(sizes, by[0], np.bincount(by[1])[by[1]])
    return sizes

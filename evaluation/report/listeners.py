"""A dozen users by name: what they had listened to, what the model recommends, and what they went on to hear."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.display_names import artists_by_song, names_of
from data.graph import LISTENS, load_graph
from evaluation.parts import part_edges
from evaluation.record import EvaluationRecord, read_per_user
from evaluation.report.blocks import Listener, Listeners, Section, Song
from evaluation.report.readings import section
from evaluation.report.sources import Sources
from evaluation.report.words import decimal, plural

PEOPLE = 12
SHOWN = 10
"""Songs that a list shows at most."""
RECOMMENDED = 20
"""Likewise of recommended songs, of which as many as count in the watched metric are shown up to here."""
SEED = 0
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass
class Heard:
    """Songs of a user: those the model was trained on with their plays, the most played first, and those held out."""

    train: dict[int, int] = field(default_factory=dict)
    test: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Names:
    """Title and artists by song index."""

    titles: Mapping[int, str]
    artists: Mapping[int, str]

    def song(self, index: int, mark: str = "", found: bool = False) -> Song:
        return Song(self.titles[index], self.artists.get(index, ""), mark, found)


def sample_listeners(sources: Sources) -> Section:
    """A dozen users, drawn by chance, one from each twelfth of the measured ones in order of their songs."""
    record = sources.record()
    found = "the user did listen to" if record.in_sample else "is among those held out"
    graph = load_graph(sources.graph_file())
    recall = dict(zip(*read_per_user(sources.evaluation / "per_user.parquet", record.watched), strict=True))
    users = _draw(graph, _indices(sources.graph / "users.parquet", "user_id", list(recall)))
    ids = _taken(sources.graph / "users.parquet", "user_id", users)
    heard, recommended = _heard(graph, users, record), _recommended(sources, ids, record.k)
    names = _names(sources, _all_songs(heard.values(), recommended.values()))
    people = [
        _listener(user_id, heard[user], recommended[user_id], names, record, float(recall[user_id]))
        for user_id, user in zip(ids, users, strict=True)
    ]
    return section("listeners", [Listeners(people)], found=found)


def _draw(graph: HeteroData, measured: np.ndarray) -> list[int]:
    """User indices, one from each of ``PEOPLE`` groups of equal size in order of train songs."""
    songs = torch.bincount(part_edges(graph, "train")[0], minlength=int(graph["user"].num_nodes)).numpy()
    ordered = measured[np.lexsort((measured, songs[measured]))]
    generator = np.random.default_rng(SEED)
    return [int(generator.choice(group)) for group in np.array_split(ordered, PEOPLE) if len(group)]


def _heard(graph: HeteroData, users: Sequence[int], record: EvaluationRecord) -> dict[int, Heard]:
    heard = {user: Heard() for user in users}
    edges = graph[LISTENS].edge_index
    theirs = torch.isin(edges[0], torch.tensor(users))
    train, plays = _mask(graph, "train_mask"), _plays(graph)
    rows = zip(*(values[theirs].tolist() for values in (*edges, plays, train, _mask(graph, "test_mask"))), strict=True)
    for user, song, times, in_train, in_test in sorted(rows, key=lambda row: (-row[2], row[1])):
        if in_train:
            heard[user].train[song] = times
        elif in_test and not record.in_sample:
            heard[user].test.append(song)
    return heard


def _mask(graph: HeteroData, name: str) -> Tensor:
    """A mask (E,); all edges of a graph that was not split."""
    store = graph[LISTENS]
    mask: Tensor = store[name] if name in store else torch.ones_like(store.edge_index[0], dtype=torch.bool)
    return mask


def _plays(graph: HeteroData) -> Tensor:
    """Plays (E,), 1 where the graph has none."""
    store = graph[LISTENS]
    plays: Tensor = store.plays if "plays" in store else torch.ones_like(store.edge_index[0])
    return plays


def _recommended(sources: Sources, ids: Sequence[str], k: int) -> dict[str, list[int]]:
    """The first k songs of each user's list by user id, as song indices, best first."""
    few = [("user_id", "in", list(ids)), ("rank", "<=", k)]
    lists = pq.read_table(sources.evaluation / "lists.parquet", filters=few).sort_by(
        [("user_id", "ascending"), ("rank", "ascending")]
    )
    songs = _indices(sources.graph / "songs.parquet", "track_id", lists["track_id"].to_pylist())
    found: dict[str, list[int]] = {user_id: [] for user_id in ids}
    for user_id, song in zip(lists["user_id"].to_pylist(), songs.tolist(), strict=True):
        found[user_id].append(song)
    return found


def _listener(
    user_id: str, heard: Heard, recommended: Sequence[int], names: Names, record: EvaluationRecord, recall: float
) -> Listener:
    relevant = set(heard.train) if record.in_sample else set(heard.test)
    columns = [("Listened to", _history(heard.train, names)), ("Recommended", _list(recommended, relevant, names))]
    if not record.in_sample:
        columns.append(("Held out", _held_out(heard.test, recommended, names)))
    held = "" if record.in_sample else f", {len(heard.test)} held out"
    summary = f"{plural(len(heard.train), 'song')} listened to{held}; {record.watched} {decimal(recall)}"
    return Listener(user_id, summary, columns)


def _history(plays: Mapping[int, int], names: Names) -> list[Song]:
    counted = any(times > 1 for times in plays.values())
    shown = [names.song(song, f"{TIMES}{times}" if counted else "") for song, times in list(plays.items())[:SHOWN]]
    return shown + _more(len(plays))


def _list(recommended: Sequence[int], relevant: Collection[int], names: Names) -> list[Song]:
    shown = [names.song(song, found=song in relevant) for song in recommended[:RECOMMENDED]]
    return shown + _more(len(recommended), RECOMMENDED)


def _held_out(test: Sequence[int], recommended: Sequence[int], names: Names) -> list[Song]:
    place = {song: rank for rank, song in enumerate(recommended, start=1)}
    ordered = sorted(test, key=lambda song: place.get(song, len(place) + 1))[:SHOWN]
    return [names.song(song, f"at {place[song]}" if song in place else "", song in place) for song in ordered] + _more(
        len(test)
    )


def _more(number: int, shown: int = SHOWN) -> list[Song]:
    return [Song(f"and {number - shown:,} more", "")] if number > shown else []


def _all_songs(heard: Iterable[Heard], recommended: Iterable[Sequence[int]]) -> list[int]:
    played = {song for user in heard for song in (*user.train, *user.test)}
    return sorted(played.union(*recommended))


def _names(sources: Sources, songs: Sequence[int]) -> Names:
    titles = names_of(sources.graph / "songs.parquet", "track", songs)
    by = pq.read_table(sources.listens / "song_artists.parquet", filters=[("song", "in", list(songs))])
    artists = names_of(sources.graph / "artists.parquet", "artist", by["artist"].to_pylist())
    return Names(dict(zip(songs, titles, strict=True)), artists_by_song(by["song"].to_pylist(), artists))


def _taken(vocabulary: Path, column: str, rows: Sequence[int]) -> list[str]:
    ids: list[str] = pq.read_table(vocabulary, columns=[column])[column].take(pa.array(rows, pa.int64())).to_pylist()
    return ids


def _indices(vocabulary: Path, column: str, ids: Sequence[str]) -> np.ndarray:
    """Row numbers (N,) of ids that are all in the vocabulary."""
    known = pq.read_table(vocabulary, columns=[column])[column].combine_chunks()
    return pc.index_in(pa.array(ids, known.type), known).to_numpy().astype(np.int64)

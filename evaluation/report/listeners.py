"""The section on a dozen users: the songs that they listened to, the recommended songs, and the held-out songs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from evaluation.report.number_format import decimal, plural
from evaluation.report.section_texts import section
from evaluation.report.sources import Sources

PEOPLE = 12
SHOWN = 10
"""Maximum number of songs in a list."""
RECOMMENDED = 20
"""Maximum number of recommended songs; k are shown if k is smaller."""
SEED = 0
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass
class UserSongs:
    """The songs of a user."""

    train: dict[int, int] = field(default_factory=dict)
    """Train songs and their plays, the most played first."""
    test: list[int] = field(default_factory=list)
    """Held-out songs."""


@dataclass(frozen=True)
class SongNames:
    """Titles and artists by song index."""

    titles: Mapping[int, str]
    artists: Mapping[int, str]

    def song(self, index: int, mark: str = "", found: bool = False) -> Song:
        return Song(self.titles[index], self.artists.get(index, ""), mark, found)


def sample_listeners(sources: Sources) -> Section:
    """Show a dozen users, drawn at random: one from each twelfth of the measured users in order of their songs."""
    record = sources.record()
    graph = load_graph(sources.graph_file())
    recall = dict(zip(*read_per_user(sources.evaluation / "per_user.parquet", record.watched), strict=True))
    users_vocab = sources.graph / "users.parquet"
    users = _draw_users(graph, _indices(users_vocab, "user_id", list(recall)))
    ids = pq.read_table(users_vocab, columns=["user_id"])["user_id"].take(pa.array(users, pa.int64())).to_pylist()
    songs, recommended = _songs_of_users(graph, users, record), _recommended(sources, ids, record.k)
    shown = {song for user in songs.values() for song in (*user.train, *user.test)}.union(*recommended.values())
    names = _read_names(sources, sorted(shown))
    people = [
        _listener(user_id, songs[user], recommended[user_id], names, record, float(recall[user_id]))
        for user_id, user in zip(ids, users, strict=True)
    ]
    found = "the user listened to" if record.in_sample else "is held out"
    return section("listeners", [Listeners(people)], found=found)


def _draw_users(graph: HeteroData, measured: np.ndarray) -> list[int]:
    """Draw one user from each of ``PEOPLE`` groups of equal size, in order of train songs."""
    songs = torch.bincount(part_edges(graph, "train")[0], minlength=int(graph["user"].num_nodes)).numpy()
    ordered = measured[np.lexsort((measured, songs[measured]))]
    generator = np.random.default_rng(SEED)
    return [int(generator.choice(group)) for group in np.array_split(ordered, PEOPLE) if len(group)]


def _songs_of_users(graph: HeteroData, users: Sequence[int], record: EvaluationRecord) -> dict[int, UserSongs]:
    songs = {user: UserSongs() for user in users}
    edges = graph[LISTENS].edge_index
    of_users = torch.isin(edges[0], torch.tensor(users))
    columns = (*edges, *(_attribute_or_ones(graph, name) for name in ("plays", "train_mask", "test_mask")))
    rows = zip(*(values[of_users].tolist() for values in columns), strict=True)
    for user, song, plays, in_train, in_test in sorted(rows, key=lambda row: (-row[2], row[1])):
        if in_train:
            songs[user].train[song] = plays
        elif in_test and not record.in_sample:
            songs[user].test.append(song)
    return songs


def _attribute_or_ones(graph: HeteroData, name: str) -> Tensor:
    """Return an attribute or mask (E,) of the listens; ones if the graph lacks it."""
    store = graph[LISTENS]
    values: Tensor = store[name] if name in store else torch.ones_like(store.edge_index[0])
    return values


def _recommended(sources: Sources, ids: Sequence[str], k: int) -> dict[str, list[int]]:
    """Read the first k songs of each user's list: user id to song indices, best first."""
    of_users = [("user_id", "in", list(ids)), ("rank", "<=", k)]
    lists = pq.read_table(sources.evaluation / "lists.parquet", filters=of_users).sort_by(
        [("user_id", "ascending"), ("rank", "ascending")]
    )
    songs = _indices(sources.graph / "songs.parquet", "track_id", lists["track_id"].to_pylist())
    found: dict[str, list[int]] = {user_id: [] for user_id in ids}
    for user_id, song in zip(lists["user_id"].to_pylist(), songs.tolist(), strict=True):
        found[user_id].append(song)
    return found


def _listener(
    user_id: str,
    songs: UserSongs,
    recommended: Sequence[int],
    names: SongNames,
    record: EvaluationRecord,
    recall: float,
) -> Listener:
    relevant = set(songs.train) if record.in_sample else set(songs.test)
    hits = [names.song(song, found=song in relevant) for song in recommended[:RECOMMENDED]]
    columns = [
        ("Listened to", _history(songs.train, names)),
        ("Recommended", hits + _and_more(len(recommended), RECOMMENDED)),
    ]
    if not record.in_sample:
        columns.append(("Held out", _held_out(songs.test, recommended, names)))
    held_out = "" if record.in_sample else f", {len(songs.test)} held out"
    summary = f"{plural(len(songs.train), 'song')} listened to{held_out}; {record.watched} {decimal(recall)}"
    return Listener(user_id, summary, columns)


def _history(plays: Mapping[int, int], names: SongNames) -> list[Song]:
    counted = any(times > 1 for times in plays.values())
    shown = [names.song(song, f"{TIMES}{times}" if counted else "") for song, times in list(plays.items())[:SHOWN]]
    return shown + _and_more(len(plays), SHOWN)


def _held_out(test: Sequence[int], recommended: Sequence[int], names: SongNames) -> list[Song]:
    rank = {song: rank for rank, song in enumerate(recommended, start=1)}
    ordered = sorted(test, key=lambda song: rank.get(song, len(rank) + 1))[:SHOWN]
    shown = [names.song(song, f"at {rank[song]}" if song in rank else "", song in rank) for song in ordered]
    return shown + _and_more(len(test), SHOWN)


def _and_more(count: int, shown: int) -> list[Song]:
    return [Song(f"and {count - shown:,} more", "")] if count > shown else []


def _read_names(sources: Sources, songs: Sequence[int]) -> SongNames:
    titles = names_of(sources.graph / "songs.parquet", "track", songs)
    by = pq.read_table(sources.listens / "song_artists.parquet", filters=[("song", "in", list(songs))])
    artists = names_of(sources.graph / "artists.parquet", "artist", by["artist"].to_pylist())
    return SongNames(dict(zip(songs, titles, strict=True)), artists_by_song(by["song"].to_pylist(), artists))


def _indices(vocabulary: Path, column: str, ids: Sequence[str]) -> np.ndarray:
    """Return the row numbers (N,) of ids; all of them must be in the vocabulary."""
    known = pq.read_table(vocabulary, columns=[column])[column].combine_chunks()
    return pc.index_in(pa.array(ids, known.type), known).to_numpy().astype(np.int64)

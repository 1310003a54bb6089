"""A synthetic listening log with the structure of a real one, for the default run, for tests and for tests of scale.

``python -m data.synthetic --preset small --seed 0 --out logs`` writes it as Parquet in the canonical event schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from data.config import Config
from data.errors import InputError
from data.synthetic.events import Events, make_events
from data.synthetic.names import artist_names, song_names
from data.synthetic.world import Ints, SongCatalogue, make_catalogue, make_users

Preset = Literal["tiny", "small", "medium", "large"]

START = date(2025, 1, 1)
LEAST_EVENTS_A_USER = 3
EVENTS_A_FILE = 1_000_000

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"num_users": 60, "num_songs": 200, "num_artists": 40, "num_events": 2_000, "num_days": 60},
    "small": {"num_users": 1_000, "num_songs": 2_000, "num_artists": 250, "num_events": 80_000, "num_days": 180},
    "medium": {
        "num_users": 10_000,
        "num_songs": 20_000,
        "num_artists": 2_000,
        "num_events": 1_500_000,
        "num_days": 365,
    },
    "large": {
        "num_users": 100_000,
        "num_songs": 200_000,
        "num_artists": 15_000,
        "num_events": 12_000_000,
        "num_days": 365,
    },
}
"""The counts of each preset; ``tiny`` is for tests, ``small`` for the default run."""


class SyntheticConfig(Config):
    """Size and seed of the synthetic log; the same configuration gives the same bytes."""

    preset: Preset = "small"
    """The preset of all counts that are not given: tiny, small, medium or large."""
    seed: int = Field(default=0, ge=0)
    """Another seed gives another world with the same statistics."""
    num_users: int | None = Field(default=None, ge=1)
    """Number of users, each with at least three listens; None takes the preset's."""
    num_songs: int | None = Field(default=None, ge=1)
    """Number of songs in the catalogue; some of them may never be played. None takes the preset's."""
    num_artists: int | None = Field(default=None, ge=1)
    """Number of artists, each with at least one song; None takes the preset's."""
    num_events: int | None = Field(default=None, ge=1)
    """Exact number of listens; None takes the preset's."""
    num_days: int | None = Field(default=None, ge=1)
    """Number of days that the log covers, from 2025-01-01 on; None takes the preset's."""

    def count(self, name: str) -> int:
        """Return the given count, or the preset's."""
        given = getattr(self, name)
        return PRESETS[self.preset][name] if given is None else int(given)

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if self.count("num_songs") < self.count("num_artists"):
            raise ValueError(
                f"{self.count('num_songs')} songs do not suffice for {self.count('num_artists')} artists; "
                "num_songs has to be at least num_artists"
            )
        if self.count("num_events") < LEAST_EVENTS_A_USER * self.count("num_users"):
            raise ValueError(
                f"{self.count('num_events')} events do not suffice for {self.count('num_users')} users; "
                f"num_events has to be at least {LEAST_EVENTS_A_USER} times num_users"
            )
        return self


def write_log(config: SyntheticConfig, folder: Path) -> list[Path]:
    """Write the log into ``folder``: ``events-0000.parquet`` and so on, about a million listens each.

    Columns: ``user_id``, ``track_id``, ``artist_id`` (list: a few songs have two), ``played_at`` (UTC), ``ms_played``,
    ``duration_ms``, ``skipped``, ``track_name``, ``artist_name`` (list, in the order of ``artist_id``). All listens of
    a user are in one file, and only one file is in memory at a time.

    Raises:
        InputError: the folder already contains a log; two logs must not be mixed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("events-*.parquet")):
        raise InputError(
            f"The folder {folder} holds a log already; remove its events-*.parquet or choose another folder."
        )
    return [_write_table(table, folder / f"events-{i:04d}.parquet") for i, table in enumerate(event_tables(config))]


def event_tables(config: SyntheticConfig) -> Iterator[pa.Table]:
    """Yield the log as one table per file; each has its own random stream, so no table depends on another."""
    num_days = config.count("num_days")
    rng = np.random.default_rng([config.seed, 0])
    catalogue = make_catalogue(rng, config.count("num_songs"), config.count("num_artists"), num_days)
    users = make_users(
        rng, catalogue, config.count("num_users"), config.count("num_events"), num_days, LEAST_EVENTS_A_USER
    )
    labels = _Labels(rng, catalogue, len(users))
    file = (np.cumsum(users.events) - 1) // EVENTS_A_FILE  # of each user
    bounds = [*np.flatnonzero(np.diff(file, prepend=-1)).tolist(), len(users)]
    for part, (start, stop) in enumerate(pairwise(bounds), start=1):
        events = make_events(
            np.random.default_rng([config.seed, part]), catalogue, users.between(start, stop), num_days
        )
        yield labels.table(events, first_user=start)


class _Labels:
    """Ids and names; their numbers are shuffled, so that they tell nothing about popularity or order."""

    def __init__(self, rng: np.random.Generator, catalogue: SongCatalogue, num_users: int) -> None:
        self.duration_ms = catalogue.duration_ms
        self.users = _ids("user", rng.permutation(num_users))
        self.songs = _ids("track", rng.permutation(len(catalogue.artist)))
        self.song_names = pa.array(song_names(rng, len(catalogue.artist)))
        artist_ids = _ids("artist", rng.permutation(len(catalogue.genre)))
        self.artist_ids = _lists(artist_ids, catalogue)
        self.artist_names = _lists(pa.array(artist_names(rng, len(catalogue.genre))), catalogue)

    def table(self, events: Events, first_user: int) -> pa.Table:
        song = pa.array(events.song)
        start_ms = int(datetime.combine(START, time(), UTC).timestamp() * 1000)
        columns = {
            "user_id": self.users.take(pa.array(events.user + first_user)),
            "track_id": self.songs.take(song),
            "artist_id": self.artist_ids.take(song),
            "played_at": pa.array(events.played_ms + start_ms, pa.timestamp("ms", tz="UTC")),
            "ms_played": pa.array(events.ms_played),
            "duration_ms": pa.array(self.duration_ms[events.song]),
            "skipped": pa.array(events.skipped),
            "track_name": self.song_names.take(song),
            "artist_name": self.artist_names.take(song),
        }
        return pa.table(columns)


def _ids(kind: str, numbers: Ints) -> pa.Array:
    width = len(str(len(numbers)))
    return pa.array([f"{kind}-{number:0{width}d}" for number in numbers])


def _lists(labels: pa.Array, catalogue: SongCatalogue) -> pa.Array:
    """Return the labels of each song's one or two artists: (S,)."""
    both = np.stack([catalogue.artist, catalogue.second_artist], axis=1)
    offsets = np.concatenate([[0], np.cumsum((both >= 0).sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), labels.take(pa.array(both[both >= 0])))


def _write_table(table: pa.Table, path: Path) -> Path:
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(table, partial, compression="zstd")
    return partial.replace(path)

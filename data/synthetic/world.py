"""The world of the synthetic log: a catalogue of songs and artists, and users with drifting tastes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NUM_GENRES = 16
FAVOURITES = 6
ERAS = 2
"""Over the log, a user's taste moves from the favourites of the first era to those of the second."""

ARTIST_EXPONENT = 1.0
SONG_EXPONENT = 1.0
"""Popularity falls with rank to this power, among artists and among the songs of one (Zipf's law; in music: Celma,
"Music Recommendation and Discovery", 2010, chapter 4)."""
SHARE_OLD_SONGS = 0.7
SHARE_OLD_USERS = 0.7
SHARE_DUETS = 0.05


@dataclass(frozen=True)
class SongCatalogue:
    """Songs ordered by artist and release, artists ordered by genre, so that every group is one slice."""

    genre: Ints
    """(A,) genre of each artist, ascending."""
    artist_weight: Floats
    """(A,) weight with which an artist is picked within a genre."""
    artist: Ints
    """(S,) artist of each song, ascending."""
    second_artist: Ints
    """(S,) second artist of a few songs, -1 for the others."""
    song_weight: Floats
    """(S,) weight with which a song is picked among those of its artist."""
    released: Ints
    """(S,) day of the log, at least 0; ascending within an artist, and 0 for the artist's first song."""
    duration_ms: Ints
    """(S,) length of the song."""

    def pick_artists(self, genre: Ints, u: Floats) -> Ints:
        """Pick an artist of each genre (N,) by popularity, with a uniform number for each (N,): (N,)."""
        start, end = np.searchsorted(self.genre, genre), np.searchsorted(self.genre, genre, side="right")
        return _pick_between(self.artist_weight, start, end, u)

    def pick_any_artists(self, u: Floats) -> Ints:
        """Pick an artist of any genre by popularity, for each uniform number (N,): (N,)."""
        whole = np.zeros(len(u), dtype=np.int64)
        return _pick_between(self.artist_weight, whole, whole + len(self.genre), u)

    def pick_songs(self, artist: Ints, day: Ints, u: Floats) -> Ints:
        """Pick a song of each artist (N,) that is released by the day (N,), by popularity: (N,)."""
        horizon = int(max(self.released.max(), day.max(initial=0))) + 1
        start = np.searchsorted(self.artist, np.arange(len(self.genre)))[artist]
        end = np.searchsorted(self.artist * horizon + self.released, artist * horizon + day, side="right")
        return _pick_between(self.song_weight, start, end, u)


@dataclass(frozen=True)
class Users:
    """The properties of U users."""

    events: Ints
    """(U,) number of listens in the log."""
    joined: Ints
    """(U,) first day of the log on which the user may listen."""
    favourites: Ints
    """(U, ERAS, FAVOURITES) artists, the most liked first."""
    genres: Ints
    """(U, ERAS) the genre that the user explores."""
    hour: Floats
    """(U,) the time of day, UTC, around which the user listens."""

    def __len__(self) -> int:
        return len(self.events)

    def between(self, start: int, stop: int) -> Users:
        """Return the users from ``start`` to before ``stop``."""
        return Users(**{field.name: getattr(self, field.name)[start:stop] for field in fields(self)})


def make_catalogue(rng: np.random.Generator, num_songs: int, num_artists: int, num_days: int) -> SongCatalogue:
    """Make artists with power-law popularity, the popular ones with more songs; 3 in 10 songs appear during the log."""
    num_genres = min(NUM_GENRES, num_artists)  # so that each genre has an artist
    genre = np.sort(np.append(np.arange(num_genres), rng.integers(num_genres, size=num_artists - num_genres)))
    weight = _zipf(rng, num_artists, ARTIST_EXPONENT)
    extra = rng.choice(num_artists, size=num_songs - num_artists, p=np.sqrt(weight) / np.sqrt(weight).sum())
    artist = np.sort(np.append(np.arange(num_artists), extra))
    return SongCatalogue(
        genre=genre,
        artist_weight=weight,
        artist=artist,
        second_artist=_second_artists(rng, genre, artist),
        song_weight=_weights_within(rng, artist),
        released=_release_days(rng, artist, num_days),
        duration_ms=np.clip(rng.normal(215_000, 45_000, num_songs), 60_000, 600_000).astype(np.int64),
    )


def make_users(
    rng: np.random.Generator, catalogue: SongCatalogue, num_users: int, num_events: int, num_days: int, least: int
) -> Users:
    """Make users with log-normal activity and at least ``least`` listens; 3 in 10 users join during the log."""
    joined = _days_of_appearance(rng, num_users, SHARE_OLD_USERS, num_days)
    activity = rng.lognormal(0.0, 0.9, num_users) * (num_days - joined)
    # the first two are liked in the first era, the last two in the second
    genres = rng.integers(catalogue.genre[-1] + 1, size=(num_users, 3))
    return Users(
        events=least + rng.multinomial(num_events - least * num_users, activity / activity.sum()),
        joined=joined,
        favourites=_favourites(rng, catalogue, genres),
        genres=genres[:, :ERAS],
        hour=rng.choice([8.0, 13.0, 18.0, 21.0], num_users, p=[0.2, 0.15, 0.35, 0.3]) + rng.normal(0, 1.0, num_users),
    )


def _favourites(rng: np.random.Generator, catalogue: SongCatalogue, genres: Ints) -> Ints:
    """Pick favourite artists (U, ERAS, FAVOURITES); the second era keeps about half of the first."""
    num_users = len(genres)
    liked = np.stack([genres[:, :2], genres[:, 1:]], axis=1)  # (U, ERAS, 2)
    second = (rng.random((num_users, ERAS, FAVOURITES)) < 0.3).astype(np.int64)
    of_genre = np.take_along_axis(liked, second, axis=2)
    favourites = catalogue.pick_artists(of_genre.ravel(), rng.random(of_genre.size)).reshape(of_genre.shape)
    stays = rng.random((num_users, FAVOURITES)) < 0.5
    favourites[:, 1] = np.where(stays, favourites[:, 0], favourites[:, 1])
    return favourites


def _zipf(rng: np.random.Generator, count: int, exponent: float) -> Floats:
    """Return power-law weights (count,) in random order, so that an index tells nothing about popularity."""
    return rng.permutation(np.arange(1.0, count + 1) ** -exponent)


def _weights_within(rng: np.random.Generator, artist: Ints) -> Floats:
    """Return power-law weights among the songs of each artist, in random order: (S,)."""
    order = np.lexsort((rng.random(len(artist)), artist))
    rank = np.empty(len(artist))
    rank[order] = np.arange(len(artist)) - np.searchsorted(artist, artist) + 1
    return rank**-SONG_EXPONENT


def _release_days(rng: np.random.Generator, artist: Ints, num_days: int) -> Ints:
    released = _days_of_appearance(rng, len(artist), SHARE_OLD_SONGS, num_days)
    released[np.searchsorted(artist, np.arange(artist[-1] + 1))] = 0
    return released[np.lexsort((released, artist))]


def _days_of_appearance(rng: np.random.Generator, count: int, share_old: float, num_days: int) -> Ints:
    """Return days (count,): 0 for the old ones, the others spread evenly over the first nine tenths of the log."""
    day = rng.integers(max(1, round(num_days * 0.9)), size=count)
    return np.where(rng.random(count) < share_old, 0, day)


def _second_artists(rng: np.random.Generator, genre: Ints, artist: Ints) -> Ints:
    """Return the next artist (mostly of the same genre) for a few songs, and -1 for the others: (S,)."""
    is_duet = rng.random(len(artist)) < SHARE_DUETS
    return np.where(is_duet & (len(genre) > 1), (artist + 1) % len(genre), -1)


def _pick_between(weight: Floats, start: Ints, end: Ints, u: Floats) -> Ints:
    """Pick one index of each slice ``start:end`` by ``weight``; an empty slice gives its start: (N,)."""
    total = np.concatenate([[0.0], np.cumsum(weight)])
    target = total[start] + u * (total[end] - total[start])
    picked: npt.NDArray[Any] = np.searchsorted(total, target, side="right") - 1
    return np.clip(picked, start, np.maximum(end - 1, start))

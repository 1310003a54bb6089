"""The events of the synthetic log: which songs users play, when, and how much of them; computed as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.synthetic.world import FAVOURITES, Floats, Ints, SongCatalogue, Users

AGAIN, FAVOURITE, GENRE, POPULAR = range(4)
"""Reasons to play a song: played before; by a favourite artist; of a liked genre; popular with everyone."""
SHARES = np.array([0.35, 0.42, 0.15, 0.08])
SKIP_RATES = np.array([0.05, 0.12, 0.25, 0.40])
"""Probability of a skip for each reason; songs far from the user's taste are skipped more often."""
EVENTS_A_SESSION = 10
MS_A_DAY = 86_400_000
MS_AN_HOUR = 3_600_000


@dataclass(frozen=True)
class Events:
    """N listens, ordered by user and session."""

    user: Ints
    song: Ints
    played_ms: Ints
    """Start time, in milliseconds since the first midnight of the log."""
    ms_played: Ints
    skipped: npt.NDArray[np.bool_]


def make_events(rng: np.random.Generator, catalogue: SongCatalogue, users: Users, num_days: int) -> Events:
    """Make all events of ``users``, who are numbered from 0."""
    user = np.repeat(np.arange(len(users)), users.events)
    session = _sessions(rng, user)
    session_start = _session_starts(rng, users, user[_firsts(session)], num_days)
    day = (session_start // MS_A_DAY)[session]
    reason = rng.choice(len(SHARES), size=len(user), p=SHARES)
    song = _fresh_songs(rng, catalogue, users, user, day, reason, day / num_days)
    song = song[_heard_before(rng, user, reason == AGAIN)]
    skipped = rng.random(len(user)) < SKIP_RATES[reason]
    ms_played = _ms_played(rng, catalogue.duration_ms[song], skipped)
    return Events(
        user, song, session_start[session] + _since_session_start(rng, session, ms_played), ms_played, skipped
    )


def _sessions(rng: np.random.Generator, user: Ints) -> Ints:
    """Return the session of each event (N,); lengths are geometric, and no session spans two users."""
    starts = rng.random(len(user)) < 1 / EVENTS_A_SESSION
    starts[_firsts(user)] = True
    return np.cumsum(starts) - 1


def _firsts(group: Ints) -> Ints:
    """Return the first index of each run of equal numbers."""
    return np.flatnonzero(np.diff(group, prepend=-1))


def _session_starts(rng: np.random.Generator, users: Users, user: Ints, num_days: int) -> Ints:
    """Return the start of each session, in milliseconds, ordered within each user.

    Sessions are on days after the user joined, around the user's hour of the day.
    """
    day = users.joined[user] + np.floor(rng.random(len(user)) * (num_days - users.joined[user]))
    hour = (users.hour[user] + rng.normal(0, 2.0, len(user))) % 24
    start = (day * MS_A_DAY + hour * MS_AN_HOUR).astype(np.int64)
    return start[np.lexsort((start, user))]


def _fresh_songs(
    rng: np.random.Generator,
    catalogue: SongCatalogue,
    users: Users,
    user: Ints,
    day: Ints,
    reason: Ints,
    progress: Floats,
) -> Ints:
    """Return a song for each event (N,), as if none were repeated."""
    era = (rng.random(len(user)) < progress).astype(np.int64)
    rank = np.minimum(np.floor(FAVOURITES * rng.random(len(user)) ** 1.6), FAVOURITES - 1).astype(np.int64)
    artist = users.favourites[user, era, rank]
    in_genre, popular = reason == GENRE, reason == POPULAR
    artist[in_genre] = catalogue.pick_artists(users.genres[user, era][in_genre], rng.random(in_genre.sum()))
    artist[popular] = catalogue.pick_any_artists(rng.random(popular.sum()))
    return catalogue.pick_songs(artist, day, rng.random(len(user)))


def _heard_before(rng: np.random.Generator, user: Ints, again: npt.NDArray[np.bool_]) -> Ints:
    """Return, for each event (N,), the event from which it takes its song.

    That is the event itself or, if ``again``, an earlier and mostly recent event of the user. Copying earlier choices
    gives play counts a power law (Simon, "On a Class of Skew Distribution Functions", Biometrika 1955). Chains of
    copies are followed by doubling, so the number of steps is logarithmic in the longest chain.
    """
    first = _firsts(user)[user - user[0]] if len(user) else user
    place = np.arange(len(user))
    earlier = first + np.floor((place - first) * np.sqrt(rng.random(len(user)))).astype(np.int64)
    source = np.where(again, earlier, place)
    while np.any((onward := source[source]) != source):
        source = onward
    return source


def _ms_played(rng: np.random.Generator, duration_ms: Ints, skipped: npt.NDArray[np.bool_]) -> Ints:
    share = rng.random(len(duration_ms))
    heard = np.where(skipped, 0.02 + 0.4 * share, np.minimum(1.0, 0.85 + 0.5 * share))
    return (duration_ms * heard).astype(np.int64)


def _since_session_start(rng: np.random.Generator, session: Ints, ms_played: Ints) -> Ints:
    """Return the milliseconds since the start of the session (N,): the plays before, and short pauses."""
    ends = np.cumsum(ms_played + rng.integers(500, 6_000, len(session)))
    before = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    return before - before[_firsts(session)][session]

"""Which user-song pairs train, and which are held out to validate and to test: four strategies, in numpy.

Everything here is a pure function of arrays; ``data.training_graph`` applies it to a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from data.cutoff import Cut, CutConfig, temporal_cut
from data.errors import InputError
from data.listens import SPLIT_NAMES, Floats, Ints, Listens, Mask

Parts = npt.NDArray[np.int8]

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


class Part(IntEnum):
    """What a user-song pair is for."""

    TRAIN = 0
    VAL = 1
    TEST = 2
    NEW_USER_VAL = 3
    """Held out, of a user without any train pair: nothing can be learned about that user, so it is kept apart."""
    NEW_USER_TEST = 4
    LEFT_OUT = 5
    """First heard in the gap before the held-out days: of no use."""


class SplitConfig(CutConfig):
    """How pairs are divided into train, validation and test.

    The ratios are shares of the pairs (random), of the listens (temporal), or, ``val_ratio`` alone, of the train pairs
    (column, where the log has no validation rows); leave_last_out holds out one song a user for each part.
    """

    strategy: Literal["random", "leave_last_out", "temporal", "column"] = "random"
    """random: by a salted hash of the pair; leave_last_out: the songs a user found last; temporal: what is heard first
    after a day; column: as the log's ``split`` column says."""
    salt: int = 0
    """Another salt draws other pairs; the same one keeps a held-out pair held out on later nights."""

    def cut(self) -> CutConfig:
        """The cut alone, for the filters of ingest, which count only what lies before it."""
        return CutConfig(**self.model_dump(include=set(CutConfig.model_fields)))

    def with_cut(self, decided: Mapping[str, str] | None) -> SplitConfig:
        """This configuration with the days that ingest decided before it filtered, ``cut`` of its ``counts.json``.

        A cut by ratio would come out differently on the rows that are left.
        """
        if self.strategy != "temporal" or decided is None:
            return self
        has_validation = decided["val_from"] != decided["test_from"]
        dates = {key: decided[key] for key in ("val_from", "test_from") if key == "test_from" or has_validation}
        return SplitConfig.parse({**self.model_dump(), **dates}, "split")

    @model_validator(mode="after")
    def _dates_need_temporal(self) -> Self:
        given = [key for key in ("gap_days", "val_from", "test_from") if getattr(self, key)]
        if given and self.strategy != "temporal":
            raise ValueError(f"{given[0]} has a meaning only for the strategy 'temporal', not for '{self.strategy}'")
        return self


@dataclass(frozen=True)
class Split:
    """A division of the P pairs of R rows of listens."""

    part: Parts
    """(P,) a ``Part`` for each pair."""
    train_rows: Mask
    """(R,) the rows that may be learned from."""
    relisten_val: Mask | None = None
    """(P,) heard in the validation days and before them; only under ``temporal``."""
    relisten_test: Mask | None = None
    """(P,) heard in the test days and before them; only under ``temporal``."""
    cut: Cut | None = None
    """The days that were decided; only under ``temporal``."""


def split_listens(listens: Listens, user_hash: Ints, song_hash: Ints, config: SplitConfig) -> Split:
    """Divide the pairs of ``listens`` by the configured strategy.

    Args:
        listens: rows (user, song, day) in order.
        user_hash: (U,) stable hash of each user's id.
        song_hash: (S,) stable hash of each song's id.
        config: strategy, ratios, salt and dates.

    Raises:
        InputError: the log lacks the times or the column that the strategy needs, or no train pair remains.
    """
    user, song = listens.pairs()
    draw = pair_uniform(user_hash[user], song_hash[song], config.salt)
    split = STRATEGIES[config.strategy](listens, draw, config)
    if not np.any(split.part == Part.TRAIN):
        raise InputError(
            f"The {config.strategy} split leaves no train data of {len(user)} user-song pairs; "
            "hold out less or give a longer log."
        )
    return split


def mix64(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """One step of the SplitMix64 generator for each element: a bijection of 64 bits that spreads every bit over all.

    Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014); the multipliers are those of
    Stafford's variant 13, as in Vigna's public-domain ``splitmix64.c``.
    """
    mixed = state + GOLDEN_GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def pair_uniform(user_hash: Ints, song_hash: Ints, salt: int) -> Floats:
    """(P,) a number in [0, 1) for each pair, uniform over pairs, that depends on the two ids and the salt alone."""
    salted = mix64(np.full(len(user_hash), salt % 2**64, dtype=np.uint64))
    mixed = mix64(mix64(salted ^ user_hash.astype(np.uint64)) ^ song_hash.astype(np.uint64))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def random_parts(user: Ints, draw: Floats, val_ratio: float, test_ratio: float) -> Parts:
    """(P,) parts by each pair's own draw, so that a pair once held out stays held out when the log grows.

    Where a user's pairs are all held out, the one with the greatest draw goes back to train. More pairs can only put a
    greater one in its place, so growth never moves a held-out pair to train; it may move a pair that came back so (the
    only one of its user, say) from train to where its draw belongs.
    """
    parts = np.full(len(user), Part.TRAIN, dtype=np.int8)
    parts[draw < test_ratio + val_ratio] = Part.VAL
    parts[draw < test_ratio] = Part.TEST
    parts[_greatest_of_untrained(user, draw, parts)] = Part.TRAIN
    return parts


def leave_last_out_parts(user: Ints, first_played: Ints, draw: Floats) -> Parts:
    """(P,) parts: the song that a user heard first most recently is for test, the one before it for validation.

    A user with two songs has no validation pair, one with a single song neither; equal times are ordered by the draw.
    """
    order = np.lexsort((draw, first_played, user))
    songs = np.bincount(user) if len(user) else np.zeros(0, dtype=np.int64)
    total = songs[user[order]]
    from_last = np.cumsum(songs)[user[order]] - 1 - np.arange(len(user))  # 0 is the user's last song
    parts = np.full(len(user), Part.TRAIN, dtype=np.int8)
    parts[order[(from_last == 0) & (total >= 2)]] = Part.TEST
    parts[order[(from_last == 1) & (total >= 3)]] = Part.VAL
    return parts


def periods(day: Ints, cut: Cut, gap_days: int) -> Parts:
    """(R,) the part of the log in which each day lies; ``LEFT_OUT`` for the gap before validation."""
    last_starts = [day >= cut.test_from_day, day >= cut.val_from_day, day >= cut.val_from_day - gap_days]
    return np.select(last_starts, [Part.TEST, Part.VAL, Part.LEFT_OUT], Part.TRAIN).astype(np.int8)


def temporal_split(listens: Listens, period: Parts) -> Split:
    """The part of a pair is the period (R,) of its first listen; periods in which it is heard again are re-listens."""
    first = period[listens.starts()]  # (P,) rows of a pair are ordered by day
    part = mark_new_users(listens.pairs()[0], first)
    user_known = ~np.isin(part, (Part.NEW_USER_VAL, Part.NEW_USER_TEST))
    return Split(
        part=part,
        train_rows=period == Part.TRAIN,
        relisten_val=_heard_in(listens, period == Part.VAL) & (first != Part.VAL) & user_known,
        relisten_test=_heard_in(listens, period == Part.TEST) & (first != Part.TEST) & user_known,
    )


def column_parts(listens: Listens, draw: Floats, val_ratio: float) -> Parts:
    """(P,) parts as the log's ``split`` column says; without validation rows ``val_ratio`` of the train pairs is drawn.

    Raises:
        InputError: the log has no such column, a row without a value, or a pair in two parts.
    """
    named = _split_column(listens)
    parts = named[listens.starts()].astype(np.int8)
    user = listens.pairs()[0]
    if not np.any(parts == Part.VAL):
        train = parts == Part.TRAIN
        parts[train] = random_parts(user[train], draw[train], val_ratio, test_ratio=0.0)
    return mark_new_users(user, parts)


def mark_new_users(user: Ints, parts: Parts) -> Parts:
    """(P,) the parts, with the held-out pairs of users who have no train pair renamed to ``NEW_USER_…``."""
    is_new = _untrained(user, parts)
    renamed = parts.copy()
    renamed[is_new & (parts == Part.VAL)] = Part.NEW_USER_VAL
    renamed[is_new & (parts == Part.TEST)] = Part.NEW_USER_TEST
    return renamed


def _by_hash(listens: Listens, draw: Floats, config: SplitConfig) -> Split:
    return _of_whole_pairs(listens, random_parts(listens.pairs()[0], draw, config.val_ratio, config.test_ratio))


def _by_last(listens: Listens, draw: Floats, config: SplitConfig) -> Split:
    if listens.first_played is None:
        raise InputError(_lacks(config, "played_at in every row"))
    starts = listens.starts()
    return _of_whole_pairs(listens, leave_last_out_parts(listens.user[starts], listens.first_played[starts], draw))


def _by_time(listens: Listens, draw: Floats, config: SplitConfig) -> Split:
    if listens.day is None:
        raise InputError(_lacks(config, "played_at in every row, and the listens table beside the graph"))
    cut = temporal_cut(listens.day, config)
    return replace(temporal_split(listens, periods(listens.day, cut, config.gap_days)), cut=cut)


def _by_column(listens: Listens, draw: Floats, config: SplitConfig) -> Split:
    return _of_whole_pairs(listens, column_parts(listens, draw, config.val_ratio))


STRATEGIES: dict[str, Callable[[Listens, Floats, SplitConfig], Split]] = {
    "random": _by_hash,
    "leave_last_out": _by_last,
    "temporal": _by_time,
    "column": _by_column,
}


def _of_whole_pairs(listens: Listens, parts: Parts) -> Split:
    """All rows of a train pair are train rows."""
    return Split(part=parts, train_rows=parts[listens.pair_of_row()] == Part.TRAIN)


def _lacks(config: SplitConfig, what: str) -> str:
    return f"The strategy '{config.strategy}' needs {what}, which is not there; add it or choose the strategy 'random'."


def _split_column(listens: Listens) -> Ints:
    if listens.split is None:
        raise InputError(
            "The strategy 'column' needs the column 'split' in the log, and the listens table beside the graph."
        )
    if np.any(listens.split < 0):
        raise InputError(
            f"The column 'split' is empty in {np.sum(listens.split < 0)} of {len(listens)} listens; "
            f"every row needs one of {', '.join(SPLIT_NAMES)}."
        )
    mixed = np.flatnonzero(listens.split != listens.split[listens.starts()][listens.pair_of_row()])
    if len(mixed):
        raise InputError(
            f"The column 'split' puts {len(np.unique(listens.pair_of_row()[mixed]))} user-song pairs into two parts "
            f"(first: user {listens.user[mixed[0]]}, song {listens.song[mixed[0]]} of the vocabularies); give each one."
        )
    return listens.split


def _heard_in(listens: Listens, rows: Mask) -> Mask:
    """(P,) the pairs that have one of these rows (R,)."""
    starts = listens.starts()
    return np.logical_or.reduceat(rows, starts) if len(starts) else np.zeros(0, dtype=bool)


def _untrained(user: Ints, parts: Parts) -> Mask:
    """(P,) the pairs whose user has no train pair."""
    train_pairs = np.bincount(user, weights=parts == Part.TRAIN)
    return train_pairs[user] == 0


def _greatest_of_untrained(user: Ints, draw: Floats, parts: Parts) -> Ints:
    """The pair with the greatest draw of each user who has no train pair."""
    pairs = np.flatnonzero(_untrained(user, parts))
    ordered = pairs[np.lexsort((draw[pairs], user[pairs]))]
    is_last = np.append(np.diff(user[ordered]) != 0, True)[: len(ordered)]
    return ordered[is_last]

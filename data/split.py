"""Splits user-song pairs into train, validation and test, by four strategies in numpy.

All functions here are pure functions of arrays; ``data.training_graph`` applies them to a graph.
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
    """The part of the split that a user-song pair belongs to."""

    TRAIN = 0
    VAL = 1
    TEST = 2
    NEW_USER_VAL = 3
    """Held out, but its user has no train pair, so nothing can be learned about that user; measured separately."""
    NEW_USER_TEST = 4
    LEFT_OUT = 5
    """First heard in the gap before the held-out days; it is not used."""


class SplitConfig(CutConfig):
    """How pairs are divided into train, validation and test.

    The ratios are shares of the pairs (random) or of the listens (temporal). With ``column`` only ``val_ratio`` is
    used, as a share of the train pairs, and only if the log has no validation rows. leave_last_out uses no ratios: it
    holds out one song per user for each part.
    """

    strategy: Literal["random", "leave_last_out", "temporal", "column"] = "random"
    """random: by a salted hash of the pair; leave_last_out: the songs that a user heard for the first time most
    recently; temporal: pairs that are first heard from some day on; column: as the ``split`` column of the log says."""
    salt: int = 0
    """Another salt draws other pairs; the same salt keeps a held-out pair held out in later runs."""

    def cut(self) -> CutConfig:
        """Return only the settings of the cut, for the filters of ingest, which count only listens before it."""
        return CutConfig(**self.model_dump(include=set(CutConfig.model_fields)))

    def with_cut(self, decided: Mapping[str, str] | None) -> SplitConfig:
        """Return this configuration with the days that ingest decided before its filters (``cut`` in ``counts.json``).

        A cut by ratio could give other days on the rows that the filters keep.
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
    """The parts of the P pairs and R rows of listens."""

    part: Parts
    """(P,) the ``Part`` of each pair."""
    train_rows: Mask
    """(R,) the rows that a model may learn from."""
    relisten_val: Mask | None = None
    """(P,) pairs that were heard in the validation days and before; only with ``temporal``."""
    relisten_test: Mask | None = None
    """(P,) pairs that were heard in the test days and before; only with ``temporal``."""
    cut: Cut | None = None
    """The days of the cut; only with ``temporal``."""


def split_listens(listens: Listens, user_hash: Ints, song_hash: Ints, config: SplitConfig) -> Split:
    """Split the pairs of ``listens`` by the configured strategy.

    Args:
        listens: rows (user, song, day) in order.
        user_hash: (U,) stable hash of each user's id.
        song_hash: (S,) stable hash of each song's id.
        config: strategy, ratios, salt and dates.

    Raises:
        InputError: the log lacks the times or the column that the strategy needs, or no train pair remains.
    """
    user, song = listens.pairs()
    uniform = pair_uniform(user_hash[user], song_hash[song], config.salt)
    split = STRATEGIES[config.strategy](listens, uniform, config)
    if not np.any(split.part == Part.TRAIN):
        raise InputError(
            f"The {config.strategy} split leaves no train data of {len(user)} user-song pairs; "
            "hold out less or give a longer log."
        )
    return split


def mix64(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Apply one step of the SplitMix64 generator to each element: a bijection of 64 bits that mixes all bits.

    Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014), with the multipliers
    of Stafford's variant 13, as in Vigna's public-domain ``splitmix64.c``.
    """
    mixed = state + GOLDEN_GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def pair_uniform(user_hash: Ints, song_hash: Ints, salt: int) -> Floats:
    """Return a uniform number in [0, 1) for each pair, which depends only on the two ids and the salt: (P,)."""
    salted = mix64(np.full(len(user_hash), salt % 2**64, dtype=np.uint64))
    mixed = mix64(mix64(salted ^ user_hash.astype(np.uint64)) ^ song_hash.astype(np.uint64))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def random_parts(user: Ints, uniform: Floats, val_ratio: float, test_ratio: float) -> Parts:
    """Return parts (P,) by each pair's uniform number, so that a held-out pair stays held out when the log grows.

    If all pairs of a user are held out, the pair with the largest number goes back to train. When the log grows, only a
    pair with a larger number can take its place. So growth never moves a held-out pair to train; it can only move a
    pair that went back (for example, the only pair of its user) from train to the part of its number.
    """
    parts = np.full(len(user), Part.TRAIN, dtype=np.int8)
    parts[uniform < test_ratio + val_ratio] = Part.VAL
    parts[uniform < test_ratio] = Part.TEST
    parts[_largest_of_untrained_users(user, uniform, parts)] = Part.TRAIN
    return parts


def leave_last_out_parts(user: Ints, first_played: Ints, uniform: Floats) -> Parts:
    """Return parts (P,): the song that a user found last is for test, the one before it for validation.

    A user finds a song with the first listen to it. A user with two songs has no validation pair, and a user with one
    song has only a train pair. Equal times are ordered by the uniform numbers.
    """
    order = np.lexsort((uniform, first_played, user))
    songs = np.bincount(user) if len(user) else np.zeros(0, dtype=np.int64)
    total = songs[user[order]]
    from_last = np.cumsum(songs)[user[order]] - 1 - np.arange(len(user))  # 0 is the user's last song
    parts = np.full(len(user), Part.TRAIN, dtype=np.int8)
    parts[order[(from_last == 0) & (total >= 2)]] = Part.TEST
    parts[order[(from_last == 1) & (total >= 3)]] = Part.VAL
    return parts


def periods(day: Ints, cut: Cut, gap_days: int) -> Parts:
    """Return the part that each day belongs to, ``LEFT_OUT`` for the gap before validation: (R,)."""
    last_starts = [day >= cut.test_from_day, day >= cut.val_from_day, day >= cut.val_from_day - gap_days]
    return np.select(last_starts, [Part.TEST, Part.VAL, Part.LEFT_OUT], Part.TRAIN).astype(np.int8)


def temporal_split(listens: Listens, period: Parts) -> Split:
    """Split pairs by the period (R,) of their first listen; later periods in which they are heard are re-listens."""
    first = period[listens.starts()]  # (P,) rows of a pair are ordered by day
    part = mark_new_users(listens.pairs()[0], first)
    user_known = ~np.isin(part, (Part.NEW_USER_VAL, Part.NEW_USER_TEST))
    return Split(
        part=part,
        train_rows=period == Part.TRAIN,
        relisten_val=_heard_in(listens, period == Part.VAL) & (first != Part.VAL) & user_known,
        relisten_test=_heard_in(listens, period == Part.TEST) & (first != Part.TEST) & user_known,
    )


def column_parts(listens: Listens, uniform: Floats, val_ratio: float) -> Parts:
    """Return parts (P,) from the ``split`` column of the log.

    If there are no validation rows, a share ``val_ratio`` of the train pairs is drawn for validation.

    Raises:
        InputError: the log has no such column, a row without a value, or a pair in two parts.
    """
    named = _split_column(listens)
    parts = named[listens.starts()].astype(np.int8)
    user = listens.pairs()[0]
    if not np.any(parts == Part.VAL):
        train = parts == Part.TRAIN
        parts[train] = random_parts(user[train], uniform[train], val_ratio, test_ratio=0.0)
    return mark_new_users(user, parts)


def mark_new_users(user: Ints, parts: Parts) -> Parts:
    """Return the parts (P,) with ``NEW_USER_…`` for the held-out pairs of users who have no train pair."""
    is_new = _untrained(user, parts)
    renamed = parts.copy()
    renamed[is_new & (parts == Part.VAL)] = Part.NEW_USER_VAL
    renamed[is_new & (parts == Part.TEST)] = Part.NEW_USER_TEST
    return renamed


def _random(listens: Listens, uniform: Floats, config: SplitConfig) -> Split:
    return _of_whole_pairs(listens, random_parts(listens.pairs()[0], uniform, config.val_ratio, config.test_ratio))


def _leave_last_out(listens: Listens, uniform: Floats, config: SplitConfig) -> Split:
    if listens.first_played is None:
        raise InputError(_lacks(config, "played_at in every row"))
    starts = listens.starts()
    return _of_whole_pairs(listens, leave_last_out_parts(listens.user[starts], listens.first_played[starts], uniform))


def _temporal(listens: Listens, uniform: Floats, config: SplitConfig) -> Split:
    if listens.day is None:
        raise InputError(_lacks(config, "played_at in every row, and the listens table beside the graph"))
    cut = temporal_cut(listens.day, config)
    return replace(temporal_split(listens, periods(listens.day, cut, config.gap_days)), cut=cut)


def _column(listens: Listens, uniform: Floats, config: SplitConfig) -> Split:
    return _of_whole_pairs(listens, column_parts(listens, uniform, config.val_ratio))


STRATEGIES: dict[str, Callable[[Listens, Floats, SplitConfig], Split]] = {
    "random": _random,
    "leave_last_out": _leave_last_out,
    "temporal": _temporal,
    "column": _column,
}


def _of_whole_pairs(listens: Listens, parts: Parts) -> Split:
    """Return the split in which all rows of a train pair are train rows."""
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
    """Return which pairs have at least one of the rows (R,): (P,)."""
    starts = listens.starts()
    return np.logical_or.reduceat(rows, starts) if len(starts) else np.zeros(0, dtype=bool)


def _untrained(user: Ints, parts: Parts) -> Mask:
    """Return which pairs belong to a user without a train pair: (P,)."""
    train_pairs = np.bincount(user, weights=parts == Part.TRAIN)
    return train_pairs[user] == 0


def _largest_of_untrained_users(user: Ints, uniform: Floats, parts: Parts) -> Ints:
    """Return, for each user without a train pair, the pair with the largest uniform number."""
    pairs = np.flatnonzero(_untrained(user, parts))
    ordered = pairs[np.lexsort((uniform[pairs], user[pairs]))]
    is_last = np.append(np.diff(user[ordered]) != 0, True)[: len(ordered)]
    return ordered[is_last]

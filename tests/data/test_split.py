"""data/split.py: the four strategies, as properties over random listens."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.listens import Listens
from data.split import Part, SplitConfig, mix64, pair_uniform, random_parts, split_listens

FIRST_DAY = 20_000
HELD_OUT = (Part.VAL, Part.TEST)


@st.composite
def listens(draw: st.DrawFn) -> Listens:
    """Up to 60 rows of up to 8 users and 12 songs, with days, times and a split that is the same for a pair's rows."""
    triples = st.tuples(st.integers(0, 7), st.integers(0, 11), st.integers(0, 20))
    user, song, day = np.array(sorted(draw(st.sets(triples, min_size=1, max_size=60)))).T
    first = (FIRST_DAY + day) * 86_400
    rows = Listens(user, song, np.ones_like(user), FIRST_DAY + day, first_played=first, last_played=first)
    named = np.array(draw(st.lists(st.integers(0, 2), min_size=len(rows.starts()), max_size=len(rows.starts()))))
    return Listens(user, song, rows.plays, rows.day, None, None, first, first, split=named[rows.pair_of_row()])


ratios = st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)).filter(lambda pair: sum(pair) < 1)


def hashes(count: int, kind: int) -> np.ndarray:
    return mix64(np.arange(count, dtype=np.uint64) + np.uint64(kind * 1000)).astype(np.int64) & (2**63 - 1)


def split(rows: Listens, **config):
    return split_listens(rows, hashes(8, 1), hashes(12, 2), SplitConfig(**config))


def users_of(rows: Listens, part: np.ndarray, *parts: Part) -> set[int]:
    return set(rows.pairs()[0][np.isin(part, parts)].tolist())


@given(rows=listens(), ratio=ratios, strategy=st.sampled_from(["random", "leave_last_out"]))
def test_every_pair_has_one_part_and_every_user_a_train_song(rows, ratio, strategy):
    part = split(rows, strategy=strategy, val_ratio=ratio[0], test_ratio=ratio[1]).part
    assert set(part.tolist()) <= {Part.TRAIN, Part.VAL, Part.TEST}
    assert users_of(rows, part, Part.TRAIN) == set(rows.user.tolist())


@given(rows=listens(), strategy=st.sampled_from(["temporal", "column"]))
def test_held_out_pairs_of_users_without_a_train_song_are_set_apart(rows, strategy):
    try:
        part = split(rows, strategy=strategy).part
    except InputError:
        return
    train_users = users_of(rows, part, Part.TRAIN)
    assert users_of(rows, part, *HELD_OUT) <= train_users
    assert users_of(rows, part, Part.NEW_USER_VAL, Part.NEW_USER_TEST).isdisjoint(train_users)


@given(rows=listens(), ratio=ratios, kept=st.lists(st.booleans(), min_size=60, max_size=60), salt=st.integers(-5, 5))
def test_growth_of_the_log_never_moves_a_held_out_pair_to_train(rows, ratio, kept, salt):
    """The later night has all rows, the earlier one some of them; rows of both are compared by their ids."""
    earlier = rows.rows(np.array(kept[: len(rows)]))
    if not len(earlier):
        return
    config = {"val_ratio": ratio[0], "test_ratio": ratio[1], "salt": salt}
    before = dict(zip(map(tuple, earlier.pairs().T), split(earlier, **config).part, strict=True))
    after = dict(zip(map(tuple, rows.pairs().T), split(rows, **config).part, strict=True))
    assert all(after[pair] == part for pair, part in before.items() if part in HELD_OUT)


def test_a_pair_that_came_back_as_its_users_only_one_is_held_out_when_the_user_has_more():
    assert random_parts(np.array([0]), np.array([0.1]), 0.1, 0.2).tolist() == [Part.TRAIN]
    assert random_parts(np.array([0, 0]), np.array([0.1, 0.9]), 0.1, 0.2).tolist() == [Part.TEST, Part.TRAIN]


def test_the_greatest_draw_goes_back_to_train():
    user, draw = np.array([0, 0, 1, 1]), np.array([0.05, 0.15, 0.25, 0.01])
    assert random_parts(user, draw, 0.1, 0.2).tolist() == [Part.TEST, Part.TRAIN, Part.TRAIN, Part.TEST]


def test_draws_are_uniform_and_change_with_the_salt():
    user, song = np.divmod(np.arange(40_000), 200)
    draw = pair_uniform(hashes(200, 1)[user], hashes(200, 2)[song], salt=0)
    counts = np.histogram(draw, bins=20, range=(0, 1))[0]
    assert counts.min() > 1_800
    assert counts.max() < 2_200
    assert abs(np.corrcoef(draw, pair_uniform(hashes(200, 1)[user], hashes(200, 2)[song], salt=1))[0, 1]) < 0.02
    assert abs(np.corrcoef(draw.reshape(200, 200)[0], draw.reshape(200, 200)[1])[0, 1]) < 0.25


def test_draws_do_not_mix_up_user_and_song():
    left, right = np.array([5]), np.array([9])
    assert pair_uniform(left, right, 0) != pair_uniform(right, left, 0)


def test_mix64_gives_the_published_sequence_of_splitmix64():
    """The first outputs of Vigna's splitmix64.c for the seed 1234567."""
    gamma = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + step * gamma) % 2**64 for step in range(3)], dtype=np.uint64)
    assert mix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_leave_last_out_takes_the_songs_that_were_found_last():
    user, song = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 2, 0, 1, 0])
    found = np.array([30, 10, 20, 5, 6, 1])
    rows = Listens(user, song, np.ones(6, dtype=np.int64), first_played=found, last_played=found)
    part = split(rows, strategy="leave_last_out").part
    assert part.tolist() == [Part.TEST, Part.TRAIN, Part.VAL, Part.TRAIN, Part.TEST, Part.TRAIN]


@given(rows=listens())
def test_leave_last_out_holds_out_one_song_a_user_and_part(rows):
    part = split(rows, strategy="leave_last_out").part
    songs = np.bincount(rows.pairs()[0], minlength=8)
    tests = np.bincount(rows.pairs()[0][part == Part.TEST], minlength=8)
    vals = np.bincount(rows.pairs()[0][part == Part.VAL], minlength=8)
    assert tests.tolist() == (songs >= 2).astype(int).tolist()
    assert vals.tolist() == (songs >= 3).astype(int).tolist()


def temporal_rows() -> Listens:
    """User 0 hears songs 0 to 3 first in train, gap, validation and test; user 1 is new in validation."""
    rows = [(0, 0, 0), (0, 0, 15), (0, 0, 25), (0, 1, 8), (0, 1, 21), (0, 2, 12), (0, 2, 22), (0, 3, 20)]
    rows += [(1, 0, 11), (1, 1, 21), (2, 1, 1), (2, 4, 23)]
    user, song, day = np.array(rows).T
    return Listens(user, song, np.ones_like(user), FIRST_DAY + day)


def test_temporal_holds_out_first_listens_and_sets_re_listens_apart():
    day = {
        "val_from": date(1970, 1, 1) + timedelta(FIRST_DAY + 10),
        "test_from": date(1970, 1, 1) + timedelta(FIRST_DAY + 20),
    }
    rows = temporal_rows()
    divided = split(rows, strategy="temporal", gap_days=5, **day)
    parts = dict(zip(map(tuple, rows.pairs().T.tolist()), divided.part.tolist(), strict=True))
    assert parts == {
        (0, 0): Part.TRAIN,
        (0, 1): Part.LEFT_OUT,
        (0, 2): Part.VAL,
        (0, 3): Part.TEST,
        (1, 0): Part.NEW_USER_VAL,
        (1, 1): Part.NEW_USER_TEST,
        (2, 1): Part.TRAIN,
        (2, 4): Part.TEST,
    }
    assert rows.pairs()[:, divided.relisten_val].T.tolist() == [[0, 0]]
    assert rows.pairs()[:, divided.relisten_test].T.tolist() == [[0, 0], [0, 1], [0, 2]]
    assert rows.day[divided.train_rows].max() < FIRST_DAY + 5


def test_the_cut_that_ingest_decided_stands_though_filters_took_rows():
    decided = {"val_from": "2024-10-14", "test_from": "2024-10-24"}  # days 20,010 and 20,020
    config = SplitConfig(strategy="temporal").with_cut(decided)
    part = split_listens(temporal_rows(), hashes(8, 1), hashes(12, 2), config).part
    assert part.tolist() == [0, 0, 1, 2, 3, 4, 0, 2]
    without = SplitConfig(strategy="temporal", val_ratio=0).with_cut({**decided, "val_from": "2024-10-24"})
    assert Part.VAL not in split_listens(temporal_rows(), hashes(8, 1), hashes(12, 2), without).part
    assert SplitConfig().with_cut(decided) == SplitConfig()
    assert SplitConfig(strategy="temporal").with_cut(None) == SplitConfig(strategy="temporal")


def test_the_cut_for_the_filters_of_ingest_is_the_splits():
    config = SplitConfig(strategy="temporal", gap_days=2, test_ratio=0.3, salt=4)
    assert config.cut().model_dump() == {key: getattr(config, key) for key in config.cut().model_dump()}


@given(rows=listens(), gap=st.integers(0, 3))
def test_temporal_pairs_of_a_period_are_first_listens_or_re_listens(rows, gap):
    try:
        divided = split(rows, strategy="temporal", gap_days=gap)
    except InputError:
        return
    assert not np.any(divided.relisten_val & (divided.part == Part.VAL))
    assert not np.any(divided.relisten_test & (divided.part == Part.TEST))
    assert rows.day[divided.train_rows].max() + gap < rows.day[~divided.train_rows].max(initial=2**30)
    assert set(divided.part[rows.pair_of_row()[divided.train_rows]].tolist()) == {Part.TRAIN}


@given(rows=listens())
@settings(max_examples=50)
def test_column_follows_the_log_and_draws_validation_from_train_only_where_there_is_none(rows):
    if not np.any(rows.split == 0):
        return
    try:
        part = split(rows, strategy="column", val_ratio=0.3).part
    except InputError:
        return
    named = rows.split[rows.starts()]
    merged = np.array([Part.TRAIN, Part.VAL, Part.TEST, Part.VAL, Part.TEST])[part]
    if np.any(named == Part.VAL):
        assert merged.tolist() == named.tolist()
    else:
        assert np.array_equal(merged == Part.TEST, named == Part.TEST)
        assert users_of(rows, part, Part.TRAIN) == set(rows.pairs()[0][named == Part.TRAIN].tolist())


def test_column_without_validation_draws_about_its_ratio():
    user, song = np.divmod(np.arange(8_000), 1_000)
    rows = Listens(user, song, np.ones(8_000, dtype=np.int64), split=np.where(song < 200, 2, 0))
    part = split_listens(rows, hashes(8, 1), hashes(1_000, 2), SplitConfig(strategy="column", val_ratio=0.25)).part
    assert np.sum(part == Part.TEST) == 1_600
    assert np.sum(part == Part.VAL) / 6_400 == pytest.approx(0.25, abs=0.02)


def bare(**columns) -> Listens:
    return Listens(np.array([0, 0, 1]), np.array([0, 0, 1]), np.ones(3, dtype=np.int64), **columns)


@pytest.mark.parametrize(
    ("rows", "config", "sentence"),
    [
        (bare(), {"strategy": "temporal"}, "The strategy 'temporal' needs played_at in every row"),
        (bare(), {"strategy": "leave_last_out"}, "The strategy 'leave_last_out' needs played_at in every row"),
        (bare(), {"strategy": "column"}, "The strategy 'column' needs the column 'split' in the log"),
        (
            bare(split=np.array([0, 0, -1])),
            {"strategy": "column"},
            "The column 'split' is empty in 1 of 3 listens; every row needs one of train, valid, test",
        ),
        (
            bare(split=np.array([0, 2, 0])),
            {"strategy": "column"},
            "The column 'split' puts 1 user-song pairs into two parts \\(first: user 0, song 0",
        ),
        (
            bare(split=np.array([2, 2, 2])),
            {"strategy": "column"},
            "The column split leaves no train data of 2 user-song",
        ),
    ],
)
def test_what_a_strategy_lacks_is_a_sentence(rows, config, sentence):
    with pytest.raises(InputError, match=sentence):
        split(rows, **config)


@pytest.mark.parametrize(
    ("given_config", "sentence"),
    [
        ({"val_ratio": 0.5, "test_ratio": 0.5}, "val_ratio 0.5 and test_ratio 0.5 leave no train data"),
        ({"gap_days": 3}, "split: gap_days has a meaning only for the strategy 'temporal', not for 'random'."),
        ({"strategy": "by_time"}, "split.strategy is 'by_time'"),
        ({"test_ratios": 0.1}, "Did you mean 'test_ratio'"),
    ],
)
def test_a_config_that_cannot_be_is_a_sentence(given_config, sentence):
    with pytest.raises(InputError, match=sentence.replace(".", r"\.")):
        SplitConfig.parse(given_config, "split")

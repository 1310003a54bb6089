"""The temporal cut holds out the newest rows, in whole days, and says why it cannot."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from data.cutoff import Cut, CutConfig, day_to_date, temporal_cut
from data.errors import InputError

DAYS = np.arange(100, dtype=np.int32)  # one row a day, 1970-01-01 to 1970-04-10


def test_the_last_rows_are_test_and_those_before_validation():
    assert temporal_cut(DAYS, CutConfig(val_ratio=0.2, test_ratio=0.1)) == Cut(70, 90)


def test_dates_win_over_ratios():
    config = CutConfig(val_from=date(1970, 2, 1), test_from=date(1970, 3, 1))
    assert temporal_cut(DAYS, config) == Cut(31, 59)


def test_a_test_date_alone_leaves_validation_to_the_ratio():
    assert temporal_cut(DAYS, CutConfig(test_from=date(1970, 3, 1), val_ratio=0.1)) == Cut(49, 59)


def test_without_validation_both_days_are_equal():
    assert temporal_cut(DAYS, CutConfig(val_ratio=0.0, test_ratio=0.1)) == Cut(90, 90)


def test_without_test_everything_late_is_validation():
    assert temporal_cut(DAYS, CutConfig(val_ratio=0.1, test_ratio=0.0)) == Cut(90, 100)


def test_counts_stand_for_repeated_rows():
    counts = np.array([5, 1, 3, 4])
    config = CutConfig(val_ratio=0.2, test_ratio=0.3)
    assert temporal_cut(np.arange(4), config, counts) == temporal_cut(np.repeat(np.arange(4), counts), config)


@given(st.lists(st.integers(7000, 7060), min_size=3, max_size=200), st.floats(0.01, 0.45), st.floats(0.01, 0.45))
def test_parts_hold_at_least_their_share_and_not_a_day_more(days: list[int], val_ratio: float, test_ratio: float):
    rows = np.array(days)
    try:
        cut = temporal_cut(rows, CutConfig(val_ratio=val_ratio, test_ratio=test_ratio))
    except InputError:
        assume(False)
    assert (rows >= cut.test_from_day).sum() >= test_ratio * rows.size
    assert (rows > cut.test_from_day).sum() < test_ratio * rows.size
    val = (rows >= cut.val_from_day) & (rows < cut.test_from_day)
    assert val.sum() >= val_ratio * rows.size
    assert (rows[val] > cut.val_from_day).sum() < val_ratio * rows.size
    assert (rows < cut.val_from_day).any()


@pytest.mark.parametrize("days", [None, np.array([], np.int32), np.array([1.0, np.nan])])
def test_a_log_without_times_is_refused(days):
    with pytest.raises(InputError, match=r"the log has no played_at; give a log with played_at, or choose another"):
        temporal_cut(days, CutConfig())


def test_one_day_leaves_no_train_data():
    with pytest.raises(InputError, match="leaves no train data: validation starts on 1970-01-06"):
        temporal_cut(np.full(10, 5), CutConfig())


def test_a_gap_that_swallows_train_is_refused():
    with pytest.raises(InputError, match="a gap of 80 days"):
        temporal_cut(DAYS, CutConfig(gap_days=80))


def test_a_test_date_after_the_log_is_refused():
    with pytest.raises(InputError, match="No listen is on or after test_from 2020-01-01"):
        temporal_cut(DAYS, CutConfig(val_from=date(1970, 2, 1), test_from=date(2020, 1, 1)))


def test_a_validation_date_inside_test_is_refused():
    with pytest.raises(InputError, match="after test on"):
        temporal_cut(DAYS, CutConfig(val_from=date(1970, 4, 9)))


@pytest.mark.parametrize(
    ("given_config", "sentence"),
    [
        ({"val_ratio": 0.5, "test_ratio": 0.5}, "leave no train data; their sum must be below 1"),
        ({"val_from": "2026-03-01", "test_from": "2026-02-01"}, "val_from 2026-03-01 is after test_from 2026-02-01"),
    ],
)
def test_a_config_that_cannot_work_is_refused(given_config, sentence):
    with pytest.raises(InputError, match=sentence):
        CutConfig.parse(given_config, "split")


def test_days_turn_back_into_dates():
    assert day_to_date(20454) == date(2026, 1, 1)

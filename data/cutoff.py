"""The temporal cut: the first day of validation and the first day of test.

The split and the filters of ingest must use the same cut; otherwise a filter would count listens that the split holds
out. So both compute it here. Days are whole UTC days since 1970-01-01; a day is never divided.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from data.config import Config
from data.errors import InputError

EPOCH = date(1970, 1, 1)


class CutConfig(Config):
    """Where a temporal cut divides the log into train, validation and test."""

    val_ratio: float = Field(0.15, ge=0, lt=1)
    """Share that is held out for validation; a temporal cut takes the rows just before test."""
    test_ratio: float = Field(0.15, ge=0, lt=1)
    """Share that is held out for test; a temporal cut takes the last rows."""
    val_from: date | None = None
    """First validation day of a temporal cut (UTC); if not given, ``val_ratio`` decides."""
    test_from: date | None = None
    """First test day of a temporal cut (UTC); if not given, ``test_ratio`` decides."""
    gap_days: int = Field(0, ge=0)
    """Number of days before the first validation day that belong to no part; train ends before them."""

    @model_validator(mode="after")
    def _leave_train_data(self) -> Self:
        if self.val_ratio + self.test_ratio >= 1:
            raise ValueError(
                f"val_ratio {self.val_ratio} and test_ratio {self.test_ratio} leave no train data; "
                "their sum must be below 1"
            )
        if self.val_from and self.test_from and self.val_from > self.test_from:
            raise ValueError(f"val_from {self.val_from} is after test_from {self.test_from}; validation comes first")
        return self


class Cut(NamedTuple):
    """First validation and first test day, in days since 1970-01-01 UTC; equal if there is no validation."""

    val_from_day: int
    test_from_day: int


def temporal_cut(days: NDArray[np.integer] | None, config: CutConfig, counts: NDArray[np.integer] | None = None) -> Cut:
    """Decide the cut: test is at least the last ``test_ratio`` of the rows, in whole days; validation comes before it.

    Rows before ``val_from_day - gap_days`` are train; rows in the gap are in no part. Dates of the config override its
    ratios. A part is empty if its ratio is 0 and no date is given.

    Args:
        days: the day of each row (N,), in any order; None or empty if the log has no times.
        config: ratios or dates, and the gap.
        counts: the number of rows that each entry of ``days`` stands for (N,); 1 if not given.

    Raises:
        InputError: there are no times, or a requested part would be empty.
    """
    rows = _RowsByDay.of(_require_times(days), counts)
    test_from = _day(config.test_from) if config.test_from else rows.tail_from(config.test_ratio, rows.end)
    val_from = _day(config.val_from) if config.val_from else rows.tail_from(config.val_ratio, test_from)
    cut = Cut(val_from, test_from)
    _require_parts(rows, cut, config)
    return cut


def day_to_date(day: int) -> date:
    """Return the date of a day number."""
    return EPOCH + timedelta(days=int(day))


def _day(of: date) -> int:
    return (of - EPOCH).days


class _RowsByDay(NamedTuple):
    days: NDArray[np.integer]  # (D,), sorted, unique
    rows: NDArray[np.int64]  # (D,)

    @classmethod
    def of(cls, days: NDArray[np.integer], counts: NDArray[np.integer] | None) -> _RowsByDay:
        unique, place = np.unique(days, return_inverse=True)
        rows = np.zeros(unique.size, np.int64)
        np.add.at(rows, place, 1 if counts is None else counts)
        return cls(unique, rows)

    @property
    def end(self) -> int:
        return int(self.days[-1]) + 1

    def between(self, start: int, stop: int) -> int:
        return int(self.rows[(self.days >= start) & (self.days < stop)].sum())

    def tail_from(self, ratio: float, stop: int) -> int:
        """Return the latest day such that the days from it to before ``stop`` hold at least ``ratio`` of all rows."""
        wanted = np.ceil(ratio * self.rows.sum())
        if wanted == 0:
            return stop
        before = self.days < stop
        held_out = np.cumsum(self.rows[before][::-1])[::-1]  # (days before stop,): rows from this day on
        enough = np.flatnonzero(held_out >= wanted)
        return int(self.days[enough[-1]]) if enough.size else int(self.days[0])


def _require_times(days: NDArray[np.integer] | None) -> NDArray[np.integer]:
    if days is None or days.size == 0 or (days.dtype.kind == "f" and bool(np.isnan(days).any())):
        raise InputError(
            "A temporal cut needs the time of every listen, but the log has no played_at; "
            "give a log with played_at, or choose another split strategy."
        )
    return days


def _require_parts(rows: _RowsByDay, cut: Cut, config: CutConfig) -> None:
    span = f"the log runs from {day_to_date(int(rows.days[0]))} to {day_to_date(rows.end - 1)}"
    if cut.val_from_day > cut.test_from_day:
        raise InputError(
            f"Validation would start on {day_to_date(cut.val_from_day)}, after test on "
            f"{day_to_date(cut.test_from_day)} ({span}); choose an earlier val_from or give test_from."
        )
    if rows.between(int(rows.days[0]), cut.val_from_day - config.gap_days) == 0:
        raise InputError(
            f"The temporal cut leaves no train data: validation starts on {day_to_date(cut.val_from_day)} after a "
            f"gap of {config.gap_days} days, and {span}; lower the ratios or the gap, or choose later dates."
        )
    if (config.test_from or config.test_ratio) and rows.between(cut.test_from_day, rows.end) == 0:
        raise InputError(f"No listen is on or after test_from {config.test_from} ({span}); choose an earlier date.")
    if (config.val_from or (config.val_ratio and not config.test_from)) and rows.between(*cut) == 0:
        raise InputError(
            f"No listen is between val_from {config.val_from} and test ({span}); choose an earlier val_from."
        )

"""Format numbers and intervals for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.statistics.intervals import Interval

MINUS = "\N{MINUS SIGN}"


def read_interval(values: Mapping[str, Any]) -> Interval:
    """Create an interval from JSON with the keys mean, low and high."""
    return Interval(*(float(values[end]) for end in ("mean", "low", "high")))


def as_interval(values: Mapping[str, Any] | None) -> Interval | None:
    """Create an interval from JSON as ``read_interval``; None if there are no values."""
    return read_interval(values) if values else None


def with_ends(interval: Interval) -> str:
    """Format a value with its interval, for example "0.1514 (0.1382 to 0.1664)"."""
    return f"{decimal(interval.mean)} ({ends(interval)})"


def ends(interval: Interval) -> str:
    """Format both ends of an interval, for example "0.1382 to 0.1664"."""
    return f"{decimal(interval.low)} to {decimal(interval.high)}"


def gap(interval: Interval) -> str:
    """Format a difference with its interval, for example "+0.0949 (+0.0796 to +0.1119)"."""
    return f"{signed(interval.mean)} ({signed_ends(interval)})"


def signed_ends(interval: Interval) -> str:
    """Format both ends of a difference, for example "+0.0796 to +0.1119"."""
    return f"{signed(interval.low)} to {signed(interval.high)}"


def gap_kind(interval: Interval) -> str:
    """Return the style class of a difference: good or bad if the whole interval lies on one side of zero, else ""."""
    return "good" if interval.low > 0 else "bad" if interval.high < 0 else ""


def decimal(value: float) -> str:
    """Format with four decimals, and fewer from 10 on."""
    return f"{value:,.{_decimals(value)}f}".replace("-", MINUS)


def signed(value: float) -> str:
    """Format with a sign; minus is a true minus sign."""
    return f"{value:+,.{_decimals(value)}f}".replace("-", MINUS)


def _decimals(value: float) -> int:
    return 4 if abs(value) < 10 else 2 if abs(value) < 100 else 1


def percent(share: float) -> str:
    """Format a share as a percentage, for example "15.1 %"."""
    return f"{100 * share:.1f} %"


def count(value: float | None) -> str:
    """Format a count with separators; "unknown" for None."""
    return "unknown" if value is None else f"{value:,.0f}"


def plural(value: int, noun: str) -> str:
    """Format a count with its noun, for example "1 user" and "2 users"."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"

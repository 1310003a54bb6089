"""Numbers and intervals as the report writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.statistics.intervals import Interval

MINUS = "\N{MINUS SIGN}"


def as_interval(values: Mapping[str, Any] | None) -> Interval | None:
    """An interval that was read from JSON; None stays None."""
    return None if not values else Interval(*(float(values[end]) for end in ("mean", "low", "high")))


def with_ends(interval: Interval) -> str:
    """For example "0.1514 (0.1382 to 0.1664)"."""
    return f"{decimal(interval.mean)} ({ends(interval)})"


def ends(interval: Interval) -> str:
    """For example "0.1382 to 0.1664"."""
    return f"{decimal(interval.low)} to {decimal(interval.high)}"


def gap(interval: Interval) -> str:
    """A difference, for example "+0.0949 (+0.0796 to +0.1119)"."""
    return f"{signed(interval.mean)} ({signed_ends(interval)})"


def signed_ends(interval: Interval) -> str:
    """For example "+0.0796 to +0.1119"."""
    return f"{signed(interval.low)} to {signed(interval.high)}"


def gap_kind(interval: Interval) -> str:
    """Class of a difference: good or bad where the whole interval lies on one side of zero."""
    return "good" if interval.low > 0 else "bad" if interval.high < 0 else ""


def decimal(value: float) -> str:
    """Four decimals, fewer from 10 on."""
    return f"{value:,.{_decimals(value)}f}".replace("-", MINUS)


def signed(value: float) -> str:
    """With a sign, and a true minus."""
    return f"{value:+,.{_decimals(value)}f}".replace("-", MINUS)


def _decimals(value: float) -> int:
    return 4 if abs(value) < 10 else 2 if abs(value) < 100 else 1


def percent(share: float) -> str:
    """A share as a percentage, for example "15.1 %"."""
    return f"{100 * share:.1f} %"


def count(value: float | None) -> str:
    """A count with separators; "unknown" where there is none."""
    return "unknown" if value is None else f"{value:,.0f}"


def plural(value: int, noun: str) -> str:
    """For example "1 user" and "2 users"."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def listing(names: list[str]) -> str:
    """Names joined as in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

"""A claim of a trainer and its measurement: one row in the table of ``benchmarks/trainer_claims.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.seed_comparison import AcrossSeeds
from evaluation.statistics.intervals import Interval


@dataclass(frozen=True)
class Claim:
    """A row of the table."""

    trainer: str
    what: str
    """What the trainer is for, and the bar that it has to reach: a few words."""
    measured: str
    """The numbers, with their 95 % interval over users and seeds."""
    reached: bool
    """True if the bar was reached; the table also shows rows that did not reach it."""
    cost: float
    """Seconds of its training divided by those of AdvancedTrainer on the same graph in the same run."""


Claims = Callable[[Sequence[int], Path], list[Claim]]
"""``claims(seeds, folder)``: trains once per seed, writes to ``folder``, and returns the rows."""


def format_value(value: Interval | AcrossSeeds) -> str:
    """Format a value with its interval, for example "0.1234 [0.1200, 0.1268]"."""
    return f"{value.mean:.4f} [{value.low:.4f}, {value.high:.4f}]"


def format_gap(gap: Interval) -> str:
    """Format a difference with its interval, for example "+0.0123 [+0.0040, +0.0206]"."""
    return f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"

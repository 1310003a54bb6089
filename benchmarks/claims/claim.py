"""One claim of a trainer and what was measured of it: a row of what ``benchmarks/trainer_claims.py`` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Claim:
    """A row of the table."""

    trainer: str
    what: str
    """What the trainer is for, with the bar that it has to reach: a few words."""
    measured: str
    """The numbers, with their 95 % interval over users and seeds."""
    reached: bool
    """Whether the bar was reached; a row that was not says so."""
    cost: float
    """Seconds of its training divided by AdvancedTrainer's on the same graph in the same run."""


Claims = Callable[[Sequence[int], Path], list[Claim]]
"""``claims(seeds, folder)``: trains once a seed, keeps what it writes in ``folder``, and says what came of it."""

"""Types of what ``train`` returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

EpochRecord = dict[str, Any]
"""``epoch`` (int), ``lr`` (float) and the epoch's metrics (float). No clock times: same run, same history."""

EpochCallback = Callable[[Sequence[EpochRecord]], bool]
"""Called after each epoch with all records so far, also those before a resume; True stops the training."""


class TrainingResults(TypedDict):
    """The result of a training."""

    history: list[EpochRecord]
    """One record an epoch, also those before a resume."""

    best_epoch: int | None
    """Epoch with the greatest watched metric; None if no metric is watched."""

    best_metric: float | None
    """The watched metric in that epoch."""

    epochs_run: int
    """The last epoch."""

    stopped_early: bool
    """True if a hook or the trainer's patience ended the run before its last epoch."""

    test: dict[str, float]
    """Metrics on the held-out test edges, for example ``recall@10``; empty if the trainer has none."""

    checkpoint: str
    """Path of the last epoch's checkpoint."""

"""Shows the progress of a training: bars with loss, metric and time left on a terminal, else one log line an epoch."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)
T = TypeVar("T")

LOGGED_METRICS = 4
SHOWN_METRICS = 2
"""80 columns have room for the bars, the loss and the watched metric."""


class TrainingProgress:
    """Shows a person how far a training is.

    Args:
        num_epochs: the last epoch.
        first_epoch: the epoch to begin with, more than 1 in a resumed run.
        console: for the bars; standard error by default.
    """

    def __init__(self, num_epochs: int, first_epoch: int = 1, console: Console | None = None) -> None:
        self.num_epochs = num_epochs
        console = console or Console(stderr=True)
        self.bars: Progress | None = None
        if console.is_terminal:
            left = TextColumn("{task.description}"), BarColumn(bar_width=18), MofNCompleteColumn()
            self.bars = Progress(*left, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console)
            self.epochs = self.bars.add_task("epochs", total=num_epochs, completed=first_epoch - 1, note="")
            self.batches = self.bars.add_task("batches", total=None, note="", visible=False)
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.bars:
            self.bars.stop()

    def track(self, batches: Iterable[T], total: int) -> Iterator[T]:
        """Yield ``batches``, and count them."""
        if self.bars:
            self.bars.reset(self.batches, total=total, visible=True)
        for batch in batches:
            yield batch
            if self.bars:
                self.bars.advance(self.batches)

    def loss(self, value: float) -> None:
        """Show the loss of the step just taken."""
        if self.bars:
            self.bars.update(self.batches, note=f"loss {value:.4f}")

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Report an epoch that has ended."""
        seconds, self.started = time.monotonic() - self.started, time.monotonic()
        if self.bars:
            self.bars.update(self.epochs, completed=epoch, note=_note(metrics, SHOWN_METRICS))
        else:
            logger.info("epoch %d of %d  %s  (%.1f s)", epoch, self.num_epochs, _note(metrics, LOGGED_METRICS), seconds)


def _note(metrics: Mapping[str, float], count: int) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in list(metrics.items())[:count])

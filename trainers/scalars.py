"""TensorBoard curves, if asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from data.errors import InputError


class ScalarLog:
    """Writes an epoch's metrics for TensorBoard and closes its file at the end; does nothing without a folder.

    Args:
        folder: where event files go, or None.
        last_epoch: epoch that a resumed run goes on from; curves that a killed run drew beyond it are taken back.
    """

    def __init__(self, folder: str | Path | None, last_epoch: int = 0) -> None:
        self.writer = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and most runs do without

            try:
                self.writer = SummaryWriter(str(folder), purge_step=last_epoch + 1)
            except OSError as error:
                raise InputError(f"TensorBoard's folder {folder} cannot be written ({error}); name another.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.writer:
            self.writer.close()

    def write(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        if self.writer:
            for name, value in metrics.items():
                if name != "epoch":
                    self.writer.add_scalar(name, value, epoch)

"""Writes a training for TensorBoard: curves, histograms on request, and hyper-parameters with the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from data.config import flat
from data.errors import InputError
from trainers.loop.training_results import EpochRecord, TrainingResults

PLAIN = (bool, int, float, str)


class TensorBoard:
    """Writes event files and closes them at the end; does nothing without a folder.

    Args:
        folder: of the event files, or None.
        last_epoch: epoch that a resumed run goes on from; points of a killed run after it are removed.

    Raises:
        InputError: the folder cannot be written.
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

    def epoch(self, record: EpochRecord) -> None:
        """Add one point to each curve."""
        if self.writer:
            for name, value in _metrics(record).items():
                self.writer.add_scalar(name, value, record["epoch"])

    def histograms(self, epoch: int, model: nn.Module) -> None:
        """Add the values of each parameter, and of its last gradient if it has one."""
        if self.writer:
            for name, parameter in model.named_parameters():
                shown = {"weights": parameter.detach(), "gradients": parameter.grad}
                for kind, values in shown.items():
                    if (finite := _finite(values)) is not None:
                        self.writer.add_histogram(f"{kind}/{name}", finite, epoch)

    def result(self, config: Mapping[str, Any], results: TrainingResults) -> None:
        """Add a line to the table of hyper-parameters: the config, and the numbers that came of it.

        These are ``best/…``, the metrics of the best epoch (of the last one if no metric is watched), and ``test/…``.
        The tab HPARAMS compares the runs below one folder.
        """
        if self.writer is None:
            return
        best = results["best_epoch"] or results["epochs_run"]
        numbers = {f"best/{name}": value for name, value in _metrics(results["history"][best - 1]).items()}
        numbers |= {f"test/{name}": value for name, value in results["test"].items()}
        # TensorBoard takes numbers, truth values and text
        plain = {name: value if isinstance(value, PLAIN) else str(value) for name, value in flat(config).items()}
        self.writer.add_hparams(plain, numbers, run_name=".", global_step=best)  # in this run, not in one below it


def _metrics(record: EpochRecord) -> dict[str, float]:
    return {name: value for name, value in record.items() if name != "epoch"}


def _finite(values: Tensor | None) -> Tensor | None:
    """Return the finite values, on the CPU, since TensorBoard refuses a histogram of others; None if there are none."""
    kept = values[torch.isfinite(values)].cpu() if values is not None else None
    return kept if kept is not None and kept.numel() else None

"""Checkpoints that survive a kill: one file for each run, replaced at each epoch, named by what the run computes."""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from data.code.digests import class_digests
from data.digest import sha256_of_json
from data.errors import InputError

logger = logging.getLogger(__name__)

FORMAT = 2
# torch.load refuses what its safe default does not know with an UnpicklingError; nothing is pickled here
DAMAGE = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile)


def fingerprint(config: Mapping[str, Any], graph: str, classes: Iterable[type]) -> str:
    """Return 16 hex digits over all that decides the weights: the config, the graph, and the code.

    The number of epochs does not count, so that a run can go on with more of them.

    Args:
        config: plain values.
        graph: digest of the graph.
        classes: the trainer and the model; the code behind them counts as it does in a stage's key.
    """
    parts = {
        "format": FORMAT,
        "config": config,
        "graph": graph,
        "code": class_digests(classes),
        "torch": torch.__version__,
    }
    return sha256_of_json(parts)[:16]


class CheckpointFile:
    """Writes and reads the checkpoint of one run, in a folder that other runs may share.

    While a run is unfinished its file is ``checkpoint-<fingerprint>.pt``; a finished one is renamed to
    ``finished-<fingerprint>.pt``. Both hold the same keys.

    Args:
        folder: is created at the first ``save``.
        run: the run's fingerprint.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.folder = folder
        self.unfinished = folder / f"checkpoint-{run}.pt"
        self.finished = folder / f"finished-{run}.pt"

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint in one step; a reader sees the old one or the new one, never half of one.

        Raises:
            InputError: when the folder cannot be written to or the disk is full.
        """
        try:
            self._replace(state)
        except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as RuntimeError
            problem = f"The checkpoint {self.unfinished} cannot be written ({error})"
            raise InputError(f"{problem}; check the rights and the free space of its folder.") from error
        self.finished.unlink(missing_ok=True)

    def _replace(self, state: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.unfinished.with_suffix(".tmp")
        try:
            torch.save(dict(state), temporary)
            temporary.replace(self.unfinished)
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, num_epochs: int) -> dict[str, Any] | None:
        """Return the checkpoint from which a run to ``num_epochs`` goes on.

        None if there is no checkpoint, if it is damaged (which is logged), or if the run has to start again: a finished
        run that asks for no more epochs than it had, or an unfinished run that is past ``num_epochs``.
        """
        path = self.unfinished if self.unfinished.exists() else self.finished
        state = _load(path) if path.exists() else None
        if state is None:
            return None
        goes_on = num_epochs > state["num_epochs"] if path == self.finished else num_epochs >= state["epoch"]
        return state if goes_on else None

    def finish(self) -> None:
        """Mark the run as finished."""
        if self.unfinished.exists():
            self.unfinished.replace(self.finished)

    def others(self) -> list[str]:
        """Return the names of unfinished checkpoints of other runs in the folder."""
        return sorted(path.name for path in self.folder.glob("checkpoint-*.pt") if path != self.unfinished)


def _load(path: Path) -> dict[str, Any] | None:
    try:
        _check_sums(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu")
        _ = state["epoch"], state["num_epochs"]
    except DAMAGE as error:
        logger.warning("The checkpoint %s is damaged (%s); the training starts again.", path, error)
        return None
    return state


def _check_sums(path: Path) -> None:
    """Raise for content that changed on the disk; torch writes checksums but does not check them when it reads."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")

"""Checkpoints that survive a kill: one file a run, replaced at each epoch, named by what the run computes."""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import pickle
import sys
import zipfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from data.errors import InputError

logger = logging.getLogger(__name__)

FORMAT = 1
PROJECT_CODE = ("models", "trainers")
# torch.load refuses what its safe default does not know with an UnpicklingError; nothing is pickled here
DAMAGE = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile)


def fingerprint(config: Mapping[str, Any], graph: str, classes: Iterable[type]) -> str:
    """What decides the weights, in 16 hex digits: config, digest of the graph, and the code.

    The number of epochs is not part of it, so that a run can be continued with more of them.
    """
    parts = {
        "format": FORMAT,
        "config": config,
        "graph": graph,
        "code": code_digest(classes),
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def code_digest(classes: Iterable[type]) -> str:
    """SHA-256 over the syntax (not the comments) of models, trainers and the modules of ``classes`` elsewhere."""
    digest = hashlib.sha256()
    for path in sorted(_project_files() | _files_of(classes)):
        digest.update(_syntax_digest(path.read_bytes()))
    return digest.hexdigest()


@cache
def _syntax_digest(source: bytes) -> bytes:
    """Computed once a process and source: to parse all of ours takes some 0.2 s, longer than a small training."""
    return hashlib.sha256(ast.dump(ast.parse(source)).encode()).digest()


def _project_files() -> set[Path]:
    root = Path(__file__).resolve().parent.parent
    return {path for package in PROJECT_CODE for path in (root / package).glob("*.py")}


def _files_of(classes: Iterable[type]) -> set[Path]:
    """Source files of the classes and of those they inherit from, up to the first that torch or Python brings."""
    modules = {base.__module__ for found in classes for base in found.__mro__}
    own = (sys.modules[name] for name in modules if name.split(".")[0] not in ("torch", "builtins", "abc"))
    files = (getattr(module, "__file__", None) for module in own)
    return {Path(name).resolve() for name in files if name and name.endswith(".py")}


class CheckpointFile:
    """The checkpoint of one run inside a folder that other runs may share.

    While a run is unfinished its file is ``checkpoint-<fingerprint>.pt``; a finished one is renamed to
    ``finished-<fingerprint>.pt``. Both hold the same keys.

    Args:
        folder: where; it is created at the first ``save``.
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
        """The checkpoint from which a run to ``num_epochs`` goes on.

        None where there is none, where it is damaged (which is logged), and where the run has to begin anew: a
        finished run with no more epochs than it had, an unfinished one that is past ``num_epochs`` already.
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
        """Names of unfinished checkpoints of other runs in the folder."""
        return sorted(path.name for path in self.folder.glob("checkpoint-*.pt") if path != self.unfinished)


def _load(path: Path) -> dict[str, Any] | None:
    try:
        _check_sums(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu")
        _ = state["epoch"], state["num_epochs"]
    except DAMAGE as error:
        logger.warning("The checkpoint %s is damaged (%s); starting anew.", path, error)
        return None
    return state


def _check_sums(path: Path) -> None:
    """Raise for content that changed on the disk; torch writes checksums and does not look at them when it reads."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")

"""Trainers: one loop, many ways to train. ``from trainers import create_trainer, AdvancedTrainer``."""

import importlib
from typing import Any

import lazy_loader

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Import ``data.graph`` too, since that import lets torch.load read a graph by its safe default."""
    found = _find(name)
    importlib.import_module("data.graph")
    return found

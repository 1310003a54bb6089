"""Trainers: one loop, many ways to train. ``from trainers import create_trainer, AdvancedTrainer``."""

import importlib
from typing import Any

import lazy_loader

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Import ``data.graph`` too, so that whoever takes a trainer can load a graph with torch's safe default."""
    found = _find(name)
    importlib.import_module("data.graph")
    return found

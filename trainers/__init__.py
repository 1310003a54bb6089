"""Trainers: one loop, many ways to train. ``from trainers import create_trainer, AdvancedTrainer``."""

import importlib
from typing import Any

from data.lazy import lazy_names

_MODULES = {
    "create_trainer": "trainers.factory",
    "register_trainer": "trainers.factory",
    "BaseTrainer": "trainers.base",
    "SimpleTrainer": "trainers.simple",
    "AdvancedTrainer": "trainers.advanced",
    "AdversarialTrainer": "trainers.adversarial",
    "CurriculumTrainer": "trainers.curriculum",
    "FederatedTrainer": "trainers.federated",
    "MetaTrainer": "trainers.meta",
    "MultiTaskTrainer": "trainers.multitask",
    "OnlineTrainer": "trainers.online",
}
__all__ = list(_MODULES)
_find = lazy_names(__name__, _MODULES)


def __getattr__(name: str) -> Any:
    """Whoever takes a trainer wants to load a graph: importing ``data.graph`` lets torch's safe ``load`` do so."""
    found = _find(name)
    importlib.import_module("data.graph")
    return found

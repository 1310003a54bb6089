"""Names of trainers and the classes they stand for, without importing any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from data.code.lookup import class_path
from data.errors import InputError

TRAINERS = {
    "simple": "trainers.simple:SimpleTrainer",
    "advanced": "trainers.advanced:AdvancedTrainer",
    "adversarial": "trainers.adversarial.adversarial_trainer:AdversarialTrainer",
    "curriculum": "trainers.curriculum:CurriculumTrainer",
    "federated": "trainers.federated.federated_trainer:FederatedTrainer",
    "meta": "trainers.meta.meta_trainer:MetaTrainer",
    "multitask": "trainers.multitask.multitask_trainer:MultiTaskTrainer",
    "online": "trainers.online:OnlineTrainer",
}
ENTRY_POINTS = "songgraph.trainers"
"""Group of entry points by which an installed package gives a trainer of its own a short name."""

_registered: dict[str, type] = {}
T = TypeVar("T", bound=type)


def register_trainer(name: str) -> Callable[[T], T]:
    """Return a class decorator that makes a trainer known to ``create_trainer`` under ``name``.

    The name is known once the module of the class is imported.

    Raises:
        InputError: for the name of one of our own trainers.
    """
    if name in TRAINERS:
        raise InputError(f"The trainer name '{name}' is taken by {TRAINERS[name]}; register under another name.")

    def register(trainer: T) -> T:
        _registered[name] = trainer
        return trainer

    return register


def registered_class(name: str) -> type | None:
    """Return the class that ``register_trainer`` made known under ``name``, or None."""
    return _registered.get(name)


def trainer_path(name: str) -> str:
    """Return ``module:Class`` of a trainer's name without importing it; raises InputError for an unknown name."""
    registered = registered_class(name)
    return _path_of(registered) if registered else class_path("trainer", name, TRAINERS, ENTRY_POINTS)


def trainer_name(trainer: type) -> str:
    """Return the name that ``create_trainer`` takes for a class: its short one if it has one."""
    path = _path_of(trainer)
    paths = TRAINERS | {name: _path_of(known) for name, known in _registered.items()}
    return next((name for name, known in paths.items() if known == path), path)


def _path_of(trainer: type) -> str:
    return f"{trainer.__module__}:{trainer.__qualname__}"

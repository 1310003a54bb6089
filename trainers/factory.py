"""Builds a trainer by name; only the chosen one is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from data.code.lookup import class_path, find_class, require_subclass
from data.errors import InputError

if TYPE_CHECKING:
    from trainers.base import BaseTrainer
    from trainers.config import TrainingConfig

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


def create_trainer(
    trainer_type: str,
    model_config: Mapping[str, Any],
    training_config: Mapping[str, Any],
    output_dir: str | Path = "artifacts/training",
    tensorboard_dir: str | Path | None = None,
) -> BaseTrainer:
    """A trainer by name.

    Args:
        trainer_type: a name in ``TRAINERS``, a registered name, the name of an installed package's entry point, or
            ``package.module:Class``.
        model_config, training_config, output_dir, tensorboard_dir: see ``BaseTrainer``.

    Raises:
        InputError: for an unknown name, a class that is no ``BaseTrainer``, or a config that is not allowed.
    """
    return trainer_class(trainer_type)(
        model_config=model_config,
        training_config=training_config,
        output_dir=output_dir,
        tensorboard_dir=tensorboard_dir,
    )


def register_trainer(name: str) -> Callable[[T], T]:
    """Class decorator that makes a trainer known to ``create_trainer`` under ``name``, once its module is imported.

    Raises:
        InputError: for the name of one of our own trainers.
    """
    if name in TRAINERS:
        raise InputError(f"The trainer name '{name}' is taken by {TRAINERS[name]}; register under another name.")

    def register(trainer: T) -> T:
        _registered[name] = trainer
        return trainer

    return register


def trainer_path(name: str) -> str:
    """``module:Class`` of a trainer's name, without importing it; raises InputError for an unknown name."""
    return _path_of(_registered[name]) if name in _registered else class_path("trainer", name, TRAINERS, ENTRY_POINTS)


def trainer_class(name: str) -> type[BaseTrainer]:
    """The class of a trainer's name; raises InputError for an unknown name or a class that is no ``BaseTrainer``."""
    from trainers.base import BaseTrainer

    found: type[BaseTrainer]
    if name in _registered:
        found = require_subclass("trainer", _registered[name], BaseTrainer)
    else:
        found = find_class("trainer", name, TRAINERS, BaseTrainer, ENTRY_POINTS)
    return found


def parse_training_config(name: str, training_config: Mapping[str, Any]) -> TrainingConfig:
    """Validate a ``training_config`` for the trainer ``name`` without building it; raises InputError."""
    from trainers.config import parse_keys

    return parse_keys(trainer_class(name).Config, training_config)


def trains_on_everything(name: str) -> bool:
    """Whether the trainer ``name`` trains on held-out edges too, so that its numbers are in-sample only."""
    return trainer_class(name).trains_on_everything


def trainer_name(trainer: type[BaseTrainer]) -> str:
    """The name that ``create_trainer`` takes for a class: its short one if it has one."""
    path = _path_of(trainer)
    registered = {name: _path_of(known) for name, known in _registered.items()}
    return next((name for name, target in (TRAINERS | registered).items() if target == path), path)


def trainers_with_key(key: str) -> list[str]:
    """Short names of the trainers that brought ``key`` into ``training_config``, without those that inherit it."""
    return [name for name in TRAINERS if key in trainer_class(name).Config.__annotations__]


def _path_of(trainer: type) -> str:
    return f"{trainer.__module__}:{trainer.__qualname__}"

"""Builds a trainer by name; only the chosen one is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.code.lookup import find_class, require_subclass
from data.errors import InputError
from trainers.base import BaseTrainer
from trainers.config import TrainingConfig
from trainers.names import ENTRY_POINTS, TRAINERS, register_trainer, registered_class

__all__ = ["create_trainer", "parse_training_config", "register_trainer", "trainer_class", "trains_on_everything"]


def create_trainer(
    trainer_type: str,
    model_config: Mapping[str, Any],
    training_config: Mapping[str, Any],
    output_dir: str | Path = "artifacts/training",
    tensorboard_dir: str | Path | None = None,
) -> BaseTrainer:
    """Build a trainer by name.

    Args:
        trainer_type: a name in ``TRAINERS``, a registered name, the name of an installed package's entry point, or
            ``package.module:Class``.
        model_config, training_config, output_dir, tensorboard_dir: see ``BaseTrainer``.

    Raises:
        InputError: for an unknown name, a class that is no ``BaseTrainer``, or a config that is not allowed.
    """
    trainer = trainer_class(trainer_type)
    _refuse_keys_of_others(trainer, training_config)
    return trainer(
        model_config=model_config,
        training_config=training_config,
        output_dir=output_dir,
        tensorboard_dir=tensorboard_dir,
    )


def trainer_class(name: str) -> type[BaseTrainer]:
    """Return the class of a trainer's name.

    Raises:
        InputError: for an unknown name, or a class that is no ``BaseTrainer``.
    """
    registered = registered_class(name)
    found: type[BaseTrainer]
    if registered:
        found = require_subclass("trainer", registered, BaseTrainer)
    else:
        found = find_class("trainer", name, TRAINERS, BaseTrainer, ENTRY_POINTS)
    return found


def parse_training_config(name: str, training_config: Mapping[str, Any]) -> TrainingConfig:
    """Validate a ``training_config`` for the trainer ``name`` without building it; raises InputError."""
    trainer = trainer_class(name)
    _refuse_keys_of_others(trainer, training_config)
    return trainer.Config.parse(training_config, "training_config")


def trains_on_everything(name: str) -> bool:
    """Return whether the trainer ``name`` trains on held-out edges too, so that its numbers are in-sample only."""
    return trainer_class(name).trains_on_everything


def _refuse_keys_of_others(trainer: type[BaseTrainer], training_config: Mapping[str, Any]) -> None:
    """Raise InputError for a key that another trainer of the table defines, and name that trainer."""
    for key in training_config:
        if key in trainer.Config.model_fields:
            continue
        if owners := [name for name in TRAINERS if key in trainer_class(name).Config.__annotations__]:
            named = " and ".join(f"'{name}'" for name in owners)
            raise InputError(
                f"training_config has the key '{key}', which belongs to {named} and which this trainer does "
                f"not know; remove it or choose another trainer."
            )

"""Refuse a bad trainer or model config before the first stage computes anything."""

from __future__ import annotations

from data.code.imports import defining_module, has_source
from data.errors import InputError
from models.architectures import model_path
from registry.backend.location import resolve_uri
from tasks.run_config import RunConfig
from trainers.names import trainer_path


def refuse_early(config: RunConfig) -> None:
    """Refuse what can be refused at once: names that lead nowhere, and files that are not there.

    Raises:
        InputError: for an unknown trainer or model, a registry's address of an unknown kind, or a log that cannot be
            found.
    """
    chosen_modules(config)
    resolve_uri()
    if not config.uses_synthetic_log:
        config.log_files()


def chosen_modules(config: RunConfig) -> tuple[str, ...]:
    """Modules of the chosen trainer and model, which are named in a table and so seen by no import.

    Raises:
        InputError: for a name that is in no table, or a module that is not there as source.
    """
    return (_module_of("trainer", trainer_path(config.trainer)), _module_of("architecture", model_path(config.model)))


def _module_of(what: str, path: str) -> str:
    module, _, name = path.partition(":")
    if not has_source(module):
        raise InputError(
            f"The {what} '{path}' cannot be found: there is no Python source of a module '{module}'; "
            "install it, or correct the name (package.module:Class)."
        )
    return defining_module(module, name)


def check_trainer(config: RunConfig) -> None:
    """Parse the configs of the chosen trainer and model.

    Called only when something has to be computed: it imports torch, which a cached run does not need.

    Raises:
        InputError: for an unknown trainer or model, an unknown key, or a value that is not allowed.
    """
    from models.factory import parse_model_config
    from trainers.factory import parse_training_config

    parse_training_config(config.trainer, config.training)
    parse_model_config({"num_users": 1, "num_songs": 1, **config.model})

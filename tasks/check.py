"""Refuse a bad trainer or model config before the first stage computes anything."""

from __future__ import annotations

from models.factory import model_path
from tasks.config import RunConfig
from trainers.factory import trainer_path


def refuse_early(run: RunConfig) -> None:
    """Refuse what can be refused at once: names that are in no table, and files that are not there.

    Raises:
        InputError: for an unknown trainer or model, or a log that cannot be found.
    """
    trainer_path(run.trainer)
    model_path(run.model)
    if not run.uses_synthetic_log():
        run.log_files()


def check_trainer(run: RunConfig) -> None:
    """Parse the configs of the chosen trainer and model.

    Called only when something has to be computed: it imports torch, which a cached run does not need.

    Raises:
        InputError: for an unknown trainer or model, an unknown key, or a value that is not allowed.
    """
    from models.factory import parse_model_config
    from trainers.factory import parse_training_config

    parse_training_config(run.trainer, run.training)
    parse_model_config({"num_users": 1, "num_songs": 1, **run.model})

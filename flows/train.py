"""The main job: a listening log in, a registered recommender out. ``python -m flows.train --help``."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.command_line import command
from flows.lifecycle import finish, start
from tasks.options import RUN_OPTIONS
from tasks.pipeline import pipeline


@flow(name="train", persist_result=True, result_serializer="json")
def train(
    config: str | None = None,
    name: str | None = None,
    trainer: str | None = None,
    num_epochs: int | None = None,
    events: str | list[str] | None = None,
    overrides: dict[str, Any] | None = None,
) -> State:
    """Train on the log that the config names, evaluate, and register. Unchanged stages are skipped.

    Args:
        config: a TOML file as in ``configs/``; without one, the defaults and the synthetic log.
        name: the registered model's name.
        trainer: a trainer's name, or ``package.module:Class``.
        num_epochs: epochs at most.
        events: files, folders or globs of the log.
        overrides: tables laid over the config file, for example ``{"training": {"lr": 0.005}}``.
    """
    run = start(config, name, trainer, num_epochs, events, overrides)
    return finish(run, list(pipeline(run)))


if __name__ == "__main__":
    command(train, RUN_OPTIONS)()

"""The main job without its registration: nothing is published as a model. ``python -m flows.evaluate --help``."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.command_line import command
from flows.lifecycle import finish, start
from tasks.options import RUN_OPTIONS
from tasks.pipeline import pipeline


@flow(name="evaluate", persist_result=True, result_serializer="json")
def score(
    config: str | None = None,
    name: str | None = None,
    trainer: str | None = None,
    num_epochs: int | None = None,
    events: str | list[str] | None = None,
    overrides: dict[str, Any] | None = None,
) -> State:
    """Score the model of a config on its held-out pairs; the arguments are those of ``flows.train``."""
    run = start(config, name, trainer, num_epochs, events, overrides, registers=False)
    return finish(run, list(pipeline(run)))


if __name__ == "__main__":
    command(score, RUN_OPTIONS)()

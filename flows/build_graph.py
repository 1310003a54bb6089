"""The first half of the main job: a listening log in, ``data/graph.pt`` out. ``python -m flows.build_graph --help``."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.command_line import command
from flows.lifecycle import finish, start
from tasks.options import LOG_OPTIONS
from tasks.pipeline import pipeline, until


@flow(name="build-graph", persist_result=True, result_serializer="json")
def build(
    config: str | None = None,
    name: str | None = None,
    events: str | list[str] | None = None,
    overrides: dict[str, Any] | None = None,
) -> State:
    """Read the log and publish the graph at ``data/graph.pt``; the arguments are those of ``flows.train``."""
    run = start(config, name, None, None, events, overrides)
    return finish(run, until("graph", pipeline(run)))


if __name__ == "__main__":
    command(build, LOG_OPTIONS)()

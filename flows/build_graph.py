"""The first half of the main job: a listening log in, ``data/graph.pt`` out. ``python -m flows.build_graph --help``."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.command_line import command
from flows.outcome import finished
from flows.quiet import bad_input_in_a_sentence
from tasks.run_config import load_run_config
from tasks.stages.graph import build_graph, publish_latest
from tasks.stages.ingest import find_log, ingest


@flow(name="build-graph", persist_result=True, result_serializer="json")
@bad_input_in_a_sentence
def build(
    config: str | None = None,
    name: str | None = None,
    events: str | list[str] | None = None,
    overrides: dict[str, Any] | None = None,
) -> State:
    """Read the log and publish the graph at ``data/graph.pt``; the arguments are those of ``flows.train``."""
    run = load_run_config(config, overrides, {"name": name}, events=events)
    log = find_log(run)
    listens = ingest(run, log)
    graph = build_graph(run, listens)
    publish_latest(graph)
    return finished(run, listens, graph)


if __name__ == "__main__":
    command(build)

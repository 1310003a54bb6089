"""The main job but for its last stage: nothing is registered. ``python -m flows.evaluate --help``."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.command_line import command
from flows.outcome import finished
from flows.quiet import bad_input_in_a_sentence
from tasks.config import load_run_config
from tasks.evaluate import evaluate
from tasks.graph import build_graph, publish_latest
from tasks.ingest import find_log, ingest
from tasks.split import split
from tasks.train import train_model


@flow(name="evaluate", persist_result=True, result_serializer="json")
@bad_input_in_a_sentence
def score(
    config: str | None = None,
    name: str | None = None,
    trainer: str | None = None,
    num_epochs: int | None = None,
    events: str | list[str] | None = None,
    overrides: dict[str, Any] | None = None,
) -> State:
    """Score the model of a config on its held-out pairs; the arguments are those of ``flows.train``."""
    given = {"name": name, "trainer": trainer, "num_epochs": num_epochs}
    run = load_run_config(config, overrides, given, events=events)
    log = find_log(run)
    listens = ingest(run, log)
    graph = build_graph(run, listens)
    publish_latest(graph)
    training_graph = split(run, graph, listens)
    model = train_model(run, training_graph, graph)
    evaluation = evaluate(run, model, training_graph, graph)
    return finished(run, listens, graph, training_graph, model, evaluation)


if __name__ == "__main__":
    command(score)

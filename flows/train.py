"""The main job: a listening log in, a registered recommender out. ``python -m flows.train --help``."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.command_line import command
from flows.outcome import finished
from flows.quiet import bad_input_in_a_sentence
from tasks.run_config import load_run_config
from tasks.stages.audit import audit
from tasks.stages.baselines import fit_baselines
from tasks.stages.evaluate import evaluate_models
from tasks.stages.graph import build_graph, publish_latest
from tasks.stages.ingest import find_log, ingest
from tasks.stages.refit import refit
from tasks.stages.register import register
from tasks.stages.report import publish_report, write_report
from tasks.stages.seeds import compare_seeds
from tasks.stages.split import split
from tasks.stages.train import train_models
from tasks.stages.warm_start import find_start


@flow(name="train", persist_result=True, result_serializer="json")
@bad_input_in_a_sentence
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
    given = {"name": name, "trainer": trainer, "num_epochs": num_epochs}
    run = load_run_config(config, overrides, given, events=events)
    log = find_log(run)
    listens = ingest(run, log)
    graph = build_graph(run, listens)
    publish_latest(graph)
    training_graph = split(run, graph, listens)
    start = find_start(run, training_graph)
    audited = audit(run, training_graph, graph, listens, start)
    models = train_models(run, training_graph, graph, start)
    baselines = fit_baselines(run, training_graph, graph, models[0])
    evaluations = evaluate_models(run, models, training_graph, graph, baselines)
    seeds = compare_seeds(run, evaluations)
    refitted = refit(run, models[0], graph, start)
    version = register(run, log, models[0], evaluations[0], training_graph, graph, audited, seeds, refitted, start)
    report = write_report(run, listens, graph, training_graph, models[0], evaluations[0], baselines, version, seeds)
    publish_report(run, report)
    return finished(
        run, listens, graph, training_graph, start, audited, *models, *baselines.values(), *evaluations, seeds,
        refitted, version, report,
    )  # fmt: skip


if __name__ == "__main__":
    command(train)

"""Train the model with the chosen trainer; a run that was killed goes on from its last epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from data.project import artifacts_folder
from tasks.cache.ref import Ref
from tasks.cache.result_store import write_json
from tasks.cache.stage import Stage
from tasks.check import chosen_modules
from tasks.run_config import RunConfig
from tasks.stages.seeds import runs_by_seed
from tasks.stages.warm_start import with_start, without_start


def _train(
    folder: Path,
    config: Mapping[str, Any],
    training_graph: Path,
    graph: Path,
    name: str,
    start: Path | None = None,
) -> Mapping[str, Any]:
    from data.graph import load_graph, node_counts
    from trainers.factory import create_trainer, trains_on_everything
    from trainers.loop.model_files import load_embeddings
    from trainers.loop.projector import project_songs

    curves = artifacts_folder() / "tensorboard" / name / folder.name[:8]  # the folder is named by the key
    whole = trains_on_everything(config["trainer"])
    readable = load_graph(graph_file(whole, training_graph, graph))
    trainer = create_trainer(
        trainer_type=config["trainer"],
        model_config={**config["model"], **node_counts(readable)},
        training_config=with_start(config["training"], start),
        output_dir=artifacts_folder() / "training" / name,
        tensorboard_dir=curves,
    )
    results = trainer.train(readable, num_epochs=config["num_epochs"])
    trainer.save_model(folder)
    project_songs(curves, load_embeddings(folder), readable, vocabularies=graph)
    summary = {key: results[key] for key in ("best_epoch", "best_metric", "epochs_run", "stopped_early", "test")}
    write_json(folder / "results.json", {**summary, "trained_on_everything": whole})
    return {"model": trainer.model.config.architecture, "trainer": config["trainer"], **summary}


TRAIN = Stage("train", 2, _train, code=("trainers.factory", "trainers.loop.projector"))


def trained_on_everything(model: Path) -> bool:
    """Whether the model has seen the held-out pairs too, so that its numbers are in-sample only."""
    return bool(json.loads((model / "results.json").read_text(encoding="utf-8"))["trained_on_everything"])


def graph_file(everything: bool, training_graph: Path, graph: Path) -> Path:
    """What a model was trained on and is judged by: the graph with masks, or the whole one, which has none."""
    return graph / "graph.pt" if everything else training_graph / "training_graph.pt"


def train_config(run: RunConfig) -> dict[str, Any]:
    keys = {"trainer", "num_epochs", "model", "training"}
    found = run.model_dump(mode="json", include=keys)
    return {**found, "training": without_start(found["training"])}


def train_model(run: RunConfig, training_graph: Ref, graph: Ref, start: Ref | None = None) -> Ref:
    """Train; the folder holds weights, embeddings, config, history and the trainer's own results.

    Args:
        start: what ``tasks.stages.warm_start.find_start`` found; None trains from random weights.
    """
    stage = TRAIN.working(partial(_train, name=run.name))
    inputs = {"training_graph": training_graph, "graph": graph, "start": start}
    return stage(run, train_config(run), code=chosen_modules(run), **inputs)


def train_models(run: RunConfig, training_graph: Ref, graph: Ref, start: Ref | None = None) -> list[Ref]:
    """A model for each of the run's seeds; the first is the one that is registered."""
    return [train_model(seeded, training_graph, graph, start) for seeded in runs_by_seed(run)]

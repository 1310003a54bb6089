"""The train stage: trains the model; a run that was killed goes on from its last epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.project import artifacts_folder
from tasks.cache.ref import Ref
from tasks.cache.result_store import write_json
from tasks.cache.stage import Stage
from tasks.check import chosen_modules
from tasks.run import Run
from tasks.run_config import RunConfig
from tasks.stages.seeds import runs_by_seed
from tasks.stages.warm_start import with_warm_start, without_warm_start


def _train(
    folder: Path,
    config: Mapping[str, Any],
    training_graph: Path,
    graph: Path,
    name: str,
    warm_start: Path | None = None,
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
        training_config=training_config(config, warm_start),
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
    """Return whether the model has seen the held-out pairs too, so that its numbers are in-sample only."""
    return bool(json.loads((model / "results.json").read_text(encoding="utf-8"))["trained_on_everything"])


def graph_file(everything: bool, training_graph: Path, graph: Path) -> Path:
    """Return the graph that a model was trained on and is measured by: with masks, or the whole one without."""
    return graph / "graph.pt" if everything else training_graph / "training_graph.pt"


def train_config(config: RunConfig) -> dict[str, Any]:
    """Return the part of a run's config that decides what is trained."""
    found = config.model_dump(mode="json", include={"trainer", "num_epochs", "model", "training"})
    ratios = {"val_ratio": config.split.val_ratio, "test_ratio": config.split.test_ratio}
    return {**found, "training": without_warm_start(found["training"]), "split": ratios}


def training_config(config: Mapping[str, Any], warm_start: Path | None) -> dict[str, Any]:
    """Return the trainer's ``training_config``.

    A trainer that knows the split's ratios gets them, so that its record is true: the graph is split already.
    """
    from trainers.factory import trainer_class

    known = trainer_class(config["trainer"]).Config.model_fields
    ratios = {key: value for key, value in config["split"].items() if key in known}
    return with_warm_start({**ratios, **config["training"]}, warm_start)


def train_models(run: Run, training_graph: Ref, graph: Ref, earlier: Ref | None = None) -> list[Ref]:
    """Train a model for each of the run's seeds; the first is the one that is registered.

    The folder of each holds weights, embeddings, config, history and the trainer's own results.

    Args:
        earlier: what ``tasks.stages.warm_start.find_warm_start`` found; None trains from random weights.
    """
    stage = TRAIN.bind(name=run.config.name)
    inputs = {"training_graph": training_graph, "graph": graph, "warm_start": earlier}
    code = chosen_modules(run.config)
    return [one.execute(stage, train_config(one.config), code=code, **inputs) for one in runs_by_seed(run)]

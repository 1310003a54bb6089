"""The refit stage: the chosen configuration is trained once more on all listens, and that model is published."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.project import artifacts_folder
from tasks.cache.ref import Ref
from tasks.cache.result_store import write_json
from tasks.cache.stage import Stage
from tasks.check import chosen_modules
from tasks.run import Run
from tasks.stages.train import train_config, trained_on_everything, training_config

logger = logging.getLogger(__name__)


def _refit(
    folder: Path, config: Mapping[str, Any], model: Path, graph: Path, name: str, warm_start: Path | None = None
) -> Mapping[str, Any]:
    from data.graph import load_graph, node_counts
    from trainers.factory import create_trainer

    whole = load_graph(graph / "graph.pt")
    trainer = create_trainer(
        trainer_type=config["trainer"],
        model_config={**config["model"], **node_counts(whole)},
        training_config=training_config(config, warm_start),
        output_dir=artifacts_folder() / "training" / name,
        tensorboard_dir=artifacts_folder() / "tensorboard" / name / f"{folder.name[:8]}-refit",
    )
    history = trainer.chosen_history(_read(model / "history.json"), _read(model / "results.json"))
    results = trainer.refit(whole, history)
    trainer.save_model(folder)
    summary = {key: results[key] for key in ("best_epoch", "best_metric", "epochs_run", "stopped_early", "test")}
    write_json(folder / "results.json", {**summary, "trained_on_everything": True, "refit": True})
    return {"model": trainer.model.config.architecture, "trainer": config["trainer"], "epochs_run": len(history)}


REFIT = Stage("refit", 1, _refit, code=("trainers.factory",))


def refit(run: Run, model: Ref, graph: Ref, earlier: Ref | None = None) -> Ref | None:
    """Refit the trained model; the folder holds the files of the train stage's, without any metric but the loss.

    None if the run asks for no refit or registers nothing, and, which is logged, if the trainer has seen all listens.

    Args:
        graph: the whole graph, as the graph stage built it.
        earlier: the model from which the trained one started, and the refit starts too.
    """
    if not (run.config.refit and run.registers):
        return None
    if trained_on_everything(model.value):
        logger.info("There is nothing to refit: the %s trainer has trained on all listens already.", run.config.trainer)
        return None
    config = train_config(run.config)
    del config["num_epochs"]  # the model's own history says for how long
    inputs = {"model": model, "graph": graph, "warm_start": earlier}
    return run.execute(REFIT.bind(name=run.config.name), config, code=chosen_modules(run.config), **inputs)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))

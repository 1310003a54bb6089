"""The evaluate stage: scores the model on the held-out pairs, and keeps every user's list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.cache.ref import Ref
from tasks.cache.stage import Stage
from tasks.run import Run
from tasks.run_config import RunConfig
from tasks.stages.seeds import runs_by_seed
from tasks.stages.train import graph_file, trained_on_everything


def _evaluate(
    folder: Path, config: Mapping[str, Any], model: Path, training_graph: Path, graph: Path, **baselines: Path
) -> Mapping[str, Any]:
    from data.graph import load_graph
    from evaluation.result_files import EvaluationProtocol, write_results
    from trainers.loop.model_files import load_embeddings, load_score

    in_sample = trained_on_everything(model)
    scored_graph = load_graph(graph_file(in_sample, training_graph, graph))
    record = write_results(
        load_score(model),
        scored_graph,
        graph,
        folder,
        EvaluationProtocol(part="train" if in_sample else "test", **config),
        baselines=baselines or None,
        song_vectors=load_embeddings(model).song,
    )
    return {"users": record.num_users, **{name: interval.mean for name, interval in record.metrics.items()}}


EVALUATE = Stage("evaluate", 2, _evaluate, code=("evaluation.result_files", "trainers.loop.model_files"))


def evaluation_config(config: RunConfig) -> dict[str, Any]:
    """Return the users and the lengths of lists to measure: the same for the model and its baselines."""
    chosen = config.evaluation
    return {"k": chosen.k, "ks": chosen.ks, "num_users": chosen.num_eval_users, "seed": chosen.seed}


def evaluate(run: Run, model: Ref, training_graph: Ref, graph: Ref, baselines: Mapping[str, Ref]) -> Ref:
    """Score the model and compare it with its baselines; see ``evaluation.result_files`` for the folder."""
    config = {**evaluation_config(run.config), "conventions": run.config.evaluation.conventions}
    inputs: dict[str, Any] = {"model": model, "training_graph": training_graph, "graph": graph, **baselines}
    return run.execute(EVALUATE, config, **inputs)


def evaluate_models(
    run: Run, models: Sequence[Ref], training_graph: Ref, graph: Ref, baselines: Mapping[str, Ref]
) -> list[Ref]:
    """Score the model of each seed, in the order of ``train_models``."""
    seeded = zip(runs_by_seed(run), models, strict=True)
    return [evaluate(one, model, training_graph, graph, baselines) for one, model in seeded]
